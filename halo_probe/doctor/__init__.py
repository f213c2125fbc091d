"""Whether a model can be probed, and what a run would cost."""
