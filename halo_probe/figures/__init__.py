"""Figures of runs: `halo-probe figures`, and the same from a notebook."""

from halo_probe.figures.draw import Figure, Figures, draw_figures
from halo_probe.figures.frames import Frames, read_frames

__all__ = ["Figure", "Figures", "Frames", "draw_figures", "read_frames"]
