"""Runs of many models, ranked: `halo-probe leaderboard`."""

from halo_probe.leaderboard.board import Leaderboard, build_leaderboard
from halo_probe.leaderboard.render import render_html

__all__ = ["Leaderboard", "build_leaderboard", "render_html"]
