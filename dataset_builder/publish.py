"""Publishing: every set as a config of one Hub repository, in one commit, then the tag."""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder.errors import DatasetError, DatasetSourceError
from dataset_builder.hub_errors import message_of
from dataset_builder.manifest import MANIFEST_NAME
from dataset_builder.release import Release, holds_same_rows, make_release
from dataset_builder.sets import SETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_OWNED_FOLDERS = ("data/", "assets/")
"""Folders of the repository that hold nothing but what was published: what is stale in them is deleted."""

_REASONS = {
    401: "the login was refused; run `hf auth login` or set HF_TOKEN to a valid token",
    403: "this login may not write there; use a token with write access to that namespace",
    409: "it exists already; look at what is there, then run the same command again",
    412: "another commit came in between; look at it, then run the same command again",
}


class PublishError(DatasetError):
    """A repository that could not be published; the message says at which step, why, and what to do."""


def publish(repo_id: str, release: Release, *, api: HfApi, private: bool = False, tag: str | None = None) -> str:
    """Make one commit of a release in a dataset repository, then the tag, and return the commit's 40-hex SHA.

    What is at the head already makes no second commit, so the same call can be made again after any failure. The commit
    names the head it was made for: if another comes in between it is refused.

    Args:
        repo_id: `ORG/NAME`; made if it does not exist.
        release: What to publish.
        api: The client, which holds endpoint and login.
        private: Make a new repository private; an existing public one is refused.
        tag: Name of the tag to put on the commit.

    Raises:
        PublishError: If a step fails, or the tag is on other content. Before the commit nothing of the upload is to be
            seen; a failed tag leaves a whole commit without one.
    """
    with _step(api, f"read what is at {repo_id}"):
        head, is_private, names = _head(api, repo_id)
        tagged = _tagged(api, repo_id, tag) if head and tag else ""
        at_tag = _changes(api, repo_id, release, revision=tagged) if tagged else []
    if head and private and not is_private:
        raise PublishError(f"{repo_id} is public; make it private in its settings or leave --private out")
    if MANIFEST_NAME in names and MANIFEST_NAME not in release.files:
        raise PublishError(f"{repo_id} holds sets, which this would take the place of; name another repository")
    if at_tag:
        raise PublishError(f"{repo_id}: tag {tag} is on other content ({tagged}); publish under a new tag")
    if tagged:
        return tagged
    if not head:
        with _step(api, f"create {repo_id}"):
            api.create_repo(repo_id, repo_type="dataset", private=private)
            head, *_ = _head(api, repo_id)
    with _step(api, f"commit to {repo_id}"):
        changes = _changes(api, repo_id, release, revision=head)
        if changes:
            head = _commit(api, repo_id, release, changes=changes, parent=head)
    if tag:
        with _step(api, f"tag commit {head} of {repo_id} as {tag}"):
            api.create_tag(repo_id, tag=tag, revision=head, repo_type="dataset")
    return head


def describe(repo_id: str, release: Release, *, private: bool, tag: str | None) -> str:
    """All that publishing would do, as text: the place, every file with hash and size, the card and eval.yaml."""
    files = release.files
    where = f"{'private' if private else 'public'} dataset {repo_id}, {f'tag {tag}' if tag else 'no tag'}"
    sets = [
        f"{m.name}: {m.n} rows, generator {m.generator}, content {m.content_sha256}" for m in release.manifests.values()
    ]
    listing = [f"{_sha256(content)} {_size(content):>10} {path}" for path, content in sorted(files.items())]
    texts = [
        text
        for path in ("README.md", "eval.yaml")
        if path in files
        for text in (f"\n--- {path}", _bytes(files[path]).decode())
    ]
    return "\n".join([f"one commit to {where}", *sets, *listing, *texts])


def add_parser(subparsers: Any) -> None:
    """Add the `publish` command to those of `halo-dataset`."""
    parser = subparsers.add_parser("publish", help="publish sets as one Hub repository, in one commit")
    parser.add_argument("repository", type=repository_name, metavar="ORG/NAME")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--tag", type=tag_name, help="tag to put on the commit, such as v1.0.0")
    parser.add_argument("--dry-run", action="store_true", help="show what would be published, without network")
    parser.add_argument("--sets", nargs="+", metavar="SET", default=list(SETS), help="sets to publish (default: all)")
    parser.add_argument(
        "--folder", type=Path, help="build the sets here, or take those that are here (default: a temporary folder)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the `publish` command: write the SHA to pin to stdout, or with --dry-run what would be published."""
    repo_id, private, tag = arguments.repository, arguments.private, arguments.tag
    # Before the sets are built, which takes longer.
    api = None if arguments.dry_run else log_in(repo_id)
    with nullcontext(arguments.folder) if arguments.folder else _temporary_folder() as folder:
        release = make_release(Path(folder), arguments.sets, repo_id=repo_id, progress=sys.stderr.isatty())
        if api is None:
            result = describe(repo_id, release, private=private, tag=tag)
        else:
            result = publish(repo_id, release, api=api, private=private, tag=tag)
    sys.stdout.write(result + "\n")
    return 0


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="halo-publish-")
    except OSError as error:
        raise DatasetSourceError(
            f"no temporary folder can be made ({error.strerror or error}); set TMPDIR to one that can be written, "
            "or give --folder"
        ) from error


