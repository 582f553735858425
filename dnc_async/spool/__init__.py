"""Stages chunks on disk under a hard budget: the governor grants leases, and the spool files use them.

The spool is write-once, read-once: a chunk is written as it arrives, read into its batch, and deleted.
"""
