"""Run folders as lmms-eval and the probe write them, with replies and maps that the tests choose."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.archive.answers import Answer
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.reading import open_maps
from halo_probe.archive.results import results_files
from halo_probe.archive.scores import SCORES_SCHEMA, STATE_KEY, state_of
from halo_probe.archive.signature import seal
from halo_probe.archive.writing import MapWriter, stored_parts
from halo_probe.score.values import token_values

TASK = "halo_count"
SQUARE = (View(0, 8, 8),)


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
    fields = {
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
    return seal(fields)


def signature_of(folder):
    """That of a planted run; sealed and of nothing where there is no results file."""
    signatures = [json.loads(file.read_text()).get("halo", {}).get("signature") for file in results_files(folder)]
    return next(filter(None, signatures), seal({"model": {}, "tasks": {}}))


def plant_maps(
    folder,
    maps_of,
    *,
    documents,
    tokens=("1", "2", "<end>"),
    layers=(0, 1, 2, 3),
    views=SQUARE,
    task=TASK,
    calls=1,
):
    """Parts of maps, by the writer of runs: `maps_of(document, step, layer)` gives the weights of a map."""
    maps = folder / "halo"
    maps.mkdir(exist_ok=True)
    with MapWriter(maps, signature=signature_of(folder)) as writer:
        for document in documents:
            weights = np.array(
                [[np.ravel(maps_of(document, step, layer)) for layer in layers] for step in range(len(tokens))],
                dtype=np.float32,
            )
            mass = np.full(weights.shape[:2], 0.25, dtype=np.float32)
            generation = Generation(
                token_ids=np.arange(len(tokens)),
                ended=True,
                views=views,
                layers=tuple(Layer(layer, "full_attention") for layer in layers),
                eq1=weights / weights.sum(axis=-1, keepdims=True),
                raw=weights,
                visual_mass=mass,
                first_mass=np.full_like(mass, 0.1),
                visible=np.full(weights.shape[:2], weights.shape[-1], dtype=np.int32),
            )
            values = (token_values(generation, tokens),) * calls
            answer = Answer(text="".join(tokens[:-1]), counts=None, values=values)
            writer.add((task, document, 0), answer, [(generation, tokens)] * calls)
    assert open_maps(maps).parts
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
    store_scores(folder, pa.Table.from_pylist(rows, schema=SCORES_SCHEMA))
    return folder


def store_scores(folder, table):
    """A table as the scores of the maps that a run has; columns that it lacks are null."""
    state = json.dumps(state_of(signature_of(folder), stored_parts(folder / "halo")))
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in SCORES_SCHEMA
    ]
    schema = SCORES_SCHEMA.with_metadata({STATE_KEY: state})
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), folder / "scores.parquet")
