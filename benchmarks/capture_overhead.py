"""What recording costs: `python benchmarks/capture_overhead.py [--tokens 4 64] [--repeats 5]`.

A Qwen3-VL shape with random weights reads one 1024 × 1024 image (1024 image tokens) and generates a fixed number of
tokens: plain, with the last layer recorded, with all layers, with all layers and heads, and the two ways without the
probe: the eager kernel alone, and eager with `output_attentions`. All in one process, interleaved; prints the median
time over plain, and the peak memory over the loaded model, of each. It runs on a CUDA device where there is one.
"""

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Qwen3VLConfig

from halo_probe import record_attention

LAYERS, HEADS, WIDTH = 12, 16, 64
IMAGE_TOKEN, TEXT_TOKENS = 9, 60


def build(kernel: str, device: str) -> Any:
    """A decoder of 12 layers, 16 heads and 8 key heads; a vision tower that costs next to nothing."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 4096,
            "hidden_size": HEADS * WIDTH,
            "intermediate_size": 3 * HEADS * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS // 2,
            "head_dim": WIDTH,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 8, 8]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 1,
            "out_hidden_size": HEADS * WIDTH,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=IMAGE_TOKEN,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=kernel).to(device, dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def inputs(device: str) -> dict[str, torch.Tensor]:
    """One prompt: 1024 image tokens, then text."""
    ids = torch.cat([torch.full((1, 1024), IMAGE_TOKEN), torch.randint(10, 4096, (1, TEXT_TOKENS))], dim=1)
    patches = torch.randn(4096, 3 * 2 * 16 * 16)
    return {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids).to(device),
        "mm_token_type_ids": (ids == IMAGE_TOKEN).int().to(device),
        "pixel_values": patches.to(device),
        "image_grid_thw": torch.tensor([[1, 64, 64]]).to(device),
    }


def variants(device: str) -> dict[str, Callable[[int], None]]:
    """Name to a function that generates that many tokens."""
    given = inputs(device)
    sdpa, eager = build("sdpa", device), build("eager", device)

    def generate(model: Any, tokens: int, record: Any, **options: Any) -> None:
        length = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        with record:
            model.generate(**given, **length, **options)
        if device == "cuda":
            torch.cuda.synchronize()

    naive = {"output_attentions": True, "return_dict_in_generate": True}
    return {
        "plain": lambda tokens: generate(sdpa, tokens, nullcontext()),
        "last layer": lambda tokens: generate(sdpa, tokens, record_attention(sdpa)),
        "all layers": lambda tokens: generate(sdpa, tokens, record_attention(sdpa, layers="all")),
        "all heads": lambda tokens: generate(sdpa, tokens, record_attention(sdpa, layers="all", heads="all")),
        "eager": lambda tokens: generate(eager, tokens, nullcontext()),
        "naive": lambda tokens: generate(eager, tokens, nullcontext(), **naive),
    }


def seconds(run: Callable[[int], None], tokens: int) -> float:
    """Time one call."""
    gc.collect()
    start = time.perf_counter()
    run(tokens)
    return time.perf_counter() - start


def peak_megabytes(name: str, tokens: int, device: str) -> float:
    """Peak memory of one call over the loaded models: of the device, or of a new process on the CPU."""
    if device == "cuda":
        run = variants(device)[name]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(tokens)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [sys.executable, __file__, "--peak", name, "--tokens", str(tokens)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, tokens: int) -> None:
    """The body of the new process."""
    run = variants("cpu")[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(tokens)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    """Print a table for each number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak, arguments.tokens[0])
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    runs = variants(device)
    for tokens in arguments.tokens:
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(arguments.repeats + 1):
            for name, run in runs.items():
                spent = seconds(run, tokens)
                if repeat:  # the first round warms up
                    times[name].append(spent)
        plain = statistics.median(times["plain"])
        print(f"\n{device}, {tokens} new tokens, plain {plain:.2f} s, medians of {arguments.repeats}")
        print(f"{'':<12} {'time ratio':>10} {'peak MB':>9}")
        for name, values in times.items():
            print(f"{name:<12} {statistics.median(values) / plain:>10.3f} {peak_megabytes(name, tokens, device):>9.0f}")


if __name__ == "__main__":
    main()
