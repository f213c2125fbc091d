"""How long the page of runs takes to write and to open: models with every layer recorded and scored.

Run `python benchmarks/report.py`. The runs are planted in a temporary folder: random maps of lognormal weights, random
scores, replies that are right a third of the time. Writing is timed from the command to the finished folder, in a
process of its own, imports included. Opening is timed in Chromium, where it is installed: from the request of the page
to the first paint, and from the choice of a document to its heat map.
"""

import argparse
import json
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
from halo_probe.archive.answers import Answer
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.scores import SCORES, SCORES_SCHEMA, STATE_KEY, state_of
from halo_probe.archive.signature import seal
from halo_probe.archive.writing import MapWriter, stored_parts
from halo_probe.score.values import token_values

_TASK = "halo_count"
_STEPS = 3
_SIDE = 32
_PIECES = ("1", "2", "<end>")


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
    """Runs of `documents` images, by the writers of runs."""
    counts = load_set(_TASK)["count"][:documents]
    runs = []
    for model in range(models):
        run, rng = folder / f"model-{model}", np.random.default_rng(model)
        (run / "halo").mkdir(parents=True)
        samples = [_sample(*one, rng) for one in enumerate(counts)]
        signature = _plant_results(run, model=model, layers=layers, samples=samples)
        with MapWriter(run / "halo", signature=signature) as writer:
            for sample in samples:
                generation = _generation(layers, rng)
                values = (token_values(generation, _PIECES),)
                answer = Answer(text=sample["filtered_resps"], counts=None, values=values)
                writer.add((_TASK, sample["doc_id"], 0), answer, [(generation, _PIECES)])
        _plant_scores(run, signature, documents=documents, layers=layers, rng=rng)
        runs.append(run)
    return runs


def _generation(layers: int, rng: np.random.Generator) -> Generation:
    shape = (_STEPS, layers)
    weights = rng.lognormal(0, 1.5, (*shape, _SIDE * _SIDE)).astype(np.float32)
    eq1 = weights / weights.sum(axis=-1, keepdims=True)
    return Generation(
        token_ids=np.arange(_STEPS),
        ended=True,
        views=(View(0, _SIDE, _SIDE),),
        layers=tuple(Layer(layer, "full_attention") for layer in range(layers)),
        eq1=eq1,
        raw=eq1 / 2,
        visual_mass=np.full(shape, 0.5, dtype=np.float32),
        first_mass=np.full(shape, 0.1, dtype=np.float32),
        visible=np.full(shape, _SIDE * _SIDE, dtype=np.int32),
    )


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


def _plant_results(run: Path, *, model: int, layers: int, samples: list[dict[str, Any]]) -> dict[str, Any]:
    described = {
        "base": "qwen3_vl",
        "pretrained": f"org/model-{model}",
        "family": f"family-{model}",
        "layers": layers,
        "heads": 16,
        "dtype": "bfloat16",
        "kernel": "sdpa",
    }
    fields = {
        "model": described,
        "recorded_layers": [{"index": layer, "type": "full_attention"} for layer in range(layers)],
        "tasks": {_TASK: {"version": 1, "dataset_sha256": CONTENT_SHA256[_TASK], "prompt_sha256": "p"}},
    }
    signature = seal(fields)
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
    return signature


def _plant_scores(
    run: Path, signature: dict[str, Any], *, documents: int, layers: int, rng: np.random.Generator
) -> None:
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
    schema = SCORES_SCHEMA.with_metadata({STATE_KEY: json.dumps(state_of(signature, stored_parts(run / "halo")))})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), run / SCORES, compression="zstd")


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
