"""The lmms-eval tasks of the halo study: questions, parsing of replies, counting metrics."""
