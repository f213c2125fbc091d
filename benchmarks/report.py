"""How long the page of runs takes to write and to open: models with every layer recorded and scored.

Run `python benchmarks/report.py`. The runs are planted in a temporary folder: random maps of lognormal weights, random
scores, replies that are right a third of the time. Writing is timed from the command to the finished folder, in a
process of its own, imports included. Opening is timed in Chromium, where it is installed: from the request of the page
to the first paint, and from the choice of a document to its heat map.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import load_set
from halo_probe.archive.maps import SCHEMA, SIGNATURE_KEY
from halo_probe.score.parts import SCORES_SCHEMA

_TASK = "halo_count"
_STEPS = 3
_SIDE = 32
_PART = 16  # documents


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=5, help="runs (%(default)s)")
    parser.add_argument("--documents", type=int, default=256, help="images, up to 256 (%(default)s)")
    parser.add_argument("--layers", type=int, default=36, help="layers recorded (%(default)s)")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        print(
            f"{arguments.models} models x {arguments.documents} documents x {arguments.layers} layers x {_STEPS} tokens"
        )
        runs = _plant(folder, models=arguments.models, documents=arguments.documents, layers=arguments.layers)
        site = folder / "site"
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("halo-probe"), "report", *runs, "--out", site], check=True)
        clock = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"  written     {clock:7.1f} s on the clock  {used.ru_utime + used.ru_stime:7.1f} s of processors")
        maps = sum(path.stat().st_size for path in (site / "data").rglob("*.js"))
        rest = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) - maps
        print(f"  size        {maps / 1e6:7.1f} MB of documents  {rest / 1e6:7.1f} MB of page, figures and images")
        _open(site)


def _plant(folder: Path, *, models: int, documents: int, layers: int) -> list[Path]:
    """Runs of `documents` images; their maps are the same."""
    counts = load_set(_TASK)["count"][:documents]
    maps = folder / "maps"
    maps.mkdir()
    for start in range(0, documents, _PART):
        _plant_part(maps / f"part-{start // _PART:05d}.parquet", range(start, min(start + _PART, documents)), layers)
    runs = []
    for model in range(models):
        run, rng = folder / f"model-{model}", np.random.default_rng(model)
        shutil.copytree(maps, run / "halo", copy_function=os.link)
        _plant_results(run, model=model, layers=layers, samples=[_sample(*one, rng) for one in enumerate(counts)])
        _plant_scores(run / "scores.parquet", documents=documents, layers=layers, rng=rng)
        runs.append(run)
    return runs


def _plant_part(path: Path, documents: range, layers: int) -> None:
    tokens = _SIDE * _SIDE
    rng = np.random.default_rng(documents.start)
    doc, step, layer = (axis.ravel() for axis in np.meshgrid(documents, range(_STEPS), range(layers), indexing="ij"))
    n = doc.size
    weights = rng.lognormal(0, 1.5, (n, tokens)).astype(np.float32)
    eq1 = _lists(weights / weights.sum(axis=1, keepdims=True))
    columns = {
        "task": [_TASK] * n,
        "doc_id": doc,
        "repeat": np.zeros(n, np.int32),
        "call": np.zeros(n, np.int32),
        "step": step,
        "token_id": step,
        "token_text": np.array(["1", "2", "<end>"])[step],
        "end": step == _STEPS - 1,
        "layer": layer,
        "layer_type": ["full_attention"] * n,
        "grid": [[[_SIDE, _SIDE]]] * n,
        "map_eq1": eq1,
        "map_raw": eq1,
        "visual_mass": rng.random(n),
        "visible": np.full(n, tokens),
    }
    arrays = [pa.array(columns.get(field.name, [None] * n)).cast(field.type) for field in SCHEMA]
    schema = SCHEMA.with_metadata({SIGNATURE_KEY: json.dumps({})})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def _lists(rows: np.ndarray) -> pa.ListArray:
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, rows.ravel())


def _sample(index: int, count: int, rng: np.random.Generator) -> dict[str, Any]:
    predicted = count + int(rng.integers(-1, 2))
    values = {key: rng.random(_STEPS).tolist() for key in ("sparsity", "entropy", "visual_mass")}
    digits = {f"{key}_d{digit}": values[key][digit - 1] for key in values for digit in (1, 2)}
    one = {"layer": 0, "layer_type": "full_attention", "tokens": ["1", "2", "<end>"], "content": 2, **values}
    halo = {"generations": [one], "digit_status": "split", "digit_steps": [0, 1]}
    return {
        "doc_id": index,
        "id": f"{_TASK}-{index:05d}",
        "count": count,
        "predicted": predicted,
        "accuracy": float(predicted == count),
        "status": "ok",
        "filtered_resps": str(predicted),
        "input": "How many dots are there in the image? Answer directly. Answer: ",
        "token_counts": [{"output_tokens": _STEPS, "halo": halo}],
        **digits,
        "vision_sparsity": values["sparsity"][0],
        "vision_entropy": values["entropy"][0],
        "vision_mass": values["visual_mass"][0],
    }


def _plant_results(run: Path, *, model: int, layers: int, samples: list[dict[str, Any]]) -> None:
    described = {
        "base": "qwen3_vl",
        "pretrained": f"org/model-{model}",
        "family": f"family-{model}",
        "layers": layers,
        "heads": 16,
        "dtype": "bfloat16",
        "kernel": "sdpa",
    }
    signature = {
        "model": described,
        "recorded_layers": [{"index": layer, "type": "full_attention"} for layer in range(layers)],
        "tasks": {_TASK: {"version": 1, "dataset_sha256": CONTENT_SHA256[_TASK], "prompt_sha256": "p"}},
    }
    results = {
        "config": {"model": "halo", "model_args": ""},
        "configs": {_TASK: {"generation_kwargs": {"max_new_tokens": 16}, "num_fewshot": 0, "dataset_name": _TASK}},
        "versions": {_TASK: 1},
        "n-samples": {_TASK: {"original": len(samples), "effective": len(samples)}},
        "halo": {"signature": signature, "failures": []},
    }
    place = run / "org__model"
    place.mkdir()
    (place / "1_results.json").write_text(json.dumps(results))
    (place / f"1_samples_{_TASK}.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))


def _plant_scores(path: Path, *, documents: int, layers: int, rng: np.random.Generator) -> None:
    doc, step, layer = (
        axis.ravel() for axis in np.meshgrid(range(documents), range(_STEPS), range(layers), indexing="ij")
    )
    known = {
        "task": [_TASK] * doc.size,
        "layer_type": ["full_attention"] * doc.size,
        "end": step == _STEPS - 1,
        "doc_id": doc,
        "repeat": doc * 0,
        "call": doc * 0,
        "step": step,
        "layer": layer,
        "image_tokens": np.full(doc.size, _SIDE * _SIDE),
        "reason": [None] * doc.size,
    }
    arrays = [
        pa.array(known[field.name] if field.name in known else rng.normal(size=doc.size)).cast(field.type, safe=False)
        for field in SCORES_SCHEMA
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCORES_SCHEMA), path, compression="zstd")


def _open(site: Path) -> None:
    """Time the page in Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("  opened      not measured: there is no chromium")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((site / "index.html").absolute().as_uri())
        page.wait_for_selector(".panel canvas")
        paint = page.evaluate("performance.getEntriesByName('first-paint')[0].startTime")
        documents = sorted(page.evaluate(_CHOOSE) for _ in range(9))
        browser.close()
    print(f"  opened      {paint:7.0f} ms to the first paint  {documents[4]:7.0f} ms for a document (median of 9)")


_CHOOSE = """async () => {
  const list = document.getElementById("documents");
  const before = document.querySelector(".panel");
  const start = performance.now();
  list.selectedIndex += 1;
  list.dispatchEvent(new Event("change"));
  while (document.querySelector(".panel") === before) await new Promise((done) => setTimeout(done, 1));
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


if __name__ == "__main__":
    main()
