"""The order of an epoch."""
