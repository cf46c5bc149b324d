"""A user's own pictures: from a folder, a table, arrays or an archive of these to a data set (docs/own-data.md)."""
