import re
from pathlib import Path

from halo_probe.harness.values import DIGIT_KEYS, SUMMARY_KEYS

ROOT = Path(__file__).parents[2]


def test_every_key_that_a_run_emits_is_documented():
    task = (ROOT / "lmms_eval_tasks/tasks/halo_count.yaml").read_text()
    emitted = {*re.findall(r"metric: (\w+)", task), *SUMMARY_KEYS, *DIGIT_KEYS}
    assert len(emitted) > 10
    assert emitted <= set(re.findall(r"`(\w+)`", (ROOT / "docs/metrics.md").read_text()))
