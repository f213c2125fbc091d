"""What lies on the disk of a run, and who may write and read it."""
