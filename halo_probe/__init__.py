"""halo-probe: where a vision-language model looks while it counts."""
