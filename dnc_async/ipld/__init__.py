"""IPFS's formats as pure functions: bytes in, values out. No sockets, files, clocks or event loops here."""
