"""Training of the embedded model that counts: step by step, with a state that survives interruption."""

import copy
import functools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from halo_probe.errors import UsageError
from training.batches import Batch, Example, collate, draw_example
from training.counter import build_model, build_processor
from training.curriculum import Recipe, Stage

__all__ = ["Training", "begin", "measure_accuracy", "recipe_text", "resume", "save_state", "take_step", "train"]

_SHARDS = 2
"""Each step's batch in so many parts, each on one thread and one core: gradients meet once a step, not in every kernel.

A busy machine then costs its share and no more; and since no sum is split among threads, the weights do not depend on
the number of cores.
"""
_SAVED_EVERY = 100
_MEASURED_EVERY = 200
_HELD_OUT = 96
_MEASURED_AT_ONCE = 8
_BETAS = (0.9, 0.95)


@dataclass
class Training:
    """A training and how far it is.

    Args:
        recipe: What is trained on, and how.
        processor: The model's.
        model: Its weights in float32.
        replicas: Copies in bfloat16, as lmms-eval runs the model, one per shard: passes go through these.
        optimizer: Of the float32 weights.
        step: The number of steps taken.
    """

    recipe: Recipe
    processor: Qwen3VLProcessor
    model: Any
    replicas: list[Any]
    optimizer: torch.optim.Optimizer
    step: int = 0


def begin(recipe: Recipe, *, start: Path | None = None, device: str = "cpu") -> Training:
    """A training before its first step.

    Args:
        recipe: What to train on, and how.
        start: Folder of the weights to begin with; where None, random ones of the recipe's seed.
        device: As torch names it.
    """
    processor = build_processor()
    if start is None:
        model: Any = build_model(processor.tokenizer, seed=recipe.seed)
    else:
        model = Qwen3VLForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=_BETAS, weight_decay=recipe.weight_decay)
    replicas = [_replica(model) for _ in range(_SHARDS)]
    return Training(recipe=recipe, processor=processor, model=model, replicas=replicas, optimizer=optimizer)


def take_step(training: Training) -> float:
    """Take the next step; its loss, in nats per token of the answers."""
    recipe, stage = training.recipe, _stage_at(training.recipe, training.step)
    stride = max(other.batch for other in recipe.stages)  # no two steps share an example
    first = training.step * stride
    examples = [
        draw_example(stage, index, stream="training", seed=recipe.seed, takeover=recipe.takeover)
        for index in range(first, first + stage.batch)
    ]
    batches = [collate(examples[shard::_SHARDS], processor=training.processor) for shard in range(_SHARDS)]
    tokens = sum(int((batch.labels >= 0).sum()) for batch in batches)
    with ThreadPoolExecutor(_SHARDS) as threads:
        losses = list(threads.map(functools.partial(_backward, tokens=tokens), training.replicas, batches))
    copies = zip(*(replica.parameters() for replica in training.replicas), strict=True)
    for parameter, own in zip(training.model.parameters(), copies, strict=True):
        parameter.grad = torch.stack([each.grad.float() for each in own]).sum(0)
    nn.utils.clip_grad_norm_(training.model.parameters(), recipe.clip)
    for group in training.optimizer.param_groups:
        group["lr"] = _learning_rate(recipe, training.step)
    training.optimizer.step()
    _refresh(training)
    training.step += 1
    return sum(losses)


def measure_accuracy(training: Training, stage: Stage, *, images: int = _HELD_OUT) -> dict[str, float]:
    """Share of held-out examples of a stage whose whole answer is the likeliest, by kind of question.

    That is the share that greedy decoding gets right, since an answer is right only if all of its tokens are. Blank
    images have no right answer and are left out.
    """
    examples = [draw_example(stage, index, stream="held_out", seed=training.recipe.seed) for index in range(images)]
    asked = [example for example in examples if example.kind != "blank"]

    def hits_of(shard: int) -> list[tuple[str, bool]]:
        own = asked[shard::_SHARDS]
        parts = [own[first : first + _MEASURED_AT_ONCE] for first in range(0, len(own), _MEASURED_AT_ONCE)]
        return [hit for part in parts for hit in _hits(training.replicas[shard], part, processor=training.processor)]

    right: dict[str, list[bool]] = defaultdict(list)
    with ThreadPoolExecutor(_SHARDS) as threads:
        for hits in threads.map(hits_of, range(_SHARDS)):
            for kind, hit in hits:
                right[kind].append(hit)
    return {kind: sum(hits) / len(hits) for kind, hits in sorted(right.items())}


