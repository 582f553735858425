"""Streams from end to end: real stores, real gateways, real processes."""
