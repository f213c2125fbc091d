"""`halo-probe score`: every metric of the maps that a run has stored, offline."""
