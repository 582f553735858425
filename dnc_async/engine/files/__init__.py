"""Any UnixFS file or directory, by a fetch group: paths, ranges, open files, and trees that are written to disk."""
