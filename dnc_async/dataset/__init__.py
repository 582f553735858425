"""A dataset: its schema, its chunk format, its manifest, the order of its batches, and the file formats it is read from.

Nothing here depends on gateways, budgets or publishing targets.
"""
