"""A static page of runs."""
