"""Sealing the files of a probed run once lmms-eval has written them: their hashes go into the results file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from loguru import logger

from halo_probe.archive.results import RESULTS, seal_results
from halo_probe.replacing import replace_for_good

_ORIGINAL = "_halo_original"


def seal_when_saved(results: Mapping[str, Any]) -> None:
    """Seal the results file of a run whenever lmms-eval has saved the samples of one of its tasks.

    Args:
        results: Those of the run, with what the probe says of it under `halo`.
    """
    save = getattr(EvaluationTracker.save_results_samples, _ORIGINAL, EvaluationTracker.save_results_samples)

    def save_and_seal(self: Any, task_name: str, samples: Sequence[Any]) -> None:
        save(self, task_name, samples)
        if not self.output_path or task_name not in results["configs"]:
            return
        folder = Path(self.output_path, self.general_config_tracker.model_name_sanitized)
        file = folder / f"{self.date_id}{RESULTS}"
        try:
            seal_results(file)
        except (OSError, ValueError, KeyError) as error:
            logger.warning(f"{file}: the hashes of the files of the run were not written ({error}).")

    setattr(save_and_seal, _ORIGINAL, save)
    replace_for_good(EvaluationTracker, "save_results_samples", save_and_seal)
