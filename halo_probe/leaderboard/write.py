"""Writing a leaderboard into a folder."""

from pathlib import Path

from halo_probe.errors import HaloError
from halo_probe.leaderboard.board import Leaderboard
from halo_probe.leaderboard.model_index import write_model_indexes
from halo_probe.leaderboard.render import render_csv, render_json, render_markdown, render_page


def write_leaderboard(board: Leaderboard, out: Path, *, model_index: bool = False) -> list[Path]:
    """Write `leaderboard.md`, `.csv`, `.json` and `.html`, and a model-card snippet for each run where asked for.

    Args:
        board: The leaderboard.
        out: The folder; made if needed.
        model_index: Whether to write the snippets.

    Returns:
        Paths of what was written.

    Raises:
        HaloError: If a file cannot be written.
    """
    texts = {
        "leaderboard.md": render_markdown(board),
        "leaderboard.csv": render_csv(board),
        "leaderboard.json": render_json(board),
        "leaderboard.html": render_page(board),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
        snippets = write_model_indexes(board, out) if model_index else []
    except OSError as error:
        raise HaloError(f"{out}: cannot be written ({error.strerror}); choose another --out.") from error
    return [*(out / name for name in texts), *snippets]
