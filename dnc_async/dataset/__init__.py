"""What a dataset is: its schema, its chunks' layout, its manifest, the order of its batches, and the formats it is read from.

Nothing here knows of gateways, budgets or publishing targets.
"""
