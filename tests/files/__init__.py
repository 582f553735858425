"""Any UnixFS file or tree: get, cat, ls, open."""
