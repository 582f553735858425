"""IPFS's data formats: bytes in, values out, and nothing is believed before it was hashed.

The package is pure: it reads no file and opens no socket. From the bottom up:

- :mod:`varint`, :mod:`multihash`, :mod:`cid`: names of blocks
- :mod:`block`: the one type of verified bytes
- :mod:`car`, :mod:`car_index`: streams of blocks, and where in a CARv2 file each of them lies
- :mod:`dagpb`, :mod:`unixfs`, :mod:`hamt`: what is inside the blocks; :mod:`codecs`: the links in blocks of other kinds
- :mod:`plan`, :mod:`directory`: which blocks a file or a directory needs
- :mod:`builder`: files and directories to blocks
"""
