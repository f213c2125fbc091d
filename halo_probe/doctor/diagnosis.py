"""Loading a model and finding out, on one image, whether it can be probed and what a run would cost."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from dataset_builder.load import load_set
from dataset_builder.questions import COUNT_QUESTION
from halo_probe.archive.generation import Generation
from halo_probe.archive.size import bytes_per_token
from halo_probe.capture.check import check_capture
from halo_probe.capture.families import family_of
from halo_probe.capture.recorder import Target, prepare_target
from halo_probe.errors import CaptureError, HaloError, UsageError, first_line

_DOCUMENTS = 256  # of halo_count
_TOKENS = 16  # at most, in a reply to it
_VERDICTS = {True: "ok", False: "FAILED", None: "skipped"}


def diagnose(model: str, *, image: Path | None = None) -> Iterator[str]:
    """Check a model on one image with the question of the paper.

    Args:
        model: A folder with a checkpoint, or the name of a model on the Hub.
        image: A file; by default the first image of `halo_count`.

    Yields:
        Lines of the report: the family, each check, what a run would cost.

    Raises:
        UsageError: If the model or the image cannot be loaded.
        UnsupportedModelError: If the model cannot be recorded, with the reason.
        CaptureError: After the report, if a check failed.
    """
    network, processor = _load(model)
    target = prepare_target(network, layers="all")
    shown = "the first image of halo_count" if image is None else f"--image {image}"
    inputs = _inputs(network, processor, _picture(image), shown=shown)
    yield from _facts(target)
    started = time.monotonic()
    network.generate(**inputs, max_new_tokens=_TOKENS, do_sample=False)
    seconds = time.monotonic() - started
    findings, generation = check_capture(target, ((), {**inputs, "max_new_tokens": _TOKENS}))
    for one in findings:
        remedy = f". {one.remedy}." if one.passed is False else ""
        yield f"[{_VERDICTS[one.passed]}] {one.name}: {one.detail}{remedy}"
    yield from _costs(generation, seconds=seconds)
    if failed := [one for one in findings if one.passed is False]:
        names = ", ".join(one.name for one in failed)
        raise CaptureError(f"{model}: it does not hold that {names}; what to do is said above.")


def _load(model: str) -> tuple[PreTrainedModel, Any]:
    try:
        processor = AutoProcessor.from_pretrained(model)
        network, loaded = AutoModelForImageTextToText.from_pretrained(
            model,
            dtype="auto",
            device_map="auto" if torch.cuda.is_available() else "cpu",
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:  # what transformers raises on what is no model of this kind
        raise UsageError(
            f"{model}: cannot be loaded as an image-text-to-text model of transformers ({_first_line(error)}). Give a "
            "folder with config.json and weights, or the name of a model on the Hub."
        ) from error
    except (SafetensorError, RuntimeError) as error:  # weights that are cut short, and that are not of this config
        raise UsageError(
            f"{model}: its weights cannot be loaded ({_first_line(error)}). Download the checkpoint again: every file "
            "of weights has to be whole, and of the same model as config.json."
        ) from error
    if lacking := sorted(loaded["missing_keys"]):  # transformers fills them with random numbers
        raise UsageError(
            f"{model}: {len(lacking)} of its weights are in no file, such as {lacking[0]}. Download the checkpoint "
            "again: every file of weights has to be there, and of the same model as config.json."
        )
    return network.eval(), processor


def _picture(image: Path | None) -> Image.Image:
    if image is None:
        picture: Image.Image = load_set("halo_count")[0]["image"]
        return picture.convert("RGB")
    try:
        return Image.open(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on what is no image, or a broken one
        raise UsageError(
            f"--image {image}: cannot be read as an image ({_first_line(error)}). Give another."
        ) from error
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"--image {image}: is too large to be read ({_first_line(error)}). Give a smaller one."
        ) from error


def _first_line(error: Exception) -> str:
    return first_line(error).rstrip(".")


def _inputs(network: PreTrainedModel, processor: Any, picture: Image.Image, *, shown: str) -> Mapping[str, Any]:
    """The question of the paper about a picture, which messages call as shown, on the model's device."""
    try:
        inputs = _processed(processor, picture)
    except TemplateError as error:
        raise UsageError(
            f"{network.name_or_path}: no prompt can be made with its chat template ({_first_line(error)}). Mend "
            "chat_template.jinja in its folder, or download the checkpoint again."
        ) from error
    except (ValueError, RuntimeError, ArithmeticError) as error:  # of sizes that a processor cannot cut or scale
        raise UsageError(
            f"{shown}: the processor of {network.name_or_path} makes no input of its {picture.width}x{picture.height} "
            f"pixels ({_first_line(error)}). Give another with --image FILE, of a usual size and shape."
        ) from error
    given: Mapping[str, Any] = inputs.to(network.device, dtype=network.dtype)
    return given


def _processed(processor: Any, picture: Image.Image) -> Any:
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": picture}, {"type": "text", "text": COUNT_QUESTION}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    token = getattr(processor, "image_token", None)
    if not isinstance(token, str):
        raise HaloError("the processor has neither a chat template nor an image token: no prompt can be made.")
    return processor(text=token + COUNT_QUESTION, images=picture, return_tensors="pt")


def _facts(target: Target) -> Iterator[str]:
    family = family_of(target.model.config)
    kinds = [layer.type for layer in target.layers]
    layers = ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    known = "" if family.known else " (not in the table of families: the general rule)"
    yield f"family: {target.model.config.model_type}{known}"
    yield f"layers: {layers}; kernel {target.kernel}; {str(target.model.dtype).removeprefix('torch.')}"
    if family.note:
        yield f"note: {family.note}"


def _costs(generation: Generation, *, seconds: float) -> Iterator[str]:
    layers = len(generation.layers)
    room = bytes_per_token(generation) * _DOCUMENTS * _TOKENS / 1e9
    yield f"time: {seconds:.1f} s for this reply, about {seconds * _DOCUMENTS / 60:.0f} min for {_DOCUMENTS} like it"
    yield (
        f"disk: at most {room / layers:.2g} GB of maps for {_DOCUMENTS} replies of {_TOKENS} tokens with layers=last, "
        f"{room:.2g} GB with layers=all"
    )
