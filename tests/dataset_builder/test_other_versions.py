"""Other versions of numpy and datasets, each in an environment of its own."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builder.release import make_release
from dataset_builder.rows import canonical_line, make_row
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS

ROOT = Path(__file__).parents[2]

HASH_ROWS = """
import hashlib, json
from dataset_builder.rows import canonical_line, make_row
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
print(json.dumps([
    hashlib.sha256(canonical_line(make_row(spec, draw_sample(spec, 1)))).hexdigest() for spec in SETS.values()
]))
"""

READ_SETS = """
import json, sys
import datasets
read = {"version": datasets.__version__}
for name in sys.argv[2:]:
    rows = datasets.load_dataset(sys.argv[1], name, split="test")
    image = rows[5]["image"]
    read[name] = [image.mode, image.size, rows.remove_columns("image").to_dict()]
print(json.dumps(read))
"""


def run(script: str, *arguments: str, packages: list[str], home: Path) -> object:
    """What a script prints in an environment that uv makes of these packages alone."""
    made_with = [
        str(Path(sys.executable).with_name("uv")),
        "run",
        "--no-project",
        "--python",
        sys.executable,
        *(f"--with={package}" for package in packages),
    ]
    probe = subprocess.run([*made_with, "python", "-c", ""], check=False, capture_output=True, text=True, cwd=home)
    if probe.returncode and re.search("error sending request|network", probe.stderr):
        pytest.skip(f"without a network uv cannot make the environment: {probe.stderr.strip().splitlines()[-1]}")
    assert probe.returncode == 0, probe.stderr
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    env |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*made_with, "python", "-c", script, *arguments], check=False, capture_output=True, text=True, cwd=home, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rows_are_the_same_bytes_with_the_oldest_numpy(tmp_path):
    here = [hashlib.sha256(canonical_line(make_row(spec, draw_sample(spec, 1)))).hexdigest() for spec in SETS.values()]
    assert run(HASH_ROWS, packages=["numpy==1.26.0"], home=tmp_path) == here


@pytest.mark.parametrize(
    "packages",
    [["datasets==2.19.0", "numpy<2", "pyarrow<16"], ["datasets==3.6.0"], ["datasets>=5"]],
    ids=lambda p: p[0],
)
def test_a_released_folder_loads_by_its_card_in_old_and_new_datasets(packages, small_sets, tmp_path):
    names = ["halo_count", "halo_count_wide", "halo_relate"]
    folder = tmp_path / "released"
    for path, content in make_release(small_sets, names, repo_id="ada/dots").files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    read = run(READ_SETS, str(folder), *names, packages=[*packages, "pillow"], home=tmp_path)
    for name in names:
        files = sorted((small_sets / "data" / name).glob("*.parquet"))
        rows = [row for path in files for row in pq.read_table(path).drop_columns("image").to_pylist()]
        mode, size, columns = read[name]
        assert (mode, size) == ("RGB" if name == "halo_relate" else "L", [1024, 1024])
        assert columns == {column: [row[column] for row in rows] for column in rows[0]}
