import re
from pathlib import Path

from halo_probe.archive.scores import SCORES_SCHEMA
from halo_probe.lmms.measures import Measures
from halo_probe.metrics.dots import Dots

ROOT = Path(__file__).parents[3]
LARGE = Dots(centers=((100, 100),), radius=64, image=(256, 256))


def documented(page):
    return set(re.findall(r"`(\w+)`", (ROOT / page).read_text()))


def without(suffixes, keys):
    return {re.sub(rf"({'|'.join(suffixes)})$", "", key) for key in keys}


def test_every_key_that_a_run_emits_is_documented():
    task = (ROOT / "lmms_eval_tasks/tasks/halo_count.yaml").read_text()
    everything = [
        Measures(digits=digits, ours=True, dots=(LARGE,), middle=(1,), repeated=True, true_digits=("12",)).keys
        for digits in ("first", None)
    ]
    emitted = {*re.findall(r"metric: (\w+)", task), *(key for keys in everything for key in keys)}
    assert len(emitted) > 40
    # What the suffixes mean is said once.
    known = documented("docs/metrics.md")
    metrics = without(["_d1", "_d2"], emitted - known)
    assert {key.removeprefix("vision_") for key in metrics} - known == set()


def test_every_column_of_the_scores_is_documented():
    known = documented("docs/score.md") | documented("docs/metrics.md")
    assert without(["_ns", "_rn"], without(["_z", "_p"], SCORES_SCHEMA.names)) - known == set()
