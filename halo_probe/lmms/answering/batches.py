"""Which row of a `generate` call is which document, where a base model answers several documents at once.

A base model sorts and groups its requests as it likes. So the documents that it reads are logged while it answers, and
the order of the reads is taken for that of the rows only where nothing speaks against it: as many rows as documents,
every document read, always in the same order, and each reply what the tokens of its row say. Anything else is refused.
For documents with equal replies the order of the reads is all there is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, SupportsIndex

from lmms_eval.api.model import lmms

from halo_probe.errors import CaptureError
from halo_probe.lmms.requests import Place
from halo_probe.replacing import replaced

_REMEDY = "leave batching=batch out, and documents are answered one at a time"


@contextmanager
def logging_reads(lm: lmms) -> Iterator[list[Place]]:
    """Log the documents that the model reads from its tasks, in order, until the context ends."""
    reads: list[Place] = []
    tasks = lm.task_dict
    logged = _Logged(tasks, lambda task: _Logged(tasks[task], lambda split: _Rows(tasks, task, split, reads)))
    with replaced(lm, "task_dict", logged):
        yield reads


class _Logged(Mapping[str, Any]):
    """A mapping whose items come with a log; anything else is the mapping's own."""

    def __init__(self, inner: Any, item: Callable[[str], Any]) -> None:
        self._inner = inner
        self._item = item

    def __getitem__(self, key: str) -> Any:
        return self._item(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Rows:
    """The documents of a split; reading one by its index logs it."""

    def __init__(self, tasks: Any, task: str, split: str, reads: list[Place]) -> None:
        self._inner = tasks[task][split]
        self._place = (task, split)
        self._reads = reads

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, SupportsIndex):
            self._reads.append((*self._place, int(key)))
        return self._inner[key]

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def match_rows(documents: Sequence[Place], *, reads: Sequence[Place], rows: int) -> list[int]:
    """Find each row's document.

    Args:
        documents: What was to be answered, each once.
        reads: What was read meanwhile.
        rows: Number of rows of all `generate` calls.

    Returns:
        For each row the index of its document.

    Raises:
        CaptureError: If the log does not say.

    >>> match_rows([("t", "test", 4), ("t", "test", 7)], reads=[("t", "test", 7), ("t", "test", 4)], rows=2)
    [1, 0]
    """
    if rows != len(documents):
        raise CaptureError(f"{len(documents)} documents were answered in {rows} rows: {_REMEDY}.")
    first = list(dict.fromkeys(reads))
    last = list(dict.fromkeys(reversed(reads)))[::-1]
    if first != last or sorted(first) != sorted(documents):
        raise CaptureError(
            f"documents {[index for *_, index in documents]} were to be answered, and those read were, in this order, "
            f"{[index for *_, index in reads]}: their rows cannot be told apart; {_REMEDY}."
        )
    places = {document: index for index, document in enumerate(documents)}
    return [places[document] for document in first]


def check_reply(reply: Any, tokens: str, *, until: Sequence[str] = (), thinking: bool = False) -> None:
    """Check that a reply is that of a row, up to spaces and what a base model cuts off: its end, and its thoughts.

    Args:
        reply: The base model's answer to the document.
        tokens: The text of the tokens of the row that is taken for the document's.
        until: Where the base model was told to cut.
        thinking: Whether it gives an empty reply where the model did not come to the end of its thoughts.

    Raises:
        CaptureError: If the row says something else.
    """
    shown = re.compile("".join(rf"\s*{re.escape(one)}" for one in "".join(str(reply).split())))
    starts = [0, *(thought.end() for thought in re.finditer("</think(?:ing)?>", tokens))]
    matches = [match for start in starts if (match := shown.match(tokens, start))]
    if not any(_is_end(tokens[match.end() :], until) for match in matches) and (reply or not thinking):
        raise CaptureError(f"the reply {reply!r} is not what the tokens of its row say, {tokens!r}: {_REMEDY}.")


def _is_end(rest: str, stops: Sequence[str]) -> bool:
    """Whether nothing but spaces comes before the end or a stop."""
    return not rest.strip() or any(stop in rest and not rest.partition(stop)[0].strip() for stop in stops if stop)
