"""The documents of a task: the rows of its set, put where the harness expects a data file."""

from typing import TYPE_CHECKING

from dataset_builder.errors import DatasetError
from dataset_builder.load import load_set

if TYPE_CHECKING:
    import datasets


def load_documents(rows: "datasets.Dataset") -> "datasets.Dataset":
    """Put the set that a task names as its `dataset_name` in the place of the packaged row.

    Args:
        rows: The packaged file as the harness loads it: `datasets` notes the name of the set as that of its
            configuration.

    Returns:
        The rows of the set, checked against its manifest.

    Raises:
        SystemExit: If the set cannot be loaded; the one-line message names it and says what to do.
    """
    name = rows.info.config_name
    try:
        return load_set(name)
    except DatasetError as error:
        # The harness retries loading five times on any Exception, and its command then exits 0. SystemExit passes both:
        # the line goes to stderr at once, and the command exits 1.
        raise SystemExit(f"{name}: {error}") from error
