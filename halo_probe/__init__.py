"""halo-probe: where a vision-language model looks while it counts."""

from typing import TYPE_CHECKING, Any

from halo_probe._version import __version__

if TYPE_CHECKING:
    from halo_probe.archive.runs import Run, open_run
    from halo_probe.capture import Generation, Layer, Recording, record_attention

__all__ = ["Generation", "Layer", "Recording", "Run", "__version__", "open_run", "record_attention"]
_OF_RUNS = {"Run", "open_run"}


def __getattr__(name: str) -> Any:
    """Import the capture, and with it torch, when it is first asked for: the plugin's entry point lives below here."""
    if name in _OF_RUNS:
        from halo_probe.archive import runs

        return getattr(runs, name)
    if name in __all__:
        from halo_probe import capture

        return getattr(capture, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
