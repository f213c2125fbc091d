"""`halo-dataset publish`, and what was published, by the real clients in processes of their own against a local Hub."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfApi

from dataset_builder.load import content_sha256, load_set
from dataset_builder.manifest import read_manifests
from dataset_builder.publish import publish
from dataset_builder.release import make_release
from dataset_builder.version import GENERATOR_VERSION
from tests import hub_server
from tests.hub_server import Blob, Commit, Hub

# The client itself hands httpx a file as `data=`, which httpx calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

REPO = "ada/dots"
NAMES = ("halo_count", "halo_count_wide", "halo_relate")
SHARDS = ("test-00000-of-00002.parquet", "test-00001-of-00002.parquet")
CLI = "import sys; from dataset_builder.cli import main; sys.exit(main())"

READ_EVERYTHING = """
import datasets, hashlib, json, sys
from dataset_builder.load import content_sha256, load_set
from huggingface_hub import DatasetCard

repo, sha, *names = sys.argv[1:]

def load(name, revision, **options):
    return datasets.load_dataset(repo, name, split="test", revision=revision, **options)

def described(rows):
    raw = rows.cast_column("image", datasets.Image(decode=False))
    png = [hashlib.sha256(image["bytes"]).hexdigest() for image in raw["image"]]
    return [rows[0]["image"].mode, png, rows.remove_columns("image").to_list()]

