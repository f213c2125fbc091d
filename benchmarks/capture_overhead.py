"""What recording costs: `python benchmarks/capture_overhead.py [--tokens 4 64] [--repeats 7] [--variants "all heads"]`.

Two shapes with random weights, a vision tower that costs next to nothing, and a fixed number of new tokens: Qwen3-VL
reading one 1024 × 1024 image (1024 image tokens), and Gemma3 (256 image tokens, five sliding layers to one full). Each
is run plain, with the last layer recorded, with all layers, with all layers and heads, and in the two ways without the
probe: the eager kernel alone, and eager with `output_attentions`. All in one process, one after the other in turns.

- `time`: median over the turns of the time over that of the plain run of the same turn. CPU seconds of the process on
  a CPU, seconds until the device is done on a CUDA device.
- `in run`: CPU seconds spent in the probe over those of the rest of the same call; median. The noise between calls does
  not blur it. On a CUDA device it is the host's share alone.
- `peak` and `over plain`: the peak of memory over the loaded model, in MB, and over that of the plain run. From the
  allocator on a CUDA device; on a CPU from the kernel's high-water mark of the process, which Linux lets us set back:
  the least of several turns, since a process also takes a megabyte or two that no tensor needs.
"""

import argparse
import ctypes
import gc
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Gemma3Config, Qwen3VLConfig

from halo_probe import record_attention
from halo_probe.capture import recorder, session, sinks

IMAGE_TOKEN, TEXT_TOKENS, VOCABULARY = 9, 60, 4096
WIDTH, HEADS = 1024, 16
VISION = {"hidden_size": 64, "intermediate_size": 64}
_PEAK_TURNS = 5
Run = Callable[[int], None]


def qwen3_vl() -> tuple[Any, Callable[[int], dict[str, torch.Tensor]]]:
    """12 layers, 16 heads, 8 key heads, 1024 image tokens."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 12,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS // 2,
            "head_dim": WIDTH // HEADS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 8, 8]},
        },
        vision_config={
            **VISION,
            "depth": 1,
            "num_heads": 1,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=IMAGE_TOKEN,
    )

    def inputs(batch: int) -> dict[str, torch.Tensor]:
        given = prompt(batch, image_tokens=1024)
        return {
            **given,
            "mm_token_type_ids": (given["input_ids"] == IMAGE_TOKEN).int(),
            "pixel_values": torch.randn(4096 * batch, 3 * 2 * 16 * 16),
            "image_grid_thw": torch.tensor([[1, 64, 64]] * batch),
        }

    return config, inputs


def gemma3() -> tuple[Any, Callable[[int], dict[str, torch.Tensor]]]:
    """12 layers of which two are full, 8 heads, 4 key heads, 256 image tokens."""
    config = Gemma3Config(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 12,
            "num_attention_heads": HEADS // 2,
            "num_key_value_heads": HEADS // 4,
            "head_dim": 128,
            "sliding_window": 1024,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
        },
        vision_config={**VISION, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 224, "patch_size": 14},
        mm_tokens_per_image=256,
        image_token_index=IMAGE_TOKEN,
    )

    def inputs(batch: int) -> dict[str, torch.Tensor]:
        given = prompt(batch, image_tokens=256)
        return {
            **given,
            "token_type_ids": (given["input_ids"] == IMAGE_TOKEN).int(),
            "pixel_values": torch.randn(batch, 3, 224, 224),
        }

    return config, inputs


def prompt(batch: int, *, image_tokens: int) -> dict[str, torch.Tensor]:
    """Image tokens, then text."""
    image = torch.full((batch, image_tokens), IMAGE_TOKEN)
    ids = torch.cat([image, torch.randint(10, VOCABULARY, (batch, TEXT_TOKENS))], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def variants(shape: Any, *, device: str, batch: int) -> dict[str, Run]:
    """Name to a function that generates that many tokens."""
    config, inputs = shape()
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").to(device, dtype).eval()
    model.generation_config.eos_token_id = None
    given = {name: value.to(device) for name, value in inputs(batch).items()}
    given["pixel_values"] = given["pixel_values"].to(dtype)

    def generate(tokens: int, *, kernel: str = "sdpa", record: Mapping[str, Any] | None = None, **options: Any) -> None:
        if model.config.get_text_config()._attn_implementation != kernel:  # noqa: SLF001 - as transformers names it
            model.set_attn_implementation(kernel)
        length = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        with nullcontext() if record is None else record_attention(model, **record):
            model.generate(**given, **length, **options)
        if device == "cuda":
            torch.cuda.synchronize()

    naive = {"output_attentions": True, "return_dict_in_generate": True}
    return {
        "plain": generate,
        "last layer": partial(generate, record={}),
        "all layers": partial(generate, record={"layers": "all"}),
        "all heads": partial(generate, record={"layers": "all", "heads": "all"}),
        "all, sinks": partial(generate, record={"layers": "all", "sinks": True}),
        "eager": partial(generate, kernel="eager"),
        "naive": partial(generate, kernel="eager", **naive),
    }


PROBED = [
    (recorder._Call, "__init__"),  # noqa: SLF001 - everything of the probe's that runs within a call
    (recorder._Call, "_attend"),  # noqa: SLF001
    (recorder._Call, "generations"),  # noqa: SLF001
    (session.Session, "_note_tokens"),
    (session.Session, "_note_positions"),
    (sinks.VisualSinks, "_look"),
]


@contextmanager
def counting_own_time() -> Iterator[list[float]]:
    """Collect the CPU seconds of each stretch that the probe runs for."""
    spent: list[float] = []
    originals = [(owner, name, getattr(owner, name)) for owner, name in PROBED]

    def timed(owner: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return original(owner, *args, **kwargs)
        finally:
            spent.append(time.process_time() - start)

    try:
        for owner, name, original in originals:
            setattr(owner, name, partialmethod(timed, original))
        yield spent
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def measure_times(runs: Mapping[str, Run], tokens: int, *, repeats: int, device: str) -> dict[str, tuple[float, float]]:
    """Name to median time over plain and median share of the probe; the plain run's own seconds under `plain`."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    ratios, shares, plain_seconds = defaultdict(list), defaultdict(list), []
    names = list(runs)
    for turn in range(repeats + 1):
        seconds = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            with counting_own_time() as own:
                start, start_cpu = clock(), time.process_time()
                runs[name](tokens)
                seconds[name] = clock() - start
                rest = time.process_time() - start_cpu - sum(own)
            if turn:
                shares[name].append(sum(own) / rest)
        if turn:  # the first turn warms up
            plain_seconds.append(seconds["plain"])
            for name in names:
                ratios[name].append(seconds[name] / seconds["plain"])
        show(f"turn {turn} of {repeats}")
    measured = {name: (statistics.median(ratios[name]), statistics.median(shares[name])) for name in names}
    measured["plain"] = (statistics.median(plain_seconds), 0.0)
    return measured


