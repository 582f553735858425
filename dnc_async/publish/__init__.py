"""Publishing: a source's rows are packed into chunks, chunks into UnixFS files, and a target stores their blocks.

``rows`` reads any source, ``packing`` builds the dataset's DAG as a stream of blocks, and there is one module per target.
"""
