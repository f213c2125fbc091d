"""Recordings of models that are spread over several devices or partly on disk, against the same model on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import device_runs
import numpy as np
import pytest
import tiny_models
import torch
from transformers import AutoModelForImageTextToText

FAMILIES = ["qwen3_vl", "gemma3"]
CHANGED = ("a knockout", "a scale after the first digit")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `device_runs` found, in a process of its own: a device type is registered for good."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} cannot register a device type from Python")
    here = Path(device_runs.__file__).parent
    finished = subprocess.run(
        [sys.executable, "-P", device_runs.__file__, str(tmp_path_factory.mktemp("checkpoints"))],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(params=[(family, name) for family in FAMILIES for name in device_runs.RECORDINGS], ids=" ".join)
def case(request, found):
    """A family's recording of a kind, and what became of it."""
    family, name = request.param
    return name, found[family][name]


def waits(outcome, steps):
    """For each place, how often the host waited for each device because of the recording."""
    places = {}
    for source, target, place, waited, count in outcome["extra"][str(steps)]:
        if waited:
            device = target if source == "cpu" else source
            places.setdefault(place, {})[device] = places.get(place, {}).get(device, 0) + count
    return places


def test_rows_of_layers_on_two_devices_equal_those_of_the_cpu(case):
    _, outcome = case
    assert outcome["difference"] <= 1e-6
    assert 0.05 < outcome.get("sinks", 0.5) < 0.95


def test_tokens_are_the_same_with_and_without_the_recording(case):
    name, outcome = case
    on_cpu, plain, recorded = outcome["tokens"]
    assert recorded == on_cpu
    assert (recorded == plain) == (name not in CHANGED)


def test_the_host_waits_once_for_each_device_after_the_model_and_never_within(case):
    name, outcome = case
    for steps in device_runs.STEPS:
        # The prompt, where it is on a device, has to be known before the model runs.
        before = {} if name == "a prompt on the host" else {"before": {"fake:0": 1}}
        assert waits(outcome, steps) == {**before, "after": {"fake:0": 1, "fake:1": 1}}


def test_nothing_is_copied_from_device_to_device_layer_by_layer(case):
    name, outcome = case
    for steps in device_runs.STEPS:
        between = sum(count for *ends, _, _, count in outcome["extra"][str(steps)] if "cpu" not in ends)
        # An intervention tells the second device at each step which rows of the batch it acts on, and at which digits.
        assert between <= (2 * steps if name in CHANGED else 0)


def test_a_run_of_lmms_eval_with_the_probe_is_on_two_devices_what_it_is_on_the_cpu(found):
    (samples, maps), on_devices = found["harness"]
    assert on_devices == [samples, maps]
    assert len(json.loads(maps)["map_heads"]) == 2 * 3 * 4  # documents, steps, layers


def test_the_devices_refuse_what_accelerators_refuse_and_note_what_they_wait_for(found):
    to_host, within = ["fake:0", "cpu", True], ["fake:0", "fake:1", False]
    assert found["rules"] == {
        **dict.fromkeys(["here + there", "here + host", "here @ there", "cat", "where", "gather"], "RuntimeError"),
        **dict.fromkeys(["attention", "put", "number += here", "numpy"], "RuntimeError"),
        "index there": "RuntimeError",
        "here + number": [],
        "where with a number": [],
        "index on the host": [["cpu", "fake:0", True]],
        "mask": [["cpu", "fake:0", True], to_host],
        "copy_": [[*reversed(within[:2]), False]],
        "to": [within],
        "to, asynchronous": [["cpu", "fake:1", False]],
        "tensor": [["cpu", "fake:1", True]],
        **{name: [to_host] for name in ("cpu", "item", "bool", "tolist", "nonzero", "isin", "format")},
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_on_disk_record_what_they_record_in_memory(family, tmp_path):
    model, processor = getattr(tiny_models, family)()
    inputs = dict(tiny_models.make_inputs(processor, list(device_runs.pictures()), device_runs.TEXTS))
    folder = tiny_models.write_checkpoint((model, processor), tmp_path / "checkpoint")
    devices = {"fake:0": "cpu", "fake:1": "disk"}
    device_map = {name: devices[place] for name, place in device_runs.spread(model, alternate=True).items()}
    offloaded = AutoModelForImageTextToText.from_pretrained(
        folder, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert {parameter.device.type for parameter in offloaded.parameters()} == {"cpu", "meta"}
    for recording in (
        device_runs.RECORDINGS["every layer and head, and sinks"],
        device_runs.RECORDINGS["a knockout"],
    ):
        expected, in_memory = device_runs.generate(model, inputs, recording, steps=4, record=True)
        tokens, from_disk = device_runs.generate(offloaded, inputs, recording, steps=4, record=True)
        assert torch.equal(tokens, expected)
        assert device_runs.difference(in_memory, from_disk) == 0
        assert all(np.ptp(one.eq1) > 0 for one in from_disk)
