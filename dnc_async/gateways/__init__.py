"""Gateways: one's HTTP, the scoreboard that chooses between them, and the fetcher that turns CIDs into verified blocks.

Unverified bytes do not leave this package.
"""
