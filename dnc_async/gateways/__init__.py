"""Fetches verified blocks from gateways: HTTP, the scoreboard that chooses a gateway, and the fetcher.

Unverified bytes do not leave this package.
"""
