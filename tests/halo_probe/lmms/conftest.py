"""Evaluations from Python, many in one process."""

import pytest

from tests.lmms_eval_command import remember_task_files


@pytest.fixture(scope="session", autouse=True)
def _known_task_files():
    remember_task_files()
