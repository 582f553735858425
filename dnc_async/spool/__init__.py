"""Staging on disk under a hard budget: the governor that grants leases, and the files that they pay for.

The spool is write-once, read-once: a chunk is written as it arrives, read into its batch, and deleted.
"""
