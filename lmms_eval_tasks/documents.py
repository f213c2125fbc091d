"""The documents of a task: the rows of its set, put where the harness expects a data file."""

from typing import TYPE_CHECKING

from dataset_builder.errors import DatasetError
from dataset_builder.load import load_set

if TYPE_CHECKING:
    import datasets


def load_documents(rows: "datasets.Dataset") -> "datasets.Dataset":
    """Put the set that a task's packaged row names in the place of that row.

    Args:
        rows: The one row of the packaged file, with the name of the set in column `set`.

    Returns:
        The rows of the set, checked against its manifest.

    Raises:
        SystemExit: If the set cannot be loaded; the one-line message names it and says what to do.
    """
    name = rows[0]["set"]
    try:
        return load_set(name)
    except DatasetError as error:
        # The harness retries loading five times on any Exception, and its command then exits 0. SystemExit passes both:
        # the line goes to stderr at once, and the command exits 1.
        raise SystemExit(f"{name}: {error}") from error
