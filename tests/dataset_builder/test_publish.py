"""`publish` against a local Hub, step by step, with the real client."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from dataset_builder.cli import main
from dataset_builder.errors import DatasetMismatchError
from dataset_builder.publish import PublishError, publish
from dataset_builder.release import Release, make_release
from tests import hub_server
from tests.hub_server import Commit, Hub

# The client itself hands httpx a file as `data=`, which httpx calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

REPO = "ada/dots"
NAMES = ("halo_count", "halo_count_wide", "halo_relate")
SHARDS = ("data/halo_count/test-00000-of-00002.parquet", "data/halo_count/test-00001-of-00002.parquet")
CARD = """---
language: [en]
license: mit
pretty_name: Dots
task_categories: [other]
size_categories: [n<1K]
annotations_creators: [machine-generated]
source_datasets: [original]
tags: [counting]
configs: [{config_name: one, default: true}]
---
"""
FILES = {
    "MANIFEST.json": b"{}",
    "README.md": CARD.encode(),
    "data/one/test-00000-of-00001.parquet": b"PAR1" * 300,
    "eval.yaml": b"name: x\n",
}
UPLOAD_STEPS = ["info", "create", "tree", "validate", "preupload", "lfs_batch", "lfs_put", "lfs_verify", "commit"]


def release(files: dict[str, bytes] = FILES) -> Release:
    return Release(files, {})


def published_commits(hub: Hub) -> int:
    """Commits after the empty first one."""
    return len(hub.repos[REPO].commits) - 1 if REPO in hub.repos else 0


def test_publishing_makes_one_commit_with_every_file_and_then_the_tag(hub: Hub, api: HfApi) -> None:
    sha = publish(REPO, release(), api=api, tag="v1.0.0")
    repo = hub.repos[REPO]
    assert re.fullmatch("[0-9a-f]{40}", sha)
    assert [commit.commit_id for commit in api.list_repo_commits(REPO, repo_type="dataset")][:-1] == [sha]
    assert {path: blob.data for path, blob in repo.commits[-1].files.items() if path != ".gitattributes"} == FILES
    assert repo.tags == {"v1.0.0": sha}


def test_more_files_than_the_client_puts_in_one_request_are_still_one_commit(hub: Hub, api: HfApi) -> None:
    many = {f"data/one/{i}.json": b"%d" % i for i in range(260)}
    publish(REPO, release({**FILES, **many}), api=api)
    assert published_commits(hub) == 1
    assert many.keys() <= hub.repos[REPO].commits[-1].files.keys()


def test_publishing_the_same_content_again_makes_no_second_commit(hub: Hub, api: HfApi) -> None:
    first = publish(REPO, release(), api=api, tag="v1.0.0")
    assert publish(REPO, release(), api=api, tag="v1.0.0") == first
    assert publish(REPO, release(), api=api) == first
    assert publish(REPO, release(), api=api, tag="v1.0.1") == first
    assert published_commits(hub) == 1
    assert hub.repos[REPO].tags == {"v1.0.0": first, "v1.0.1": first}


def test_new_content_is_a_second_commit_that_deletes_the_stale_shards_and_nothing_else(hub: Hub, api: HfApi) -> None:
    publish(REPO, release(), api=api)
    api.create_commit(REPO, [CommitOperationAdd("NOTES.md", b"by hand")], commit_message="notes", repo_type="dataset")
    renamed = {path.replace("-of-00001", "-of-00002"): content for path, content in FILES.items()}
    publish(REPO, release(renamed), api=api)
    assert hub.repos[REPO].commits[-1].files.keys() == {*renamed, "NOTES.md", ".gitattributes"}


def test_an_existing_tag_on_other_content_is_refused_before_anything_is_committed(hub: Hub, api: HfApi) -> None:
    first = publish(REPO, release(), api=api, tag="v1.0.0")
    with pytest.raises(PublishError, match=rf"tag v1.0.0 is on other content \({first}\); publish under a new tag"):
        publish(REPO, release({**FILES, "eval.yaml": b"name: y\n"}), api=api, tag="v1.0.0")
    assert published_commits(hub) == 1
    assert hub.repos[REPO].tags == {"v1.0.0": first}


def test_a_tag_made_by_somebody_else_meanwhile_is_refused_and_never_moved(hub: Hub, api: HfApi) -> None:
    publish(REPO, release(), api=api)
    before = hub.repos[REPO].commits[0].oid

    def race(step: str) -> None:
        if step == "tag":
            hub.repos[REPO].tags["v1.0.0"] = before

    hub.fault = race
    with pytest.raises(PublishError, match="could not tag commit [0-9a-f]{40} of ada/dots as v1.0.0: HTTP 409"):
        publish(REPO, release(), api=api, tag="v1.0.0")
    assert hub.repos[REPO].tags == {"v1.0.0": before}


def test_a_commit_that_came_in_between_is_refused_and_kept(hub: Hub, api: HfApi) -> None:
    publish(REPO, release(), api=api)
    repo = hub.repos[REPO]
    theirs = hub_server.Commit(repo.commits[-1].oid, "theirs", {"eval.yaml": hub_server.Blob(b"theirs", lfs=False)})

    def race(step: str) -> None:
        if step == "commit":
            repo.commits.append(theirs)

    hub.fault = race
    with pytest.raises(PublishError, match="could not commit to ada/dots: HTTP 412: another commit came in between"):
        publish(REPO, release({**FILES, "eval.yaml": b"name: y\n"}), api=api, tag="v2.0.0")
    assert repo.commits[-1] is theirs
    assert repo.tags == {}


@pytest.mark.parametrize("step", UPLOAD_STEPS)
def test_a_connection_that_is_lost_at_any_step_publishes_nothing_and_a_second_run_all(
    hub: Hub, api: HfApi, step: str
) -> None:
    hub.fail_at(step)
    with pytest.raises(PublishError, match="the connection failed .*; run the same command again"):
        publish(REPO, release(), api=api, tag="v1.0.0")
    assert published_commits(hub) == 0
    assert REPO not in hub.repos or hub.repos[REPO].tags == {}
    hub.heal()
    sha = publish(REPO, release(), api=api, tag="v1.0.0")
    assert published_commits(hub) == 1
    assert hub.repos[REPO].tags == {"v1.0.0": sha}


@pytest.mark.parametrize(("step", "fault"), [("commit", "drop_after"), ("tag", "drop"), ("tag", "drop_after")])
def test_a_connection_that_is_lost_after_the_commit_leaves_one_whole_commit_that_a_second_run_tags(
    hub: Hub, api: HfApi, step: str, fault: str
) -> None:
    hub.fail_at(step, fault)
    with pytest.raises(PublishError, match="the connection failed"):
        publish(REPO, release(), api=api, tag="v1.0.0")
    assert published_commits(hub) == 1
    hub.heal()
    sha = publish(REPO, release(), api=api, tag="v1.0.0")
    assert [commit.oid for commit in hub.repos[REPO].commits[1:]] == [sha]
    assert hub.repos[REPO].tags == {"v1.0.0": sha}


@pytest.mark.parametrize("step", ["preupload", "lfs_batch", "lfs_put", "lfs_verify"])
def test_a_connection_that_is_lost_once_during_the_upload_is_only_tried_again(hub: Hub, api: HfApi, step: str) -> None:
    hub.fail_at(step, times=1)
    publish(REPO, release(), api=api)
    assert published_commits(hub) == 1


def test_an_upload_that_broke_off_does_not_send_again_what_has_arrived(hub: Hub, api: HfApi) -> None:
    hub.fail_at("commit")
    with pytest.raises(PublishError, match="what has arrived is not sent twice"):
        publish(REPO, release(), api=api)
    hub.heal()
    hub.steps.clear()
    publish(REPO, release(), api=api)
    assert "lfs_put" not in hub.steps


def test_a_wrong_token_is_refused_before_anything_is_sent(hub: Hub) -> None:
    with pytest.raises(
        PublishError, match="could not read what is at ada/dots: HTTP 401: the login was refused; run `hf auth login`"
    ):
        publish(REPO, release(), api=HfApi(endpoint=hub.url, token="hf_wrongtoken"))
    assert hub.steps == ["info"]


def test_a_login_without_the_right_to_write_there_is_told_so(hub: Hub, api: HfApi) -> None:
    publish(REPO, release(), api=api)
    foreign = HfApi(endpoint=hub.url, token=hub_server.FOREIGN_TOKEN)
    with pytest.raises(PublishError, match="could not commit to ada/dots: HTTP 403: this login may not write there"):
        publish(REPO, release({**FILES, "eval.yaml": b"name: y\n"}), api=foreign)
    with pytest.raises(PublishError, match="could not create ada/new: HTTP 403: this login may not write there"):
        publish("ada/new", release(), api=foreign)
    assert published_commits(hub) == 1


def test_a_private_repository_is_made_private_and_a_public_one_is_not_taken_for_private(hub: Hub, api: HfApi) -> None:
    publish(REPO, release(), api=api, private=True)
    assert hub.repos[REPO].private
    assert publish(REPO, release(), api=api, private=True)
    publish("ada/open", release(), api=api)
    with pytest.raises(
        PublishError, match="ada/open is public; make it private in its settings or leave --private out"
    ):
        publish("ada/open", release(), api=api, private=True)


def test_a_card_that_the_hub_refuses_is_not_committed(hub: Hub, api: HfApi) -> None:
    broken = {**FILES, "README.md": CARD.replace("license: mit", "license: [mit]").encode()}
    with pytest.raises(PublishError, match="could not commit to ada/dots: .*license is of the wrong type"):
        publish(REPO, release(broken), api=api)
    assert published_commits(hub) == 0


def test_a_server_that_repeats_the_token_does_not_get_it_printed(hub: Hub, api: HfApi) -> None:
    def echo(step: str) -> None:
        if step == "commit":
            raise hub_server.HubError(500, f"bad header Authorization: Bearer {hub_server.TOKEN}")

    hub.fault = echo
    with pytest.raises(PublishError, match=r"bad header Authorization: Bearer \*\*\*"):
        publish(REPO, release(), api=api)


def test_the_same_rows_in_other_parquet_bytes_make_no_second_commit(
    hub: Hub, api: HfApi, small_sets: Path, tmp_path: Path
) -> None:
    first = publish(REPO, make_release(small_sets, NAMES, repo_id=REPO), api=api)
    shutil.copytree(small_sets, tmp_path / "other")
    pq.write_table(pq.read_table(small_sets / SHARDS[1]), tmp_path / "other" / SHARDS[1], compression="snappy")
    other = make_release(tmp_path / "other", NAMES, repo_id=REPO)
    assert publish(REPO, other, api=api, tag="v1.0.0") == first
    assert published_commits(hub) == 1


def test_a_shard_that_was_damaged_at_the_head_is_put_right(hub: Hub, api: HfApi, small_sets: Path) -> None:
    whole = make_release(small_sets, NAMES, repo_id=REPO)
    publish(REPO, whole, api=api)
    head = hub.repos[REPO].commits[-1]
    hub.repos[REPO].commits.append(Commit(head.oid, "by hand", {**head.files, SHARDS[1]: head.files[SHARDS[0]]}))
    publish(REPO, whole, api=api)
    assert hub.repos[REPO].commits[-1].files == head.files
    assert published_commits(hub) == 3


def test_a_set_that_is_not_what_its_manifest_says_is_not_released(small_sets: Path, tmp_path: Path) -> None:
    shutil.copytree(small_sets, tmp_path / "damaged")
    table = pq.read_table(small_sets / SHARDS[1])
    pq.write_table(table.slice(0, 1), tmp_path / "damaged" / SHARDS[1])
    with pytest.raises(DatasetMismatchError, match="holds 1 rows of content .* where the manifest says 2 of"):
        make_release(tmp_path / "damaged", NAMES, repo_id=REPO)


def test_sets_that_the_folder_lacks_are_built_and_those_it_has_are_taken(small_sets: Path, tmp_path: Path) -> None:
    shutil.copytree(small_sets, tmp_path / "more")
    made = make_release(tmp_path / "more", [*NAMES, "halo_count_blank"], repo_id=REPO)
    assert {name: manifest.n for name, manifest in made.manifests.items()} == {
        **dict.fromkeys(NAMES, 6),
        "halo_count_blank": 32,
    }


def test_a_dry_run_shows_every_file_the_card_and_eval_yaml(
    small_sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", None)  # it needs no network
    options = ["--sets", *NAMES, "--folder", str(small_sets), "--private", "--tag", "v1.0.0", "--dry-run"]
    assert main(["publish", REPO, *options]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"one commit to private dataset {REPO}, tag v1.0.0\n")
    files = make_release(small_sets, NAMES, repo_id=REPO).files
    for path, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        assert f"\n{hashlib.sha256(data).hexdigest()} {len(data):>10} {path}\n" in shown
    assert files["README.md"].decode() in shown
    assert files["eval.yaml"].decode() in shown


def test_what_a_folder_holds_besides_is_not_published_by_accident(
    small_sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", REPO, "--dry-run", "--folder", str(small_sets), "--sets", "halo_count"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "holds halo_count_wide, halo_relate too; name it in --sets or use another folder" in shown.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["dots"], "'dots' is no repository; give ORG/NAME"),
        ([REPO, "--tag", "v 1"], "'v 1' is no name for a tag; give one such as v1.0.0"),
    ],
)
def test_a_bad_argument_is_told_with_exit_code_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["publish", *arguments])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


def test_an_unknown_set_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", REPO, "--dry-run", "--sets", "no_such_set"]) == 2
    assert "no set is named 'no_such_set'" in capsys.readouterr().err


def change_set(content: dict[str, Any], **changes: object) -> None:
    content["sets"]["halo_count"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: change_set(content, n=7), "halo_count has 6 rows of content .* says 7 of"),
        (lambda content: content["sets"]["halo_count"]["shards"][0].update(sha256="0" * 64), "says 4 of 0{64};"),
        (lambda content: content["sets"]["halo_count"]["shards"][0].update(rows=99), "says 99 of"),
        (lambda content: change_set(content, seed=5), "of halo_count with seed 0, the entry says seed 5; build"),
        (lambda content: change_set(content, seed="0"), "TypeError: seed is '0', not of type int"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_not_published(
    change: Callable[[dict[str, Any]], None],
    message: str,
    small_sets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(small_sets, tmp_path / "spoilt")
    content = json.loads((folder / "MANIFEST.json").read_text())
    change(content)
    (folder / "MANIFEST.json").write_text(json.dumps(content))
    assert main(["publish", REPO, "--dry-run", "--folder", str(folder), "--sets", *NAMES]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert re.search(message, shown.err)


def test_without_a_temporary_folder_it_is_one_line_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert main(["publish", REPO, "--dry-run", "--sets", "halo_count_blank"]) == 1
    assert re.fullmatch(
        r"halo-dataset: no temporary folder can be made \(.+\); set TMPDIR .*\n", capsys.readouterr().err
    )


def test_an_answer_that_is_not_of_the_hub_is_one_line(hub: Hub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(REPO, release(), api=api)
    monkeypatch.setattr(hub, "refs", lambda _call: {})
    with pytest.raises(PublishError, match="could not read what is at ada/dots: the Hub's answer is not understood"):
        publish(REPO, release(), api=api, tag="v1.0.0")
