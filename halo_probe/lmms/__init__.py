"""The probe inside lmms-eval: `--model halo`."""
