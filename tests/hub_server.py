"""A Hub on 127.0.0.1: enough of its HTTP API for the real huggingface_hub and datasets clients, kept in memory.

It speaks login, create, preupload, LFS (batch, PUT, verify), validate-yaml, commit (ndjson), tag, refs, commits, tree and
resolve with ranges. Content is addressed as git and LFS address it, so the clients' own comparisons of
hashes work. `Hub.fault` is asked before every request what shall go wrong with it.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal["drop", "drop_after"]
"""What goes wrong: the connection closes before the work, or after it and before the answer."""

USER, TOKEN, FOREIGN_TOKEN = "ada", "hf_localtesttokenlocaltesttoken", "hf_someoneelsessomeoneelses"
"""The user `ada` may write to her own namespace; the foreign token is a good login that may write nowhere here."""

_DATE = "2024-01-01T00:00:00.000Z"
_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/datasets/{_REPO}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("POST", rf"/api/datasets/{_REPO}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"/api/datasets/{_REPO}/tag/(?P<rev>[^/]+)", "tag"),
    ("GET", rf"/api/datasets/{_REPO}/refs", "refs"),
    ("GET", rf"/api/datasets/{_REPO}/commits/(?P<rev>[^/]+)", "commits"),
    ("GET", rf"/api/datasets/{_REPO}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"/api/datasets/{_REPO}(?:/revision/(?P<rev>[^/]+))?", "info"),
    ("GET", rf"/datasets/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]
_LISTS = ("language", "task_categories", "size_categories", "annotations_creators", "source_datasets", "tags")
_WRITES = {"create", "preupload", "lfs_batch", "commit", "tag"}


@dataclass(frozen=True)
class Blob:
    """A file of a commit; `lfs` says that git holds only its pointer."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        size = len(self.data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n"
        stored = pointer.encode() if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass(frozen=True)
class Commit:
    """One commit: its parent's id, its title and all its files by path."""

    parent: str
    title: str
    files: dict[str, Blob]

    @property
    def oid(self) -> str:
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(self.files.items()))
        return hashlib.sha1(f"{self.parent}\n{self.title}\n{listing}".encode()).hexdigest()


@dataclass
class Repo:
    """A dataset repository: its commits, oldest first, and where its tags point."""

    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)


