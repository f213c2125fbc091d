"""Metrics of attention maps: plain functions over arrays."""