def peak_megabytes(run: Run, tokens: int, *, device: str) -> float:
    """Peak memory of one call over what was there before it; NaN where it cannot be measured."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(tokens)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return math.nan
    libc.mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back, so that the peak is of what is in use
    libc.malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts at what is in use now
    except OSError:
        return math.nan
    before = status_kilobytes("VmRSS")
    run(tokens)
    return (status_kilobytes("VmHWM") - before) / 2**10


def status_kilobytes(field: str) -> int:
    """A field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def show(progress: str) -> None:
    """Say how far it is."""
    print(f"\r{progress}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Print a table for each shape and number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", choices=["qwen3_vl", "gemma3"], default=["qwen3_vl", "gemma3"])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="run these alone beside plain (default: all)")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in arguments.shapes:
        runs = variants({"qwen3_vl": qwen3_vl, "gemma3": gemma3}[name], device=device, batch=arguments.batch)
        chosen = arguments.variants or runs
        runs = {variant: run for variant, run in runs.items() if variant == "plain" or variant in chosen}
        for tokens in arguments.tokens:
            times = measure_times(runs, tokens, repeats=arguments.repeats, device=device)
            turns = [
                {variant: peak_megabytes(run, tokens, device=device) for variant, run in runs.items()}
                for _ in range(_PEAK_TURNS)
            ]
            peaks = {variant: min(turn[variant] for turn in turns) for variant in runs}
            print(
                f"\n{name}, {device}, batch {arguments.batch}, {tokens} new tokens, {arguments.repeats} turns, "
                f"plain {times['plain'][0]:.2f} s"
            )
            print(f"{'':<12} {'time':>7} {'in run':>8} {'peak MB':>9} {'over plain':>11}")
            for variant, (ratio, share) in times.items():
                time_ratio, memory_ratio = 1 if variant == "plain" else ratio, peaks[variant] / peaks["plain"]
                print(f"{variant:<12} {time_ratio:>7.3f} {share:>7.2%} {peaks[variant]:>9.1f} {memory_ratio:>11.3f}")


if __name__ == "__main__":
    main()
