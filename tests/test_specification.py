"""Every place that cites the specification cites a section that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPECIFICATION = ROOT / "docs" / "specification.md"
CITING = ("dataset_builder", "halo_probe", "lmms_eval_tasks", "training", "benchmarks", "tests", "docs")
# "spec §6", "§2 and §6", "the measurement specification, sections 5, 7, 9 and 10"
SIGNS = re.compile(r"§\s?(\d+)")
WORDS = re.compile(r"specification,\s+sections?\s+((?:\d+(?:,\s+|\s+and\s+)?)+)")


def sections():
    return {int(number) for number in re.findall(r"^## (\d+) ", SPECIFICATION.read_text("utf-8"), re.MULTILINE)}


def citations():
    """File and cited section."""
    for folder in CITING:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in {".py", ".md", ".yaml"} or path == SPECIFICATION or path == Path(__file__):
                continue
            text = path.read_text("utf-8")
            yield from ((path, int(number)) for number in SIGNS.findall(text))
            yield from ((path, int(one)) for found in WORDS.findall(text) for one in re.findall(r"\d+", found))


def test_the_sections_are_numbered_from_1_on():
    assert sections() == set(range(1, 12))


def test_every_section_that_is_cited_is_there():
    cited = list(citations())
    assert len(cited) > 50
    assert [(str(path), number) for path, number in cited if number not in sections()] == []


def test_every_section_is_cited_by_the_code():
    assert sections() == {number for path, number in citations() if path.suffix == ".py"}


def test_the_vectors_are_where_the_specification_says():
    (named,) = set(re.findall(r"`(tests/data/[\w.]+)`", SPECIFICATION.read_text("utf-8")))
    assert (ROOT / named).is_file()
