"""The formats of IPFS."""
