"""The versions that halo-probe says it was proven with are those that the suite runs with."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from halo_probe import proven
from halo_probe.capture import pass_inputs
from halo_probe.cli import main
from halo_probe.errors import CaptureError

ROOT = Path(__file__).parents[2]


def test_the_proven_versions_are_the_pinned_ones():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {canonicalize_name(name): one for name, one in proven.PROVEN.items()}.items() <= pinned.items()


def test_no_version_that_is_known_to_break_is_admitted_or_pinned():
    for broken in proven.BREAKS:
        needed = Requirement(broken)
        assert not needed.specifier.contains(proven.PROVEN[needed.name])


def test_the_doctor_without_a_model_says_how_the_versions_stand(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (shown,) = [line for line in lines if line.startswith("transformers ")]
    assert version("transformers") in shown
    assert any("lmms-eval 0.7.3 imports filelock._api" in line for line in lines)


@pytest.mark.parametrize(
    ("installed", "verdict"),
    [("4.2.12", "pinned"), ("4.2.0", "between"), ("3.12", "older than admitted"), ("4.3.1", "newer than proven")],
)
def test_a_version_stands_in_one_corner(installed, verdict, monkeypatch):
    monkeypatch.setattr(proven, "version", lambda name: installed if name == "filelock" else version(name))
    (found,) = [one for one in proven.standings() if one.package == "filelock"]
    assert found.verdict == verdict
    assert bool(found.breaks) == (installed in {"3.12", "4.3.1"})


def test_the_doctor_fails_where_a_version_is_known_to_break(monkeypatch, capsys):
    monkeypatch.setattr(proven, "version", lambda name: "4.3.1" if name == "filelock" else version(name))
    assert main(["doctor"]) == 1
    assert "filelock 4.3.1: lmms-eval 0.7.3 imports filelock._api" in capsys.readouterr().err


def test_an_image_without_a_model_is_bad_usage(capsys):
    assert main(["doctor", "--image", "a.png"]) == 2
    assert "give the MODEL too" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_before_any_model_stack_is_imported():
    program = (
        "import sys\nfrom halo_probe.cli import main\n"
        "print(main(['doctor', 'no/such-model']), sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.stdout == "2 []\n"
    assert "no/such-model: cannot be loaded: it is no folder, and the Hub does not give it" in done.stderr


@pytest.mark.parametrize(
    ("installed", "words"),
    [("5.25.0", "transformers 5.25.0 is newer than what this was proven with (5.24)"), ("5.24.1", "is not newer")],
)
def test_a_pass_that_cannot_be_read_is_refused_with_what_it_was_given_and_the_version(
    installed, words, qwen3_vl_model, monkeypatch
):
    monkeypatch.setattr(pass_inputs.transformers, "__version__", installed)
    with pytest.raises(CaptureError) as refused:
        pass_inputs.positions_given(qwen3_vl_model.get_decoder(), (), {"tokens": 1})
    assert words in str(refused.value)
    assert "was given tokens, and neither input_ids nor inputs_embeds" in str(refused.value)