DatasetCard.load(repo).validate(repo_type="dataset")
print(json.dumps({
    "by_tag": {name: described(load(name, "v1.0.0")) for name in names},
    "by_sha": {name: described(load(name, sha)) for name in names},
    "default": list(load(None, sha)["id"]),
    "streamed": [[row["id"], row["image"].size] for row in load(names[1], sha, streaming=True)],
    "selected": list(load(names[1], sha, streaming=True).select_columns(["id", "count"])),
    "chosen": load(names[1], sha, columns=["id", "answer"]).to_list(),
    "hashes": [content_sha256(load_set(name)) for name in names],
}))
"""


@dataclass(frozen=True)
class Client:
    """Runs Python in a process whose clients know only the local Hub, with a home of its own."""

    hub: Hub
    home: Path
    token: str | None = hub_server.TOKEN

    def run(self, code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HALO_"))}
        environment = {
            **kept,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
            **({"HF_TOKEN": self.token} if self.token else {}),
            **variables,
        }
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def publish(self, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(CLI, "publish", REPO, "--folder", str(folder), "--sets", *NAMES, *options)


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command which failed has written."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "home")


@pytest.fixture(scope="module")
def published(small_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """A Hub on which the sets are published as v1.0.0, and their commit: only to be read."""
    with hub_server.serve() as hub:
        client = Client(hub, tmp_path_factory.mktemp("home"))
        done = client.publish(small_sets, "--tag", "v1.0.0")
        assert done.returncode == 0, done.stderr
        yield client, done.stdout.strip()


@pytest.fixture(scope="module")
def seen(published: tuple[Client, str]) -> dict[str, Any]:
    """What one process saw of the published sets, with every way to load them."""
    client, sha = published
    done = client.run(READ_EVERYTHING, REPO, sha, *NAMES, HALO_DATASET=f"{REPO}@{sha}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_at(hub: Hub, revision: str) -> dict[str, bytes]:
    commit = hub.commit_at(hub.repos[REPO], revision)
    return {path: blob.data for path, blob in commit.files.items()}


def test_publishing_prints_the_sha_of_the_one_commit_that_the_tag_is_on(published: tuple[Client, str]) -> None:
    client, sha = published
    repo = client.hub.repos[REPO]
    assert re.fullmatch("[0-9a-f]{40}", sha)
    assert [commit.oid for commit in repo.commits[1:]] == [sha]
    assert repo.tags == {"v1.0.0": sha}


def test_the_commit_has_the_shards_manifest_card_pictures_and_eval_yaml(
    published: tuple[Client, str], small_sets: Path
) -> None:
    client, sha = published
    files = files_at(client.hub, sha)
    shards = {f"data/{name}/{shard}" for name in NAMES for shard in SHARDS}
    pictures = {f"assets/{name}.png" for name in NAMES}
    assert files.keys() == {".gitattributes", "MANIFEST.json", "README.md", "eval.yaml", *shards, *pictures}
    assert all(files[path] == (small_sets / path).read_bytes() for path in ("MANIFEST.json", *shards))
    assert json.loads(files["MANIFEST.json"])["generator"] == GENERATOR_VERSION
    assert f"`dataset_builder` {GENERATOR_VERSION}" in files["README.md"].decode()
    for name in NAMES:
        first = load_set(name, source=str(small_sets)).data["image"][0].as_py()
        assert files[f"assets/{name}.png"] == first["bytes"]


def test_the_shards_have_a_page_index(published: tuple[Client, str]) -> None:
    client, sha = published
    shard = pq.ParquetFile(BytesIO(files_at(client.hub, sha)[f"data/halo_count/{SHARDS[0]}"]))
    assert all(shard.metadata.row_group(0).column(i).has_offset_index for i in range(shard.metadata.num_columns))


def test_the_published_card_is_one_that_the_hub_accepts(published: tuple[Client, str], seen: dict[str, Any]) -> None:
    client, sha = published
    assert client.hub.steps.count("validate") == 2  # before the upload, and by `DatasetCard.validate`
    metadata = yaml.safe_load(files_at(client.hub, sha)["README.md"].decode().split("---\n")[1])
    assert [config["config_name"] for config in metadata["configs"]] == list(NAMES)


@pytest.mark.parametrize("revision", ["by_tag", "by_sha"])
def test_each_set_loads_as_a_config_with_the_rows_that_were_built(
    seen: dict[str, Any], small_sets: Path, revision: str
) -> None:
    for name in NAMES:
        local = load_set(name, source=str(small_sets))
        mode, png, rows = seen[revision][name]
        assert mode == ("RGB" if name == "halo_relate" else "L")
        assert png == list(local["png_sha256"])
        assert rows == local.remove_columns("image").to_list()


def test_the_set_of_the_paper_is_the_default_config(seen: dict[str, Any]) -> None:
    assert seen["default"] == [f"halo_count-{i:05d}" for i in range(6)]


def test_rows_stream_by_range_requests(published: tuple[Client, str], seen: dict[str, Any]) -> None:
    client, _ = published
    assert seen["streamed"] == [[f"halo_count_wide-{i:05d}", [1024, 1024]] for i in range(6)]
    assert client.hub.ranges


def test_chosen_columns_come_alone_streamed_or_not(seen: dict[str, Any]) -> None:
    assert [row["id"] for row in seen["selected"]] == [row["id"] for row in seen["chosen"]]
    assert [str(row["count"]) for row in seen["selected"]] == [row["answer"] for row in seen["chosen"]]
    assert all(row.keys() == {"id", "count"} for row in seen["selected"])
    assert all(row.keys() == {"id", "answer"} for row in seen["chosen"])


def test_halo_dataset_with_the_commit_gives_the_content_hashes_of_a_local_build(
    seen: dict[str, Any], small_sets: Path
) -> None:
    assert seen["hashes"] == [content_sha256(load_set(name, source=str(small_sets))) for name in NAMES]


def test_the_published_commit_verifies(published: tuple[Client, str]) -> None:
    client, sha = published
    done = client.run(CLI, "verify", f"{REPO}@{sha}")
    assert (done.returncode, done.stdout) == (0, "")


def test_without_a_connection_another_revision_is_not_replaced_by_the_cached_one(
    published: tuple[Client, str], seen: dict[str, Any]
) -> None:
    client, sha = published
    load = (
        "from dataset_builder.load import load_set; import sys; print(len(load_set('halo_count', source=sys.argv[1])))"
    )
    assert client.run(load, f"{REPO}@{sha}", HF_HUB_OFFLINE="1").stdout == "6\n"
    other = client.run(load, f"{REPO}@v2.0.0", HF_HUB_OFFLINE="1")
    assert other.stdout == ""
    assert "DatasetSourceError" in other.stderr


def test_content_that_was_changed_under_the_same_tag_is_refused_by_its_pinned_hash_and_not_loaded_by_the_commit(
    client: Client, api: HfApi, small_sets: Path, other_sets: Path
) -> None:
    first = publish(REPO, make_release(small_sets, NAMES, repo_id=REPO), api=api, tag="v1.0.0")
    second = publish(REPO, make_release(other_sets, NAMES, repo_id=REPO), api=api)
    client.hub.repos[REPO].tags["v1.0.0"] = second
    pinned = read_manifests(small_sets)["halo_count"].content_sha256
    done = client.run(
        "import sys\n"
        "from dataset_builder.errors import DatasetMismatchError\n"
        "from dataset_builder.load import content_sha256, load_set\n"
        "first, pinned = sys.argv[1:]\n"
        "try:\n"
        f"    load_set('halo_count', source='{REPO}@v1.0.0', expected_sha256=pinned)\n"
        "except DatasetMismatchError as error:\n"
        "    print(error)\n"
        f"print(content_sha256(load_set('halo_count', source=f'{REPO}@{{first}}', expected_sha256=pinned)))",
        first,
        pinned,
    )
    refused, kept = done.stdout.splitlines()
    assert f"where {pinned} is expected" in refused
    assert kept == pinned


def test_a_shard_that_was_changed_under_the_same_manifest_does_not_load_and_does_not_verify(
    client: Client, api: HfApi, small_sets: Path, other_sets: Path
) -> None:
    publish(REPO, make_release(small_sets, NAMES, repo_id=REPO), api=api)
    repo = client.hub.repos[REPO]
    path = f"data/halo_count/{SHARDS[0]}"
    changed = {**repo.commits[-1].files, path: Blob((other_sets / path).read_bytes(), lfs=True)}
    repo.commits.append(Commit(repo.commits[-1].oid, "by hand", changed))
    verified = client.run(CLI, "verify", f"{REPO}@main")
    assert (verified.returncode, "halo_count-00000" in verified.stdout) == (1, True)
    loaded = client.run(f"from dataset_builder.load import load_set; load_set('halo_count', source='{REPO}@main')")
    assert "DatasetMismatchError" in loaded.stderr


def test_publishing_again_prints_the_same_sha_and_makes_no_second_commit(
    published: tuple[Client, str], small_sets: Path
) -> None:
    client, sha = published
    done = client.publish(small_sets, "--tag", "v1.0.0")
    assert (done.stdout, done.stderr) == (f"{sha}\n", "")
    assert len(client.hub.repos[REPO].commits) == 2


def test_other_content_under_an_existing_tag_is_one_line_and_no_commit(
    published: tuple[Client, str], other_sets: Path
) -> None:
    client, sha = published
    line = failure(client.publish(other_sets, "--tag", "v1.0.0"))
    assert line == f"halo-dataset: {REPO}: tag v1.0.0 is on other content ({sha}); publish under a new tag"
    assert len(client.hub.repos[REPO].commits) == 2


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "no login was found; run `hf auth login` or set HF_TOKEN"),
        (
            "hf_wrongtokenwrongtoken",
            "HTTP 401: the login was refused; run `hf auth login` or set HF_TOKEN to a valid token",
        ),
        ("hf_bad\x01token", "the token is not printable ASCII; set HF_TOKEN anew"),
    ],
)
def test_a_failed_login_is_one_line_before_any_set_is_built(client: Client, token: str | None, reason: str) -> None:
    stranger = replace(client, token=token)
    line = failure(stranger.run(CLI, "publish", REPO))
    assert line == f"halo-dataset: could not log in to publish {REPO}: {reason}"
    assert client.hub.repos == {}


def test_a_login_that_may_not_write_there_is_one_line(client: Client, small_sets: Path) -> None:
    line = failure(replace(client, token=hub_server.FOREIGN_TOKEN).publish(small_sets))
    assert line.startswith(f"halo-dataset: could not create {REPO}: HTTP 403: this login may not write there; ")
    assert client.hub.repos == {}


def test_a_lost_connection_is_one_line_and_the_next_run_publishes(client: Client, small_sets: Path) -> None:
    client.hub.fail_at("commit")
    line = failure(client.publish(small_sets, "--tag", "v1.0.0"))
    assert re.match(
        r"halo-dataset: could not commit .*: the connection failed \(.*\); run the same command again", line
    )
    repo = client.hub.repos[REPO]
    assert (len(repo.commits), repo.tags) == (1, {})
    client.hub.heal()
    sha = client.publish(small_sets, "--tag", "v1.0.0").stdout.strip()
    assert (len(repo.commits), repo.tags) == (2, {"v1.0.0": sha})


def test_a_full_disk_is_one_line_and_nothing_is_published(client: Client, tmp_path: Path) -> None:
    # No file may grow beyond 4 KiB: a write fails as it does on a full disk, without one.
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); {CLI}"
    done = client.run(limited, "publish", REPO, "--sets", "halo_count_blank", "--folder", str(tmp_path / "small"))
    assert "cannot be written" in failure(done)
    assert client.hub.repos == {}


def test_the_token_is_in_no_output_and_no_file(client: Client, small_sets: Path, tmp_path: Path) -> None:
    secret = hub_server.TOKEN
    outputs = [client.publish(small_sets, "--tag", "v1.0.0")]
    client.hub.fail_at("info")
    outputs.append(client.publish(small_sets))
    client.hub.heal()
    written = [path.read_bytes() for root in (small_sets, tmp_path) for path in root.rglob("*") if path.is_file()]
    assert [output.returncode for output in outputs] == [0, 1]
    assert not any(secret in output.stdout + output.stderr for output in outputs)
    assert not any(secret.encode() in content for content in [*written, *files_at(client.hub, "main").values()])


def test_a_source_whose_hub_repeats_the_token_does_not_get_it_printed(client: Client) -> None:
    def echo(_step: str) -> None:
        raise hub_server.HubError(400, f"bad header Authorization: Bearer {hub_server.TOKEN}")

    client.hub.fault = echo
    line = failure(client.run(CLI, "verify", f"{REPO}@v1.0.0"))
    assert hub_server.TOKEN not in line
    assert "bad header Authorization: Bearer ***" in line


def test_a_source_that_a_strange_login_cannot_reach_is_one_line_without_it(client: Client) -> None:
    line = failure(replace(client, token="hf_bad\x01token").run(CLI, "verify", f"{REPO}@v1.0.0"))
    assert line.startswith(f"halo-dataset: {REPO}@v1.0.0: there is no such folder, and the Hub gives no such dataset (")
    assert "hf_bad" not in line
    accented = failure(replace(client, token="hf_bädtoken").run(CLI, "verify", f"{REPO}@v1.0.0"))
    assert "hf_b" not in accented


def test_a_source_that_is_no_hub_is_one_line(client: Client) -> None:
    client.hub.info = lambda _call: []
    line = failure(client.run(CLI, "verify", f"{REPO}@v1.0.0"))
    assert line.startswith(f"halo-dataset: {REPO}@v1.0.0: there is no such folder, and the Hub gives no such dataset (")
