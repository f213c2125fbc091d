"""The dataset card and the eval.yaml of a published repository: what the Hub and a reader must know of every set."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_builder.rows import features_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dataset_builder.sets import SetSpec

DEFAULT_SET = "halo_count"
"""The config that `load_dataset` takes when none is named, where it is among the published."""

_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_PRETTY_NAME = "Halo: counting dots"

_CARD = """\
---
{metadata}---

# {pretty_name}

Synthetic images with a known number of dots, to find out why vision-language models miscount. Every set is a config
with one split, `test`. Built by `dataset_builder` {generator} of the `halo-probe` package; the same version makes the
same bytes on any machine.

{pictures}

## Load

```python
from datasets import load_dataset

rows = load_dataset("{repo_id}", "{default}", split="test", revision="<40-hex commit SHA>")
```

A branch and a tag can be moved, a commit cannot: pin the full SHA, which publishing prints and *Files → History* shows.
`columns=[...]` or `select_columns` leaves the images undecoded. The `halo-probe` tasks take the same place:

```
HALO_DATASET={repo_id}@<40-hex commit SHA> lmms-eval --tasks {default} ...
```

## Verify

```
pip install halo-probe
halo-dataset verify {repo_id}@<40-hex commit SHA>
```

renders every image again from its published geometry and compares pixels, PNG bytes, labels, gaps, margins and the
hashes of `MANIFEST.json`. `halo-dataset build NAME --out DIR` makes a set anew from its seed.

## Sets

| set | images | counts | side | radius | least gap | seed |
|---|---|---|---|---|---|---|
{contents}

Lengths are in pixels; a gap is from edge to edge. Each row has its question in `question`:

{questions}

Rows with the same `layout_id` show the same dots in another style.

## Content

| set | SHA-256 of the content |
|---|---|
{hashes}

This hash covers the ordered rows with the hash of each PNG, not the Parquet files, whose bytes depend on the version of
pyarrow.

## How the pixels are made

- Coordinates are pixel indices. A pixel (u, v) belongs to a dot with centre (x, y) and radius r exactly if
  (u − x)² + (v − y)² ≤ r²: no anti-aliasing, 317 pixels at r = 10.
- Dots never overlap, and lie wholly inside the image. Where a set draws the layout of another with larger dots, they
  are cut halfway between two of them and at the edge of the image.
- The number of dots is drawn before they are placed and never changed because placing was hard.
- Sample i depends on the version, the set, the seed and i alone, through SHAKE-256; a longer set begins with the
  shorter one.
- The PNG files are written without a compression library's matching, so their bytes depend on no library version.

## What a constant answer scores

A model is only interesting beyond these. Accuracy and mean errors of one fixed answer to every image of a set (MBE is
predicted minus true).

| set | most frequent answer | accuracy | MBE | MAE | median answer | accuracy | MBE | MAE |
|---|---|---|---|---|---|---|---|---|
{baselines}

## Licence and limits

MIT, as the code that makes it. The images are drawn by a program: there are no people, no personal data and no
annotators. They measure counting and looking on plain backgrounds and say nothing about photographs.
"""


@dataclass(frozen=True)
class PublishedSet:
    """What the card says of one set.

    Attributes:
        spec: The set; its name is that of its config.
        image_bytes: Size of all PNG files together, bytes.
        answers: The true answer of each row, in order; at least one.
        content_sha256: Hash of the ordered rows, 64 hex digits.
    """

    spec: SetSpec
    image_bytes: int
    answers: Sequence[str]
    content_sha256: str


@dataclass(frozen=True)
class ConstantBaseline:
    """What one fixed answer to every image of a set scores.

    Attributes:
        answer: The answer given.
        accuracy: Share of images it is right for, 0 to 1.
        mbe: Mean of predicted minus true; None where an answer is not a whole number.
        mae: Mean of |predicted minus true|, at least 0; None where an answer is not a whole number.
    """

    answer: str
    accuracy: float
    mbe: float | None
    mae: float | None


def constant_baseline(answers: Sequence[str], answer: str) -> ConstantBaseline:
    """Score one fixed answer against the true ones.

    Args:
        answers: The true answers, at least one.
        answer: The answer given to each.

    >>> constant_baseline(["10", "11", "12"], "12")
    ConstantBaseline(answer='12', accuracy=0.3333333333333333, mbe=1.0, mae=1.0)
    """
    accuracy = sum(true == answer for true in answers) / len(answers)
    if not all(true.isdecimal() for true in (answer, *answers)):
        return ConstantBaseline(answer, accuracy, mbe=None, mae=None)
    errors = [int(answer) - int(true) for true in answers]
    return ConstantBaseline(answer, accuracy, statistics.fmean(errors), statistics.fmean(map(abs, errors)))


def yaml_features(features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The `features` list of a card, from declared features.

    Lists are written as `sequence`, which every version of `datasets` reads; its own writer says `list` from 4.0 on,
    which older ones refuse.

    Args:
        features: Feature by column name, as `rows.features_of` gives them.

    Raises:
        ValueError: If a feature is of a type that no set of this package has.
    """
    return [{"name": name, **_yaml_feature(feature)} for name, feature in features.items()]


