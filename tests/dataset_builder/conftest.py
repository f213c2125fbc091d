"""Fixtures of the builder's tests: small sets, and a local Hub that the real clients talk to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import disable_progress_bars

from dataset_builder.build import build_set
from dataset_builder.sets import SETS
from tests import hub_server
from tests.hub_server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty Hub on a free local port."""
    with hub_server.serve() as running:
        yield running


@pytest.fixture
def api(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """A client of that Hub in this process, logged in, which does not wait between its tries."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
    disable_progress_bars()
    return HfApi(endpoint=hub.url, token=hub_server.TOKEN)


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three sets of six rows, in two shards each."""
    return _build(tmp_path_factory.mktemp("small_sets"), seed=0)


@pytest.fixture(scope="session")
def other_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the same sets from another seed."""
    return _build(tmp_path_factory.mktemp("other_sets"), seed=1)


def _build(folder: Path, *, seed: int) -> Path:
    for name in ("halo_count", "halo_count_wide", "halo_relate"):
        build_set(replace(SETS[name], seed=seed), folder, n=6, shard_rows=4)
    return folder