def repository_name(text: str) -> str:
    """An argument of the command line that names a repository."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no repository; give ORG/NAME")
    return text


def tag_name(text: str) -> str:
    """An argument of the command line that names a tag."""
    if not re.fullmatch(r"\w[\w.+-]*", text, re.ASCII) or text.endswith((".", ".lock")) or ".." in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a tag; give one such as v1.0.0")
    return text


def log_in(repo_id: str) -> HfApi:
    """A client of the Hub that is logged in, and quiet about what it does.

    Args:
        repo_id: What it is for.

    Raises:
        PublishError: If there is no login, or the Hub refuses it.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # A line for every new try of a request would hide the one of the failure.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api = HfApi()
    token = get_token() or ""
    # A header with such characters fails with a message that repeats it.
    if not (token.isascii() and token.isprintable()):
        raise PublishError(
            f"could not log in to publish {repo_id}: the token is not printable ASCII; set HF_TOKEN anew"
        )
    with _step(api, f"log in to publish {repo_id}"):
        api.whoami()
    return api


def _head(api: HfApi, repo_id: str) -> tuple[str, bool, tuple[str, ...]]:
    """The SHA at the head of a repository, whether it is private, and its files; empty where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.dataset_info(repo_id)
    except RepositoryNotFoundError:
        return "", False, ()
    return info.sha or "", bool(info.private), tuple(file.rfilename for file in info.siblings or ())


def _tagged(api: HfApi, repo_id: str, tag: str) -> str:
    """The SHA that a tag is on; empty where there is no such tag."""
    tags = api.list_repo_refs(repo_id, repo_type="dataset").tags
    return next((ref.target_commit for ref in tags if ref.name == tag), "")


def _changes(api: HfApi, repo_id: str, release: Release, *, revision: str) -> list[str]:
    """Paths to add, replace or delete for the content at a revision to be that of the release."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type="dataset")
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    files = release.files
    stale = [path for path in there if path.startswith(_OWNED_FOLDERS) and path not in files]
    new = [path for path, content in files.items() if path not in there or not _is_same(content, there[path])]
    if MANIFEST_NAME not in new:
        # Another version of pyarrow writes other bytes for the same rows, and the content is the rows.
        new = [path for path in new if path not in there or not _has_same_rows(api, repo_id, release, path, revision)]
    return sorted(new + stale)


def _has_same_rows(api: HfApi, repo_id: str, release: Release, path: str, revision: str) -> bool:
    if not path.endswith(".parquet"):
        return False
    other = api.hf_hub_download(repo_id, path, repo_type="dataset", revision=revision)
    return holds_same_rows(release, path, Path(other))


def _is_same(content: Path | bytes, there: RepoFile) -> bool:
    if there.lfs:
        return _sha256(content) == there.lfs.sha256
    data = _bytes(content)
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == there.blob_id


def _bytes(content: Path | bytes) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit(api: HfApi, repo_id: str, release: Release, *, changes: list[str], parent: str) -> str:
    """One commit, whatever the number of files: `upload_folder` splits many over several."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations = [
        CommitOperationAdd(path, release.files[path]) if path in release.files else CommitOperationDelete(path)
        for path in changes
    ]
    message = f"Publish {release.title or ', '.join(release.manifests)}"
    made = api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset", parent_commit=parent)
    return made.oid


@contextmanager
def _step(api: HfApi, what: str) -> Iterator[None]:
    """Turn what the client raises during a step into one line that says the step, the reason and what to do."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, by its version

    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise PublishError(f"could not {what}: {_reason(error, token=api.token)}") from error


def _reason(error: BaseException, *, token: str | bool | None) -> str:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _reason(error.__cause__, token=token)  # the client's upload threads wrap what happened
    if isinstance(error, LocalTokenNotFoundError):
        return "no login was found; run `hf auth login` or set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"HTTP {status}: {_REASONS.get(status) or message_of(error.server_message or error, token=token)}"
    message = message_of(error, token=token)
    if isinstance(error, (KeyError, TypeError)):
        return f"the Hub's answer is not understood ({type(error).__name__}: {message}); check HF_ENDPOINT"
    if isinstance(error, (HTTPError, ConnectionError)):
        return f"the connection failed ({message}); run the same command again, what has arrived is not sent twice"
    return message