def _yaml_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    kind = feature["_type"]
    if kind == "Value":
        return {"dtype": feature["dtype"]}
    if kind == "Image":
        mode = feature.get("mode")
        return {"dtype": {"image": {"mode": mode}} if mode else "image"}
    if kind in {"Sequence", "List"}:
        inner = _yaml_feature(feature["feature"])
        fixed = {"length": feature["length"]} if feature.get("length", -1) >= 0 else {}
        return {"sequence": inner["dtype"] if inner.keys() == {"dtype"} else inner, **fixed}
    raise ValueError(
        f"cannot write a feature of type {kind} into a dataset card; use Value, Image, Sequence or a struct"
    )


def card(sets: Sequence[PublishedSet], *, repo_id: str, generator: str) -> str:
    """The text of README.md: YAML metadata for the Hub, then the page for people.

    Args:
        sets: All sets of the repository, at least one, in the order to show them.
        repo_id: `ORG/NAME` of the repository.
        generator: Version of the builder that made the sets.
    """
    default = default_set([published.spec.name for published in sets])
    return _CARD.format(
        metadata=_metadata(sets, default=default),
        pretty_name=_PRETTY_NAME,
        repo_id=repo_id,
        generator=generator,
        default=default,
        pictures="\n".join(_picture(published.spec.name) for published in sets),
        contents="\n".join(_contents_row(published) for published in sets),
        questions="\n".join(_questions(sets)),
        hashes="\n".join(f"| `{published.spec.name}` | `{published.content_sha256}` |" for published in sets),
        baselines="\n".join(_baseline_row(published) for published in sets),
    )


def default_set(names: Sequence[str]) -> str:
    """The set that is loaded when none is named: the paper's, or else the first."""
    return DEFAULT_SET if DEFAULT_SET in names else names[0]


def picture_path(name: str) -> str:
    """Where in the repository the picture of a set lies."""
    return f"assets/{name}.png"


def eval_yaml(sets: Sequence[PublishedSet], *, repo_id: str) -> str:
    """The text of eval.yaml, which declares each set as a task of a benchmark.

    The format is that of https://huggingface.co/docs/hub/eval-results.
    """
    from huggingface_hub import CardData

    declared = CardData(
        name="Halo",
        description=f"Counting dots with a known answer; run with halo-probe and HALO_DATASET={repo_id}@REVISION.",
        evaluation_framework="lmms-eval",
        tasks=[{"id": name, "config": name, "split": "test"} for name in (published.spec.name for published in sets)],
    )
    return declared.to_yaml() + "\n"


def _metadata(sets: Sequence[PublishedSet], *, default: str) -> str:
    from huggingface_hub import DatasetCardData

    rows = sum(len(published.answers) for published in sets)
    metadata = DatasetCardData(
        language=["en"],
        license="mit",
        pretty_name=_PRETTY_NAME,
        task_categories=["visual-question-answering"],
        size_categories=[next((name for limit, name in _SIZE_CATEGORIES if rows < limit), "1M<n<10M")],
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
        tags=["counting", "synthetic", "vision-language-models", "interpretability", "benchmark"],
        dataset_info=[_info(published) for published in sets],
        configs=[_config(published.spec.name, is_default=published.spec.name == default) for published in sets],
    )
    return metadata.to_yaml() + "\n"


def _info(published: PublishedSet) -> dict[str, Any]:
    split = {"name": "test", "num_bytes": published.image_bytes, "num_examples": len(published.answers)}
    features = yaml_features(features_of(published.spec))
    return {"config_name": published.spec.name, "features": features, "splits": [split]}


def _config(name: str, *, is_default: bool) -> dict[str, Any]:
    data_files = [{"split": "test", "path": f"data/{name}/test-*.parquet"}]
    return {"config_name": name, **({"default": True} if is_default else {}), "data_files": data_files}


def _picture(name: str) -> str:
    return f'<img src="{picture_path(name)}" width="160" alt="{name}" title="{name}">'


def _contents_row(published: PublishedSet) -> str:
    spec = published.spec
    low, high = spec.counts
    counts = f"{low}–{high}" if low < high else low
    cells = (len(published.answers), counts, spec.size, spec.radius, spec.gap, spec.seed)
    return _table_row(spec.name, map(str, cells))


def _questions(sets: Sequence[PublishedSet]) -> Iterator[str]:
    for question in dict.fromkeys(published.spec.question for published in sets):
        names = ", ".join(f"`{published.spec.name}`" for published in sets if published.spec.question == question)
        yield f"- `{question}` ({names})"


def _baseline_row(published: PublishedSet) -> str:
    answers = published.answers
    # Ties go to the smallest answer, so that the card depends on the rows alone.
    most_frequent = min(Counter(answers).items(), key=lambda item: (-item[1], len(item[0]), item[0]))[0]
    cells = _baseline_cells(constant_baseline(answers, most_frequent))
    if all(answer.isdecimal() for answer in answers):
        cells += _baseline_cells(constant_baseline(answers, str(statistics.median_low(map(int, answers)))))
    else:
        cells += ["–"] * 4
    return _table_row(published.spec.name, cells)


def _baseline_cells(baseline: ConstantBaseline) -> list[str]:
    errors = ["–" if error is None else f"{error:.3f}" for error in (baseline.mbe, baseline.mae)]
    return [baseline.answer, f"{baseline.accuracy:.4f}", *errors]


def _table_row(name: str, cells: Iterable[str]) -> str:
    return f"| `{name}` | {' | '.join(cells)} |"
