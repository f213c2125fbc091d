"""Runs of many models, ranked."""