class HubError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class Hub:
    """The state of the server, and the hook that decides what fails.

    Attributes:
        fault: Called with the step's name before each request; returns what shall go wrong, or None, or raises a
            HubError to answer with.
        steps: The names of the steps asked for so far, in order.
        ranges: The Range headers of the downloads so far, in order.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[str], Fault | None] = lambda _step: None
    steps: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail_at(self, step: str, fault: Fault = "drop", *, times: int = 1_000_000) -> None:
        """Make the next requests for a step go wrong."""
        left = [times]

        def hook(asked: str) -> Fault | None:
            if asked != step or not left[0]:
                return None
            left[0] -= 1
            return fault

        self.fault = hook

    def heal(self) -> None:
        """Let all requests succeed again."""
        self.fault = lambda _step: None

    def repo(self, name: str, user: str | None) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and user != name.partition("/")[0]):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def commit_at(self, repo: Repo, revision: str | None) -> Commit:
        revision = unquote(revision or "main").removeprefix("refs/tags/")
        if revision == "main":
            return repo.commits[-1]
        wanted = repo.tags.get(revision, revision)
        found = [commit for commit in repo.commits if commit.oid == wanted]
        if not found:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def whoami(self, call: SimpleNamespace) -> Any:
        if call.user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return {"type": "user", "name": call.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def create(self, call: SimpleNamespace) -> Any:
        name = f"{call.json.get('organization') or call.user}/{call.json['name']}"
        if name in self.repos:
            raise HubError(409, "You already created this dataset repo")
        private = bool(call.json.get("private")) or call.json.get("visibility") == "private"
        first = Commit("", "initial commit", {".gitattributes": Blob(b"*.parquet\n", lfs=False)})
        self.repos[name] = Repo(private, [first])
        return {"url": f"{self.url}/datasets/{name}", "name": name}

    def validate(self, call: SimpleNamespace) -> Any:
        errors = card_errors(call.json["content"])
        if errors:
            raise HubError(400, "; ".join(errors))
        return {"errors": [], "warnings": []}

    def preupload(self, call: SimpleNamespace) -> Any:
        head = self.commit_at(call.repo, call.rev).files

        def answer(path: str) -> dict[str, Any]:
            there = {"oid": head[path].sha256 if head[path].lfs else head[path].oid} if path in head else {}
            mode = "lfs" if path.endswith((".parquet", ".png")) else "regular"
            return {"path": path, "uploadMode": mode, "shouldIgnore": False, **there}

        return {"files": [answer(file["path"]) for file in call.json["files"]]}

    def lfs_batch(self, call: SimpleNamespace) -> Any:
        def answer(wanted: dict[str, Any]) -> dict[str, Any]:
            if wanted["oid"] in self.lfs:
                return wanted
            upload = {"href": f"{self.url}/lfs/{wanted['oid']}", "header": {}}
            verify = {"href": f"{self.url}/lfs/verify", "header": {}}
            return {**wanted, "actions": {"upload": upload, "verify": verify}}

        return {"transfer": "basic", "objects": [answer(wanted) for wanted in call.json["objects"]]}

    def lfs_put(self, call: SimpleNamespace) -> Any:
        if hashlib.sha256(call.body).hexdigest() != call.oid:
            raise HubError(400, "content does not match its hash")
        self.lfs[call.oid] = call.body
        return {}

    def lfs_verify(self, call: SimpleNamespace) -> Any:
        if len(self.lfs.get(call.json["oid"], b"")) != call.json["size"]:
            raise HubError(404, "object not uploaded")
        return {}

    def commit(self, call: SimpleNamespace) -> Any:
        head = call.repo.commits[-1]
        lines = [json.loads(line) for line in call.body.splitlines()]
        title, files = "", dict(head.files)
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit", head.oid) != head.oid:
                    raise HubError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile" and value["oid"] in self.lfs:
                files[value["path"]] = Blob(self.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                raise HubError(400, f"cannot {key} {value.get('path')}")
        call.repo.commits.append(Commit(head.oid, title, files))
        oid = call.repo.commits[-1].oid
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/datasets/{call.name}/commit/{oid}"}

    def tag(self, call: SimpleNamespace) -> Any:
        if call.json["tag"] in call.repo.tags:
            raise HubError(409, "Reference already exists")
        call.repo.tags[call.json["tag"]] = self.commit_at(call.repo, call.rev).oid
        return {}

    def refs(self, call: SimpleNamespace) -> Any:
        def ref(kind: str, name: str, target: str) -> dict[str, str]:
            return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": target}

        heads = [ref("heads", "main", call.repo.commits[-1].oid)]
        return {"branches": heads, "converts": [], "tags": [ref("tags", *tag) for tag in call.repo.tags.items()]}

    def commits(self, call: SimpleNamespace) -> Any:
        last = call.repo.commits.index(self.commit_at(call.repo, call.rev))
        newest_first = call.repo.commits[last::-1]
        return [{"id": c.oid, "title": c.title, "message": "", "date": _DATE, "authors": []} for c in newest_first]

    def info(self, call: SimpleNamespace) -> Any:
        at = self.commit_at(call.repo, call.rev)
        siblings = [{"rfilename": path} for path in sorted(at.files)]
        about = {"private": call.repo.private, "gated": False, "disabled": False, "tags": [], "lastModified": _DATE}
        return {"_id": "0", "id": call.name, "sha": at.oid, "siblings": siblings, **about}

    def tree(self, call: SimpleNamespace) -> Any:
        at = self.commit_at(call.repo, call.rev)
        prefix = f"{call.path}/" if call.path else ""
        recursive = call.query.get("recursive", ["false"])[0].lower() in {"true", "1"}
        inside = sorted(path for path in at.files if path.startswith(prefix))
        if prefix and not inside:
            raise HubError(404, f"{call.path} does not exist on {at.oid}", "EntryNotFound")
        folders = {path[: len(prefix) + m.start()] for path in inside for m in re.finditer("/", path[len(prefix) :])}
        shown = [p for p in [*sorted(folders), *inside] if recursive or "/" not in p[len(prefix) :]]
        return [self.entry(at, path) for path in shown]

    def entry(self, at: Commit, path: str) -> dict[str, Any]:
        last = {"lastCommit": {"id": at.oid, "title": at.title, "date": _DATE}}
        blob = at.files.get(path)
        if blob is None:
            oid = hashlib.sha1(path.encode()).hexdigest()
            return {"type": "directory", "path": path, "oid": oid, "size": 0, **last}
        size = len(blob.data)
        lfs = {"lfs": {"oid": blob.sha256, "size": size, "pointerSize": 130}} if blob.lfs else {}
        return {"type": "file", "path": path, "oid": blob.oid, "size": size, **lfs, **last}

    def resolve(self, call: SimpleNamespace) -> Any:
        at = self.commit_at(call.repo, call.rev)
        if call.path not in at.files:
            raise HubError(404, "Entry not found", "EntryNotFound")
        blob = at.files[call.path]
        etag = blob.sha256 if blob.lfs else blob.oid
        linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(blob.data))} if blob.lfs else {}
        call.headers_out = {"X-Repo-Commit": at.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", **linked}
        if not call.range:
            return blob.data
        self.ranges.append(call.range)
        first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", call.range).groups()
        size = len(blob.data)
        start = int(first) if first else size - int(last)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= size:
            raise HubError(416, "Range Not Satisfiable")
        call.status = 206
        call.headers_out["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return blob.data[start:stop]


def card_errors(card: str) -> list[str]:
    """What the Hub would refuse in a dataset card's metadata, as far as this project uses it; no YAML parser needed."""
    header = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if header is None:
        return ["empty or missing yaml metadata"]
    wrong = [key for key in _LISTS if not re.search(rf"^{key}:(\n- | \[)", header[1], re.MULTILINE)]
    wrong += [key for key in ("license", "pretty_name") if not re.search(rf"^{key}: [^\s[]", header[1], re.MULTILINE)]
    errors = [f"{key} is of the wrong type" for key in wrong]
    return errors + ["more than one default config"] * (header[1].count("default: true") > 1)


