"""Tiny checkpoints and models of the real classes, built once per session; `tiny_models` builds variants of them."""

import os

import pytest
from hypothesis import settings

from tests import tiny_models
from tests.lmms_eval_command import LmmsEval
from training import qwen3_vl

settings.register_profile("dev", deadline=None)  # a busy machine is no failure
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Sets and checkpoints are built into a cache of this session, never read from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HALO_DATASET", raising=False)
        yield


@pytest.fixture(scope="session")
def lmms_eval(tmp_path_factory):
    """The `lmms-eval` command, offline; each call is a process of its own."""
    command = LmmsEval(tmp_path_factory.mktemp("lmms_eval"))
    yield command
    command.close()


@pytest.fixture(scope="session")
def qwen3_vl_checkpoint(tmp_path_factory):
    """Folder of the embedded Qwen3-VL: a 1024 by 1024 image is 32 by 32 image tokens."""
    return qwen3_vl.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "qwen3_vl")


@pytest.fixture(scope="session")
def gemma3_checkpoint(tmp_path_factory):
    """Folder of the tiny Gemma3: any image is 16 by 16 image tokens."""
    return tiny_models.write_checkpoint(tiny_models.gemma3(), tmp_path_factory.mktemp("checkpoints") / "gemma3")


@pytest.fixture(scope="session")
def _qwen3_vl():
    return tiny_models.qwen3_vl()


@pytest.fixture(scope="session")
def _gemma3():
    return tiny_models.gemma3()


@pytest.fixture(scope="session")
def qwen3_vl_model(_qwen3_vl):
    """The embedded Qwen3-VL in memory, float32, sdpa: leave it as you found it."""
    return _qwen3_vl[0]


@pytest.fixture(scope="session")
def qwen3_vl_processor(_qwen3_vl):
    return _qwen3_vl[1]


@pytest.fixture(scope="session")
def gemma3_model(_gemma3):
    """The tiny Gemma3 in memory, float32, sdpa, last layer sliding: leave it as you found it."""
    return _gemma3[0]


@pytest.fixture(scope="session")
def gemma3_processor(_gemma3):
    return _gemma3[1]
