"""Any UnixFS file or directory through a fetch group: paths, ranges, a file to read from, and trees onto the disk."""
