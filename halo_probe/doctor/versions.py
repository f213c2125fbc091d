"""The installed versions, held against those that halo-probe was proven with."""

from collections.abc import Iterator

from halo_probe.errors import HaloError
from halo_probe.proven import BREAKS, BREAKS_A_FAMILY, standings


def report_versions() -> Iterator[str]:
    """Say of each package that halo-probe leans on how its version stands.

    Yields:
        Lines of the report.

    Raises:
        HaloError: After the report, if an installed version is known to break a run.
    """
    found = tuple(standings())
    yield f"{'package':<16} {'installed':<12} {'oldest':<10} {'proven':<10} corner"
    for one in found:
        yield f"{one.package:<16} {one.installed:<12} {one.oldest or '-':<10} {one.newest:<10} {one.verdict}"
    yield "known to break:"
    for versions, reason in {**BREAKS, **BREAKS_A_FAMILY}.items():
        yield f"  {versions}: {reason}"
    if broken := [f"{one.package} {one.installed}: {reason}" for one in found for reason in one.breaks]:
        raise HaloError(f"{'; '.join(broken)}. Install halo-probe again, with its constraints.txt where you can.")
