"""Publishing: a source's rows become chunks, chunks become UnixFS files, and a target keeps their blocks.

``rows`` takes any source apart, ``packing`` builds the dataset's DAG as a stream of blocks, and there is one module
per target.
"""
