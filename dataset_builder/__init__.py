"""Synthetic counting sets, the same bytes on any machine."""
