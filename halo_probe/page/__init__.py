"""A static page of runs: one folder that opens from disk, with no server and no network."""
