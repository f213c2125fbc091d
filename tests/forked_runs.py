"""Runs that are killed, starved of disk or robbed of their folder: the process that imports once and forks them.

Called with a JSON object on standard input, it forks a child for each attempt, which evaluates the task of `write_task`
with the probe; nothing of torch runs in the parent, so that forking is safe. Standard output is a JSON list of what
became of each attempt: `{"signal": …, "error": …}`, and `{"samples": …}` of those that finished.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

TASK = """
task: patches
dataset_path: parquet
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_visual: !function patches.images
doc_to_text: !function patches.question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4, until: []}
process_results: !function patches.score
metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""
CODE = """
def images(doc):
    return [] if doc["image"] is None else [doc["image"].convert("RGB")]
def question(doc, lmms_eval_specific_kwargs=None):
    return "How many dots are there in the image?"
def score(doc, results):
    return {"length": float(len(results[0]))}
"""


def write_task(folder, images):
    """A small foreign task, `patches`: one document for each image, None for a document without."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "answer": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": images, "answer": ["12"] * len(images)}, features=features)
    rows.to_parquet(folder / "patches.parquet")
    (folder / "patches.yaml").write_text(TASK.replace("DATA", str(folder / "patches.parquet")))
    (folder / "patches.py").write_text(CODE)
    return folder


def values_of(samples):
    """What a sample says that a resumed run has to say again."""
    return [
        {key: sample[key] for key in ("doc_id", "filtered_resps", "token_counts", "vision_mass", "vision_sparsity")}
        for sample in samples
    ]


def _evaluate(given, attempt, manager, progress):
    """In the child: one attempt, with parts of two documents so that there is much to cut short."""
    from lmms_eval import evaluator
    from lmms_eval.models.chat import qwen3_vl

    from halo_probe.archive import writing
    from halo_probe.lmms.model import HaloChat

    writing._PART_DOCUMENTS = 2
    options = f"base=qwen3_vl,pretrained={given['checkpoint']},device_map=cpu,{attempt.get('options', '')}"
    lm = HaloChat.create_from_arg_string(f"{options},maps={attempt['maps']}", {"device": "cpu"})
    generate_until = qwen3_vl.Qwen3_VL.generate_until

    def tell_and_generate(self, requests):
        os.write(progress, b".")
        if limit := attempt.get("file_size"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return generate_until(self, requests)

    qwen3_vl.Qwen3_VL.generate_until = tell_and_generate
    results = evaluator.simple_evaluate(model=lm, tasks=["patches"], task_manager=manager, **attempt.get("call", {}))
    return {"samples": values_of(results["samples"]["patches"]), "halo": results["halo"]}


def _attempt(given, attempt, manager):
    """Fork one attempt and wait for its end, or bring it about."""
    told, progress = os.pipe()
    outcome = Path(given["outcome"])
    outcome.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        try:
            outcome.write_text(json.dumps(_evaluate(given, attempt, manager, progress)))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outcome is the error
            outcome.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        os._exit(0)
    os.close(progress)
    started = time.monotonic()
    first = None
    while os.read(told, 1):
        first = first or time.monotonic()
        if "kill_after" in attempt:
            time.sleep(attempt["kill_after"])
            os.kill(child, attempt.get("signal", signal.SIGKILL))
            break
        if attempt.get("remove_after_first_part") and list(Path(attempt["maps"]).glob("part-*.parquet")):
            shutil.rmtree(attempt["maps"])
    os.close(told)
    _, status = os.waitpid(child, 0)
    spent = time.monotonic() - (first or started)
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None, "seconds": spent} | (
        {} if os.WIFSIGNALED(status) or not outcome.exists() else json.loads(outcome.read_text())
    )


def main():
    import torch
    from lmms_eval import models
    from lmms_eval.tasks import TaskManager

    from halo_probe.lmms.model import HaloChat  # noqa: F401 - imported once, for every child

    torch.set_num_threads(1)
    given = json.load(sys.stdin)
    stdout = os.dup(1)
    os.dup2(2, 1)  # lmms-eval logs to standard output
    models.get_model("qwen3_vl")
    manager = TaskManager(include_path=given["tasks"], include_defaults=False, model_name="halo")
    outcomes = []
    for attempt in given["attempts"]:
        if "kill_within" in attempt:  # a share of the time that the attempt `of` took, by default the first
            attempt["kill_after"] = random.Random(len(outcomes)).uniform(
                0, attempt["kill_within"] * outcomes[attempt.get("of", 0)]["seconds"]
            )
        outcomes.append(_attempt(given, attempt, manager))
    os.write(stdout, json.dumps(outcomes).encode())


if __name__ == "__main__":
    main()
