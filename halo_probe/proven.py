"""The versions of other packages that halo-probe was proven with, and what is known to break between them."""

from collections.abc import Iterator, Mapping
from importlib.metadata import requires, version
from types import MappingProxyType
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROVEN: Mapping[str, str] = MappingProxyType(
    {
        "lmms-eval": "0.7.3",
        "transformers": "5.24.0",
        "torch": "2.15.0",
        "accelerate": "1.15.0",
        "datasets": "5.2.0",
        "huggingface_hub": "2.4.0",
        "filelock": "4.2.12",
        "numpy": "2.4.6",
        "pyarrow": "26.0.1",
    }
)
"""The newest version of each package that the whole suite ran with: that of constraints.txt."""

BREAKS: Mapping[str, str] = MappingProxyType(
    {
        "filelock>=4.3": "lmms-eval 0.7.3 imports filelock._api, which is gone: no run starts",
        "filelock<3.18": "lmms-eval 0.7.3 uses filelock._api.FileLockMeta, which is not there yet: no run starts",
        "accelerate<1.10": "transformers cannot spread a model over devices, and loads none with device_map",
        "transformers<5.2": "attention functions have no seam to listen at (get_interface): nothing is recorded",
    }
)
"""What stops every run, by the requirement that the broken versions meet."""

BREAKS_A_FAMILY: Mapping[str, str] = MappingProxyType(
    {"transformers==5.24.0": "Llama 4 fails by itself on every image (image_outputs), with and without the probe"}
)
"""What stops one family alone."""


class Standing(NamedTuple):
    """How an installed package stands to what was proven."""

    package: str
    installed: str
    oldest: str
    """The lowest version that halo-probe admits; empty where it sets no bound."""
    newest: str
    """From `PROVEN`."""
    verdict: str
    """`pinned`, `between`, `newer than proven` or `older than admitted`."""
    breaks: tuple[str, ...]
    """What is known to break with the installed version."""


def standings() -> Iterator[Standing]:
    """Hold the installed versions against those that were proven."""
    bounds = {needed.name: needed.specifier for needed in map(Requirement, requires("halo-probe") or ())}
    for package, newest in PROVEN.items():
        installed = version(package)
        specifier = bounds.get(package, SpecifierSet())
        oldest = next((one.version for one in specifier if one.operator == ">="), "")
        breaks = [
            reason
            for broken, reason in BREAKS.items()
            if (needed := Requirement(broken)).name == package and needed.specifier.contains(installed)
        ]
        yield Standing(package, installed, oldest, newest, _verdict(installed, oldest, newest), tuple(breaks))


def proven_release(package: str) -> str:
    """Major and minor number of the newest proven version of a package."""
    return ".".join(PROVEN[package].split(".")[:2])


def _verdict(installed: str, oldest: str, newest: str) -> str:
    if installed == newest:
        return "pinned"
    if oldest and SpecifierSet(f"<{oldest}").contains(installed):
        return "older than admitted"
    return "newer than proven" if SpecifierSet(f">{newest}").contains(installed) else "between"
