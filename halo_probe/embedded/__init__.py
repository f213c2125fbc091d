"""Small models of real classes that run every path without a download: one of random weights, and two trained ones."""

from halo_probe.embedded.trained import trained_checkpoint

__all__ = ["trained_checkpoint"]
