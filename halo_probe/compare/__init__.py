"""Comparing runs: what they scored, how sure that is, and what it says about the claims of the study."""