class _Handler(BaseHTTPRequestHandler):
    """Routes a request to the method of `Hub` named as its step."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do(self) -> None:
        hub: Hub = self.server.hub
        url, body = urlsplit(self.path), self.read_body()
        step, groups = next(
            (
                (step, match.groupdict())
                for method, pattern, step in _ROUTES
                if (match := re.fullmatch(pattern, url.path)) and method == self.command.replace("HEAD", "GET")
            ),
            ("unknown", {}),
        )
        with hub.lock:
            hub.steps.append(step)
            fault, status, headers, answer = None, 200, {}, b""
            try:
                fault = hub.fault(step)
                if fault != "drop":
                    call = self.read_call(hub, step, body, groups)
                    answer = getattr(hub, step)(call)
                    status, headers = call.status, call.headers_out
            except HubError as error:
                status, answer = error.status, {"errors": [{"message": error.message}]}
                headers = {"X-Error-Message": error.message, **({"X-Error-Code": error.code} if error.code else {})}
        if fault:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.answer(status, headers, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do  # noqa: N815 (the names that http.server looks for)

    def read_call(self, hub: Hub, step: str, body: bytes, groups: dict[str, str | None]) -> SimpleNamespace:
        """What a step needs to know of a request; refuses who may not make it."""
        if step == "unknown":
            raise HubError(404, "no such route")
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = {TOKEN: USER, FOREIGN_TOKEN: "eve"}.get(sent)
        if sent and user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        is_json = "json" in self.headers.get("Content-Type", "") and "ndjson" not in self.headers["Content-Type"]
        content = json.loads(body) if is_json and body else None
        name = groups.get("repo") or (f"{content.get('organization') or user}/" if step == "create" else "")
        if step in _WRITES and user != name.partition("/")[0]:
            raise HubError(403 if user else 401, f"You don't have the rights to write to {name}")
        return SimpleNamespace(
            user=user,
            json=content,
            body=body,
            name=name,
            repo=hub.repo(name, user) if "repo" in groups else None,
            rev=groups.get("rev"),
            path=unquote(groups.get("path") or ""),
            oid=groups.get("oid"),
            query=parse_qs(urlsplit(self.path).query),
            range=self.headers.get("Range"),
            status=200,
            headers_out={},
        )

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, headers: dict[str, str], content: Any) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(payload))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Keep the access log off the test's output."""


@contextmanager
def serve() -> Iterator[Hub]:
    """Run an empty Hub on a free port of 127.0.0.1 for as long as the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.hub = hub = Hub(url=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
