"""IPFS's data formats: parses bytes to values, and trusts no block before it was hashed. PURE.

The modules read no files and open no sockets. From the bottom up:

- :mod:`varint`, :mod:`multihash`, :mod:`cid`: names of blocks
- :mod:`block`: the type of verified bytes
- :mod:`car`, :mod:`car_index`: streams of blocks, and the index of a CARv2 file
- :mod:`dagpb`, :mod:`unixfs`, :mod:`hamt`: the content of dag-pb blocks; :mod:`codecs`: the links in blocks of other codecs
- :mod:`plan`, :mod:`directory`: which blocks a file or directory consists of
- :mod:`builder`: converts files and directories to blocks
"""
