"""Tiny checkpoints of real model classes, built by code: they run every path without a download."""
