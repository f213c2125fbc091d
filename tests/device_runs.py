"""Recordings of models that are spread over fake devices: the process that registers the devices.

Called with a folder to write in. For each family it loads a checkpoint with its decoder layers on two devices, by
transformers' own `device_map`, and records there what it has recorded on the CPU. Standard output is JSON: for each
family and recording a dictionary of

- `difference`: the largest between the numbers recorded on the devices and on the CPU; infinite where one is undefined;
- `sinks`: the share of image tokens that are visual sinks;
- `tokens`: those of the CPU, of the devices without a recording and of the devices with it;
- `extra`: for each number of new tokens, what crossed between devices because of the recording, more than without:
  lists of source, target, place, whether the host waited, and how often;

under `harness` what lmms-eval's samples and the stored maps are with `--model halo`, each on the CPU and on the devices;
and under `rules` what single operations did: the error's type, or the crossings without their places.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import fake_device
import forked_runs
import numpy as np
import pandas as pd
import tiny_models
import torch
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText

from halo_probe.capture import collection, record_attention, sinks, transfers
from halo_probe.capture.interventions import Intervention

STEPS = (3, 6)
SIZES = [(96, 64), (128, 160)]
TEXTS = ["How many dots?", "How many dots are there in the image? Answer directly. Answer: "]
NUMBERS = ("eq1", "raw", "heads", "visual_mass", "first_mass", "visible", "sink_tokens", "token_ids")
WHOLE = {"layers": "all", "heads": "all", "sinks": True}
RECORDINGS = {
    "every layer and head, and sinks": {"record": WHOLE},
    "the same in small blocks": {"record": WHOLE, "block": 20_000},
    "one prompt": {"record": WHOLE, "prompts": 1},
    "a prompt on the host": {"record": WHOLE, "prompt": "cpu"},
    "the last layer": {"record": {}},
    "beams": {"record": {"layers": "all"}, "generate": {"num_beams": 2}},
    "a static cache": {
        "record": {"layers": "all"},
        "generate": {"cache_implementation": "static", "disable_compile": True},
    },
    "a knockout": {"record": WHOLE, "intervention": {"name": "knockout", "cells": (0, 2, 5)}},
    "a scale after the first digit": {
        "record": WHOLE,
        "intervention": {"name": "scale", "strength": 3.0, "steps": "d2"},
    },
}


def pictures():
    for number, size in enumerate(SIZES):
        image = Image.new("RGB", size, (255, 255, 255))
        ImageDraw.Draw(image).ellipse((8, 8, 40 + 8 * number, 50), fill=(0, 90 * number, 20))
        yield image


def spread(model, *, alternate):
    """The device map: every module of the model on `fake:0` but some decoder layers, on `fake:1`."""
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    count = len(model.get_decoder().layers)
    device_map = {}

    def place(module, prefix=""):
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if path == f"{decoder}.layers":
                for layer in range(count):
                    second = layer % 2 if alternate else layer >= count // 2
                    device_map[f"{path}.{layer}"] = f"fake:{int(second)}"
            elif decoder.startswith(path):
                place(child, f"{path}.")
            else:
                device_map[path] = "fake:0"

    place(model)
    return device_map


def generate(model, inputs, recording, *, steps, record):
    """The tokens on the CPU, and the generations where they are recorded."""
    options = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "sequence_bias": None}
    options |= recording.get("generate", {})
    if not record:
        return model.generate(**inputs, **options).cpu(), []
    intervention = recording.get("intervention") and Intervention(**recording["intervention"])
    with record_attention(model, **recording["record"], intervention=intervention) as recorded:
        tokens = model.generate(**inputs, **options)
    return tokens.cpu(), recorded.generations


def difference(one, other):
    """The largest between two recordings."""
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        for name in NUMBERS:
            x, y = (np.asarray(getattr(each, name), dtype=np.float64) for each in (a, b))
            equal = (x == y) | (np.isnan(x) & np.isnan(y))
            largest = max(largest, np.nan_to_num(np.where(equal, 0.0, np.abs(x - y)), nan=np.inf).max(initial=0.0))
    return float(largest)


def watched(crossings, model, inputs, recording, *, steps, record):
    """The tokens, the generations, and how often each kind of crossing was seen."""
    crossings.seen.clear()
    crossings.place = "before"
    decoder = model.get_decoder()
    hooks = [
        decoder.register_forward_pre_hook(lambda *_: setattr(crossings, "place", "decoder"), prepend=True),
        decoder.register_forward_hook(lambda *_: setattr(crossings, "place", "after")),
    ]
    tokens, generations = generate(model, inputs, recording, steps=steps, record=record)
    for hook in hooks:
        hook.remove()
    return tokens, generations, Counter((str(c.source), str(c.target), c.place, c.waits) for c in crossings.seen)


def recordings_of(build, folder, *, alternate):
    """What became of each recording of one family."""
    model, processor = build(layers=4)
    tiny_models.write_checkpoint((model, processor), folder)
    images = list(pictures())
    prompts = {count: dict(tiny_models.make_inputs(processor, images[:count], TEXTS[:count])) for count in (1, 2)}
    digits = generate(model, prompts[2], {}, steps=1, record=False)[0][:, -1].tolist()
    RECORDINGS["a scale after the first digit"]["intervention"]["digit_token_ids"] = frozenset({*digits, *range(20)})
    expected = {
        name: generate(model, prompts[one.get("prompts", 2)], one, steps=STEPS[-1], record=True)
        for name, one in RECORDINGS.items()
    }
    found, plain = {}, {}
    with fake_device.devices() as crossings:
        model = AutoModelForImageTextToText.from_pretrained(folder, device_map=spread(model, alternate=alternate))
        for name, recording in RECORDINGS.items():
            collection._BLOCK_LOGITS = recording.get("block", 2**22)
            count, device = recording.get("prompts", 2), recording.get("prompt", model.device)
            inputs = {key: value.to(device) for key, value in prompts[count].items()}
            extra = {}
            for steps in STEPS:
                key = count, str(device), steps, str(recording.get("generate"))
                if key not in plain:
                    plain[key] = watched(crossings, model, inputs, recording, steps=steps, record=False)
                tokens, generations, counts = watched(crossings, model, inputs, recording, steps=steps, record=True)
                counts.subtract(plain[key][2])
                extra[steps] = [[*crossing, number] for crossing, number in counts.items() if number]
            found[name] = {
                "difference": difference(expected[name][1], generations),
                "tokens": [one.tolist() for one in (expected[name][0], plain[key][0], tokens)],
                "extra": extra,
            }
            if recording["record"].get("sinks"):
                found[name]["sinks"] = float(np.concatenate([one.sink_tokens for one in generations]).mean())
    return found


def harness_runs(folder):
    """A task answered with the probe, its capture proven and its attention changed."""
    from lmms_eval import evaluator
    from lmms_eval.tasks import TaskManager

    from halo_probe.lmms import transformers_chat
    from halo_probe.lmms.model import HaloChat

    model, processor = tiny_models.qwen3_vl()
    checkpoint = tiny_models.write_checkpoint((model, processor), folder / "checkpoint")
    tasks = forked_runs.write_task(folder, list(pictures()))
    manager = TaskManager(include_path=str(tasks), include_defaults=False, model_name="halo")
    load = AutoModelForImageTextToText.from_pretrained

    class Spread:
        """Says of each module which device it goes to, as `device_map=auto` does where accelerate knows the devices."""

        @staticmethod
        def from_pretrained(pretrained, **options):
            return load(pretrained, **{**options, "device_map": spread(model, alternate=False)})

    def run(maps):
        options = f"layers=all,heads=all,sinks=true,intervention=adapt,maps={maps}"
        options += f",base=halo_transformers,pretrained={checkpoint},device_map=cpu"
        lm = HaloChat.create_from_arg_string(options, {"device": "cpu"})
        results = evaluator.simple_evaluate(model=lm, tasks=["patches"], task_manager=manager)
        return repr(forked_runs.values_of(results["samples"]["patches"])), pd.read_parquet(maps).to_json()

    on_cpu = run(folder / "cpu")
    with fake_device.devices():
        transformers_chat.AutoModelForImageTextToText = Spread
        return [on_cpu, run(folder / "devices")]


def rules():
    """What the devices make of single operations, among them all kinds that mix devices."""
    found = {}
    with fake_device.devices() as crossings:
        host = torch.arange(6.0).view(2, 3)
        number, index, mask = torch.tensor(2.0), torch.tensor([1]), host[0] > 0
        here, there = host.to("fake:0"), host.to("fake:1")
        for name, operation in {
            "here + there": lambda: here + there,
            "here + host": lambda: here + host,
            "here + number": lambda: here + number,
            "number += here": lambda: number.clone().add_(here[0, 0]),
            "here @ there": lambda: here @ there.T,
            "cat": lambda: torch.cat([here, there]),
            "where": lambda: torch.where(here > 0, here, there),
            "where with a number": lambda: torch.where(here > 0, here, number),
            "gather": lambda: here.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
            "attention": lambda: torch.nn.functional.scaled_dot_product_attention(here, there, here),
            "index there": lambda: here[:, index.to("fake:1")],
            "index on the host": lambda: here[:, index],
            "mask": lambda: here[:, mask.to("fake:0")],
            "put": lambda: here.clone().index_put_((index.to("fake:0"),), there[0]),
            "copy_": lambda: here.clone().copy_(there),
            "to": lambda: here.to("fake:1"),
            "to, asynchronous": lambda: host.to("fake:1", non_blocking=True),
            "tensor": lambda: torch.tensor([1, 2], device="fake:1"),
            "cpu": here.cpu,
            "item": here[0, 0].item,
            "bool": lambda: bool(here[0, 0]),
            "tolist": here.tolist,
            "numpy": here.numpy,
            "nonzero": here.nonzero,
            "isin": lambda: torch.isin(here[0, :1], torch.arange(10.0, device="fake:0")),
            "format": lambda: f"{here}",
        }.items():
            crossings.seen.clear()
            try:
                operation()
            except (RuntimeError, TypeError) as error:
                found[name] = type(error).__name__
            else:
                found[name] = [[str(one.source), str(one.target), one.waits] for one in crossings.seen]
    return found


def main():
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # the devices work in the thread that asked for them
    torch.set_num_threads(1)
    fake_device.register()
    transfers._STAGED = (*transfers._STAGED, "fake")
    sinks.SINK_SCORE = 3.0  # weights at random have no massive activations
    folder = Path(sys.argv[1])
    (folder / "harness").mkdir()
    found = {
        "rules": rules(),
        "harness": harness_runs(folder / "harness"),
        "qwen3_vl": recordings_of(tiny_models.qwen3_vl, folder / "qwen3_vl", alternate=False),
        "gemma3": recordings_of(tiny_models.gemma3, folder / "gemma3", alternate=True),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
