"""The demonstration: the embedded model through lmms-eval, offline, its report, and a picture of where it looks."""

import os
import subprocess
import sys
from pathlib import Path

from dataset_builder.load import load_set
from halo_probe.archive.reading import open_maps
from halo_probe.archive.results import MAPS, results_files
from halo_probe.errors import HaloError, UsageError
from halo_probe.overlay import draw_answer
from halo_probe.page.write import write_report
from halo_probe.score.run import score_run

_TASK = "halo_count"
_DIGITS = 2


def run_demo(out: Path, *, limit: int | None = None) -> list[Path]:
    """Evaluate the embedded model on `halo_count`, write the report and draw the attention to the first image.

    Args:
        out: Folder for lmms-eval's results, the maps, the report and the picture.
        limit: Number of images instead of all 256.

    Returns:
        Paths of the results file, the picture and the page of the report.

    Raises:
        UsageError: If the folder holds the results of an earlier demonstration.
        HaloError: If the evaluation failed; its own message stands above.
    """
    if (out / MAPS).exists():
        raise UsageError(f"--out {out}: holds an earlier run; name another folder, or remove this one.")
    command = [sys.executable, "-m", "lmms_eval", "--model", "halo_tiny"]
    command += ["--model_args", "layers=all", "--device", "cpu"]
    command += ["--tasks", _TASK, "--output_path", str(out), "--log_samples"]
    command += [] if limit is None else ["--limit", str(limit)]
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    settings["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait by spinning take most of a busy machine
    finished = subprocess.run(command, env={**os.environ, **settings}, stdout=sys.stderr, check=False)
    results = results_files(out)
    if finished.returncode or not results:
        raise HaloError(f"the evaluation ended with exit code {finished.returncode}: see its message above.")
    score_run(out, null=True)
    return [results[-1], draw_first_document(out), write_report([out], out / "site")]


def draw_first_document(out: Path) -> Path:
    """Draw the first image with the attention of its first and second generated token at the last recorded layer.

    Args:
        out: The `--output_path` of a run on `halo_count`.

    Returns:
        Path of the picture, `out/attention.png`.
    """
    (stored,) = open_maps(out / MAPS).calls(task=_TASK, documents=[0])
    document = load_set(_TASK)[0]
    title = f"{_TASK}, document 0, {document['count']} dots"
    picture = draw_answer(document["image"], stored, range(_DIGITS), title=title)
    assert picture is not None, "the embedded model is shown whole images"
    path = out / "attention.png"
    picture.save(path)
    return path
