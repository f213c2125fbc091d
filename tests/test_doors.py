"""The pages at the top lead somewhere, and say what is so."""

import re
from pathlib import Path

import pytest
import yaml

from halo_probe import _version

ROOT = Path(__file__).parents[1]
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "CHANGELOG.md", "docs/README.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md"])
def test_every_path_that_a_page_names_is_there(page):
    names = re.findall(r"`([\w./]+/[\w./]*\w)`", (ROOT / page).read_text("utf-8"))
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_room_of_the_probe_is_on_the_map():
    rooms = {path.parent.name for path in (ROOT / "halo_probe").glob("*/__init__.py")}
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert [room for room in rooms if f"halo_probe/{room}" not in text] == []


def test_every_page_of_the_documentation_is_on_its_map():
    text = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert [page for page in pages if f"({page})" not in text] == []


def test_no_folder_has_more_files_than_can_be_seen_at_once():
    folders = [
        path.parent for room in ("halo_probe", "tests", "docs", "training") for path in (ROOT / room).rglob("*.*")
    ]
    kinds = {".py", ".md", ".yaml"}
    crowded = {
        str(folder.relative_to(ROOT)): sum(path.suffix in kinds for path in folder.iterdir()) for folder in set(folders)
    }
    assert {name: number for name, number in crowded.items() if number > 26} == {}


def test_the_hooks_run_the_pinned_ruff():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    (pinned,) = re.findall(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"ruff==([\w.]+)", hooks)) == {pinned}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["title"], citation["version"]) == ("halo-probe", _version.__version__)
