"""Run folders as lmms-eval and the probe write them, with replies and maps that the tests choose."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.archive.maps import SCHEMA, SIGNATURE_KEY
from halo_probe.score.parts import SCORES_SCHEMA

TASK = "halo_count"


def counted(index, error, **more):
    """The sample of a document of `halo_count`: its true count, and a reply that is wrong by `error`, or none."""
    count = draw_sample(SETS[TASK], index).count
    predicted = None if error is None else count + error
    digits = [] if error is None else [0, 1]
    return {
        "doc_id": index,
        "id": f"{TASK}-{index:05d}",
        "count": count,
        "predicted": predicted,
        "accuracy": float(predicted == count),
        "status": "none" if error is None else "ok",
        "mae": None if error is None else abs(error),
        "filtered_resps": "I cannot tell." if error is None else str(predicted),
        "input": "How many dots are there in the image? Answer directly. Answer: ",
        "target": str(count),
        "token_counts": [{"output_tokens": 3, "halo": {"digit_status": "split", "digit_steps": digits}}],
        **more,
    }


def plant_run(
    folder,
    tasks,
    *,
    model="org/model",
    family="qwen3_vl",
    layers=(0, 1, 2, 3),
    depth=4,
    version=1,
    intervention=None,
    failures=(),
):
    """A finished run of samples by task; without layers one that was not probed."""
    place = folder / "org__model"
    place.mkdir(parents=True)
    results = {
        "config": {"model": "halo", "model_args": f"base=qwen3_vl,pretrained={model}"},
        "configs": {
            task: {"generation_kwargs": {"max_new_tokens": 16}, "num_fewshot": 0, "dataset_name": task}
            for task in tasks
        },
        "versions": dict.fromkeys(tasks, version),
        "n-samples": {task: {"original": len(rows), "effective": len(rows)} for task, rows in tasks.items()},
        "system_instruction": None,
    }
    if layers:
        results["halo"] = {
            "signature": signature(
                tasks, model=model, family=family, layers=layers, depth=depth, intervention=intervention
            ),
            "failures": list(failures),
        }
    (place / "1_results.json").write_text(json.dumps(results))
    for task, rows in tasks.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (place / f"1_samples_{task}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def signature(tasks, *, model, family, layers, depth, intervention=None):
    data = {task: CONTENT_SHA256.get(task, "fingerprint:0") for task in tasks}
    return {
        "model": {
            "base": "qwen3_vl",
            "pretrained": model,
            "family": family,
            "layers": depth,
            "heads": 4,
            "dtype": "bfloat16",
            "kernel": "sdpa",
        },
        "recorded_layers": [{"index": layer, "type": "full_attention"} for layer in layers],
        "tasks": {task: {"version": 1, "dataset_sha256": sha, "prompt_sha256": "p"} for task, sha in data.items()},
        "intervention": intervention,
    }


def plant_maps(
    folder,
    maps_of,
    *,
    documents,
    tokens=("1", "2", "<end>"),
    layers=(0, 1, 2, 3),
    grids=((8, 8),),
    task=TASK,
    part=0,
    signed=None,
    **more,
):
    """One part of maps: `maps_of(document, step, layer)` gives the weights of a map; `more` are columns for every row.

    `signed` is the signature of the run, which `halo-probe score` asks for.
    """
    rows = []
    for document in documents:
        for step, text in enumerate(tokens):
            for layer in layers:
                weights = np.asarray(maps_of(document, step, layer), dtype=np.float32).ravel()
                rows.append(
                    {
                        "task": task,
                        "doc_id": document,
                        "repeat": 0,
                        "call": 0,
                        "step": step,
                        "token_id": step,
                        "token_text": text,
                        "end": step == len(tokens) - 1,
                        "layer": layer,
                        "layer_type": "full_attention",
                        "grid": [list(grid) for grid in grids],
                        "visible": weights.size,
                        "map_eq1": weights / weights.sum(),
                        "map_raw": weights,
                        "visual_mass": 0.25,
                        **more,
                    }
                )
    (folder / "halo").mkdir(exist_ok=True)
    schema = SCHEMA.with_metadata({SIGNATURE_KEY: json.dumps(signed or {})})
    known = [{name: row.get(name) for name in SCHEMA.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(known, schema=schema), folder / "halo" / f"part-{part:05d}.parquet")
    return folder


def plant_scores(folder, scores_of, *, documents, steps=3, layers=(0, 1, 2, 3), task=TASK):
    """The scores of every map: `scores_of(document, step, layer)` gives those that are not null."""
    rows = [
        {
            **dict.fromkeys(SCORES_SCHEMA.names),
            "task": task,
            "doc_id": document,
            "repeat": 0,
            "call": 0,
            "step": step,
            "layer": layer,
            "layer_type": "full_attention",
            "end": step == steps - 1,
            "image_tokens": 64,
            "visual_mass": 0.25,
            **scores_of(document, step, layer),
        }
        for document in documents
        for step in range(steps)
        for layer in layers
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES_SCHEMA), folder / "scores.parquet")
    return folder
