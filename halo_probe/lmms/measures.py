"""Which values the documents of a task have: decided once a run, so that every document has the same keys."""

from dataclasses import dataclass
from typing import Any

from halo_probe.capture.recorder import Target
from halo_probe.metrics.consistency import CONSISTENCY_KEYS
from halo_probe.metrics.dots import DOTS_COLUMNS, Dots, dots_of
from halo_probe.metrics.keys import DOT_KEYS, LARGE_DOT_KEYS, MIDDLE_KEYS, TOKEN_KEYS
from halo_probe.score.values import digit_keys, middle_layers, summary_key
from halo_probe.statistics.reliance import RELIANCE_KEYS
from lmms_eval_tasks.digits import digit_mode
from lmms_eval_tasks.parsing import Mode

# Pixels: a smaller dot is no larger than an image token of the models at hand.
_LARGE = 20


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured of a task."""

    digits: Mode | None
    """How the digits of its replies are found; None where they are none."""
    ours: bool
    """Whether it is scored by this package, which never scores a thought."""
    dots: tuple[Dots | None, ...]
    """Those of its documents, by `doc_id`; empty for a task without dots."""
    middle: tuple[int, ...]
    """The middle layers, where all of them are recorded; else empty."""
    repeated: bool
    """Whether each document is answered several times."""
    true_digits: tuple[str, ...]
    """By `doc_id`, the digits whose reliance is measured: of the count, in the order in which they are asked for. Empty
    for a document without a count, and for a task without reliance."""

    @property
    def spatial(self) -> tuple[str, ...]:
        """The spatial keys."""
        having = [dots for dots in self.dots if dots]
        large = bool(having) and max(dots.radius for dots in having) > _LARGE
        return (*(DOT_KEYS if having else ()), *(LARGE_DOT_KEYS if large else ()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The metrics of the results table: spatial ones at the digits, or their mean where there are none."""
        everywhere = (*TOKEN_KEYS, *(MIDDLE_KEYS if self.middle else ()))
        averaged = everywhere if self.digits else (*everywhere, *self.spatial)
        return (
            *map(summary_key, averaged),
            *(digit_keys((*everywhere, *self.spatial)) if self.digits else ()),
            *(CONSISTENCY_KEYS if self.digits and self.repeated else ()),
            *(RELIANCE_KEYS if self.true_digits else ()),
        )

    def digits_of(self, document: int) -> str:
        """The digits of a document whose reliance is measured; empty where there are none."""
        return self.true_digits[document] if self.true_digits else ""

    def dots_of(self, document: int) -> Dots | None:
        """The dots of a document; None where it has none."""
        return self.dots[document] if self.dots else None


def measures_of(task: Any, target: Target, *, reliance: bool) -> Measures:
    """What is measured of an lmms-eval task.

    Args:
        task: The task.
        target: What is recorded.
        reliance: Whether visual reliance is asked for; tasks whose replies are not direct digits are left out of it.
    """
    rows = task.eval_docs_no_media
    known = set(DOTS_COLUMNS) <= set(getattr(rows, "column_names", None) or ())
    digits = digit_mode(task.config.metadata)
    return Measures(
        digits=digits,
        ours=getattr(task.config.process_results, "__module__", "").startswith("lmms_eval_tasks."),
        dots=tuple(map(dots_of, rows.select_columns(list(DOTS_COLUMNS)))) if known else (),
        middle=_recorded_middle(target),
        repeated=(task.config.repeats or 1) > 1,
        true_digits=_true_digits(rows, digits) if reliance else (),
    )


def _true_digits(rows: Any, mode: Mode | None) -> tuple[str, ...]:
    if mode not in ("first", "reversed") or "count" not in (getattr(rows, "column_names", None) or ()):
        return ()
    written = ["" if count is None else str(count) for count in rows["count"]]
    return tuple(digits[::-1] if mode == "reversed" else digits for digits in written)


def _recorded_middle(target: Target) -> tuple[int, ...]:
    """The middle layers that have attention, if all of them are recorded."""
    among = middle_layers(target.last_layer + 1)
    middle = [layer.index for layer in target.attention if layer.index in among]
    recorded = {layer.index for layer in target.layers}
    return tuple(middle) if recorded.issuperset(middle) else ()