def train(recipe: Recipe, out: Path, *, start: Path | None = None, device: str = "cpu") -> Path:
    """Train to the end of a recipe, from where an earlier call in the same folder was interrupted.

    Args:
        recipe: What to train on, and how.
        out: Folder of the checkpoint, the learning curve and the state.
        start: Folder of the weights to begin with; where None, random ones of the recipe's seed.
        device: As torch names it.

    Returns:
        The folder of the checkpoint: model in bfloat16, processor and `recipe.json`.

    Raises:
        UsageError: If the folder holds the state of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    state, curve = out / "state.pt", out / "curve.jsonl"
    training = begin(recipe, start=start, device=device)
    if state.exists():
        resume(training, state)
    lines = curve.read_text().splitlines() if curve.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] <= training.step]
    # Losses since the last line of the curve, or since going on.
    losses: list[float] = []
    with tqdm(total=recipe.steps, initial=training.step, unit="step") as bar:
        while training.step < recipe.steps:
            stage = _stage_at(recipe, training.step)
            losses.append(take_step(training))
            bar.update()
            bar.set_postfix_str(f"stage {stage.name}, loss {losses[-1]:.3f}")
            is_last = training.step == recipe.steps or _stage_at(recipe, training.step) is not stage
            if is_last or training.step % _MEASURED_EVERY == 0:
                accuracy = measure_accuracy(training, stage)
                measured = {"step": training.step, "stage": stage.name, "loss": sum(losses) / len(losses)}
                kept.append(json.dumps({**measured, "accuracy": accuracy}))
                losses = []
            if is_last or training.step % _SAVED_EVERY == 0:
                _write_atomically(curve, "".join(f"{line}\n" for line in kept).encode())
                save_state(training, state)
    return _export(training, out / "checkpoint")


def recipe_text(recipe: Recipe) -> str:
    """What `recipe.json` in a checkpoint says, and a state remembers."""
    return json.dumps(asdict(recipe), indent=1) + "\n"


def save_state(training: Training, path: Path) -> None:
    """Save all that the next step depends on: batches keep no random numbers, so there are none to save."""
    state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}
    whole = {**state, "step": training.step, "recipe": recipe_text(training.recipe)}
    temporary = path.with_suffix(".tmp")
    torch.save(whole, temporary)
    temporary.replace(path)


def resume(training: Training, path: Path) -> None:
    """Go on from a saved state.

    Raises:
        UsageError: If it is that of another recipe.
    """
    state = torch.load(path, map_location=training.model.device)
    if state["recipe"] != recipe_text(training.recipe):
        raise UsageError(f"{path}: is the state of another recipe; name another --out, or remove it")
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.step = state["step"]
    _refresh(training)


def _replica(model: Any) -> Any:
    """A copy with parameters in bfloat16; buffers stay as they are, as `from_pretrained` leaves them."""
    replica = copy.deepcopy(model)
    for parameter in replica.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    visual = replica.model.visual
    visual.patch_embed = _GreyPatchEmbed(visual.patch_embed.proj)
    return replica


class _GreyPatchEmbed(nn.Module):
    """The patch embedding of a still grey image: its two frames and three channels are equal, so one is enough.

    It takes the grey values of patches, uint8, patches × pixels.
    """

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, patches: Tensor) -> Tensor:
        weight, bias = self.proj.weight, self.proj.bias
        assert bias is not None
        folded = weight.float().sum((1, 2)).flatten(1)
        return functional.linear(patches.float(), folded, bias.float()).to(weight.dtype)


def _refresh(training: Training) -> None:
    """Hand the weights to the replicas."""
    with torch.no_grad():
        for replica in training.replicas:
            for parameter, own in zip(training.model.parameters(), replica.parameters(), strict=True):
                own.copy_(parameter)


def _backward(replica: Any, batch: Batch, *, tokens: int) -> float:
    """The loss of one shard's batch, its gradient left in the replica: its part of a mean over `tokens`."""
    replica.zero_grad()
    logits = _logits(replica, batch)
    labels = batch.labels.to(logits.device).flatten()
    loss = functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum") / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


@torch.no_grad()
def _hits(replica: Any, examples: Sequence[Example], *, processor: Qwen3VLProcessor) -> list[tuple[str, bool]]:
    batch = collate(examples, processor=processor)
    chosen = _logits(replica, batch).argmax(-1).cpu()
    hits = ((chosen == batch.labels) | (batch.labels < 0)).all(-1)
    return [(example.kind, bool(hit)) for example, hit in zip(examples, hits, strict=True)]


def _logits(replica: Any, batch: Batch) -> Tensor:
    """Float32, examples × last tokens × vocabulary."""
    input_ids = batch.input_ids.to(replica.device)
    output = replica(
        input_ids=input_ids,
        mm_token_type_ids=(input_ids == replica.config.image_token_id).int(),
        pixel_values=(batch.patches.to(replica.device) - 127.5) / 127.5,  # as the processor scales
        image_grid_thw=batch.grid.to(replica.device),
        logits_to_keep=batch.labels.shape[1],
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits.float()


def _stage_at(recipe: Recipe, step: int) -> Stage:
    """The stage of a step, from 0."""
    end = 0
    for stage in recipe.stages:
        end += stage.steps
        if step < end:
            return stage
    return recipe.stages[-1]


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Along half a cosine in each stage, and straight up from zero over the first steps of all."""
    stage = _stage_at(recipe, step)
    begun = sum(other.steps for other in recipe.stages[: recipe.stages.index(stage)])
    first, last = stage.learning_rates
    rate = last + (first - last) * 0.5 * (1 + math.cos(math.pi * (step - begun) / (stage.decay or stage.steps)))
    return rate * min(1.0, (step + 1) / recipe.warmup)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _export(training: Training, folder: Path) -> Path:
    model = copy.deepcopy(training.model).to(torch.bfloat16).eval()
    model.save_pretrained(folder)
    training.processor.save_pretrained(folder)
    (folder / "recipe.json").write_text(recipe_text(training.recipe))
    return folder
