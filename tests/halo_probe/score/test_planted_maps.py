"""Maps whose truth is known, from the files of a run to the verdict: stored, scored with the null, and compared."""

import json

import numpy as np
import pytest

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import load_set
from halo_probe.archive.answers import Answer
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.signature import seal
from halo_probe.archive.writing import MapWriter
from halo_probe.cli import main
from halo_probe.metrics.geometry import lay_out

TASKS = ("halo_count", "halo_layout_annulus")
GRID, DOCUMENTS = (16, 16), 20
CORNER = np.arange(256) == 15 * 16


def draw(kind, layout):
    """Where a model looks: along the dots and their hull, at one corner, or at the frame, whatever the image shows."""
    if kind == "halo ring":
        return 0.1 + 2 * layout.around + 4 * layout.band / (1024 / 16) ** 2
    return 0.2 + 500.0 * CORNER if kind == "sink" else 1 + 6 * layout.frame


def generation(weights):
    maps = np.float32(weights / weights.sum())[np.newaxis, np.newaxis]
    return Generation(
        token_ids=np.zeros(1, dtype=np.int64),
        ended=False,
        views=(View(0, *GRID),),
        layers=(Layer(27, "full_attention"),),
        eq1=maps,
        raw=maps / 2,
        visual_mass=np.full((1, 1), 0.5, dtype=np.float32),
        first_mass=np.full((1, 1), 0.1, dtype=np.float32),
        visible=np.full((1, 1), 256, dtype=np.int32),
    )


def write_run(folder, kind, *, family, rng):
    """What an evaluation leaves behind, as far as it is read."""
    fields = {task: {"dataset_sha256": CONTENT_SHA256[task], "version": 1, "prompt_sha256": ""} for task in TASKS}
    layers = [{"index": 27, "type": "full_attention"}]
    model = {"base": "any", "family": family, "layers": 28}
    signature = seal({"model": model, "recorded_layers": layers, "tasks": fields})
    place = folder / "org__model"
    place.mkdir(parents=True)
    (folder / "halo").mkdir()
    with MapWriter(folder / "halo", signature=signature) as writer:
        for task in TASKS:
            rows = load_set(task).select(range(DOCUMENTS)).remove_columns("image")
            samples = []
            for document, row in enumerate(rows):
                layout = lay_out(row["centers"], radius=row["radius"], image=(1024, 1024), grid=GRID)
                weights = draw(kind, layout) * rng.lognormal(0, 0.5, 256)
                key = (task, document, 0)
                writer.add(key, Answer(text="1", counts=None, values=()), [(generation(weights), ["1"])])
                halo = {"digit_status": "single", "digit_steps": [0]}
                sample = {"doc_id": document, "id": row["id"], "count": row["count"], "predicted": 1, "accuracy": 0.0}
                samples.append({**sample, "status": "ok", "token_counts": [{"halo": halo}]})
            lines = "".join(json.dumps(sample) + "\n" for sample in samples)
            (place / f"0_samples_{task}.jsonl").write_text(lines)
    results = {
        "config": {"model": "halo", "model_args": ""},
        "configs": {task: {"dataset_name": task} for task in TASKS},
        "versions": dict.fromkeys(TASKS, 1),
        "n-samples": {task: {"effective": DOCUMENTS} for task in TASKS},
        "halo": {"signature": signature},
    }
    (place / "0_results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def _sets():
    """Built before a command is looked at, not with a progress bar in it."""
    for task in TASKS:
        load_set(task)


@pytest.mark.usefixtures("_sets")
@pytest.mark.parametrize("kind", ["halo ring", "sink", "frame"])
def test_the_verdict_on_the_halo_is_the_truth(kind, capsys, tmp_path):
    rng = np.random.default_rng(0)
    runs = [write_run(tmp_path / family, kind, family=family, rng=rng) for family in ("a", "b")]
    for run in runs:
        assert main(["score", str(run), "--null", "--workers", "1"]) == 0
    assert main(["compare", *map(str, runs), "--json", str(tmp_path / "report.json")]) == 0
    capsys.readouterr()
    report = json.loads((tmp_path / "report.json").read_text())
    (found,) = [verdict for verdict in report["verdicts"] if verdict["rule"] == "Halo"]
    for key in ("halo_index z n", "hull_contrast z n"):
        assert [demand["numbers"][key] for demand in found["demands"]] == [DOCUMENTS] * 4
    outcomes = {demand["outcome"] for demand in found["demands"]}
    if kind == "halo ring":
        assert (found["conclusion"], outcomes) == ("supported", {"met"}), found
    else:
        # That there is none takes more documents than here.
        assert found["conclusion"] != "supported"
        assert "met" not in outcomes, found
