"""A local stand-in for the Hugging Face Hub, so that tests drive the real client code offline.

It speaks what huggingface_hub 2.4 asks of the Hub for model repositories. Contents are kept in
`folder/objects/<sha256>`, each commit as a manifest `folder/repos/<id>/<commit>.json`. A call it
does not know is answered 501, so that a new one is noticed, not guessed at.

    with hub_server(tmp_path) as hub:
        hub.run('from huggingface_hub import create_repo; create_repo("tester/model")')
        hub.repo_files("tester/model")
"""

import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_USER = "tester"
# The caller's own variables would lead a test to the user's cache, token or settings.
_FOREIGN_VARIABLES = ("HF_", "HUGGINGFACE_", "DIFFUSERS_", "TRANSFORMERS_")


# Status, content, headers.
Reply = tuple[int, bytes, dict[str, str]]


class Refusal(Exception):
    """An error answer; the client turns the X-Error-Code `code` into its exception."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "") -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
        named = {name: value for name, value in headers.items() if value}
        self.reply: Reply = (status, json.dumps({"error": message}).encode(), named)


@dataclass(frozen=True)
class Request:
    """One HTTP request, body complete; `query` as `parse_qs` gives it."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    token: str


@dataclass(frozen=True)
class Blob:
    """One file of a commit; `oid` is git's name of its content (of the pointer, if LFS)."""

    sha256: str
    size: int
    oid: str
    lfs: bool

    def describe(self, oid: str, sha256: str) -> dict[str, Any]:
        """Return the client's JSON, whose names for the two hashes differ between calls."""
        lfs = {"lfs": {sha256: self.sha256, "size": self.size, "pointerSize": 134}}
        return {oid: self.oid, "size": self.size, **(lfs if self.lfs else {})}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """The running server.

    Attributes:
        folder: Where it stores.
        url: Its address.
        requests: (method, path) so far.
        gated: Repositories whose files may not be read.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.requests: list[tuple[str, str]] = []
        self.gated: set[str] = set()
        self._lock = threading.Lock()
        self._signatures: dict[str, str] = {}

    def environment(self, hf_home: Path) -> dict[str, str]:
        """Return the variables a process needs before it imports huggingface_hub."""
        client = {"HF_ENDPOINT": self.url, "HF_HOME": str(hf_home), "HF_TOKEN": "hf_test"}
        switches = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return client | switches | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def run(
        self, source: str, *, hf_home: Path | None = None, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run Python source in a process that has this server for its Hub.

        Args:
            source: The script.
            hf_home: The client's cache; one beside the server's repositories if None.
            timeout: In seconds.

        Raises:
            AssertionError: If the script exits non-zero; it says what came on stderr.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN_VARIABLES)}
        environment = kept | self.environment(hf_home or self.folder / "hf_home")
        command = [sys.executable, "-c", source]
        options = {"capture_output": True, "text": True, "timeout": timeout}
        done = subprocess.run(command, env=environment, **options)
        assert done.returncode == 0, f"the script exited {done.returncode}:\n{done.stderr}"
        return done

    def repo_files(self, repo_id: str) -> dict[str, bytes]:
        """Return path → content of a repository's main branch; `Refusal` if there is none."""
        files = self._files(repo_id, self._resolve(repo_id, "main"))
        return {path: self._object(blob.sha256).read_bytes() for path, blob in files.items()}

    def answer(self, request: Request) -> Reply:
        """Answer one request at a time, as a commit reads what it then writes."""
        with self._lock:
            self.requests.append((request.method, unquote(request.path)))
            try:
                reply = self._dispatch(request)
            except Refusal as refusal:
                return refusal.reply
            except (KeyError, ValueError) as error:
                return Refusal(400, f"malformed request: {error!r}").reply
        return reply if isinstance(reply, tuple) else (200, json.dumps(reply).encode(), {})

    def _dispatch(self, request: Request) -> Any:
        for method, pattern, handler in _ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method.replace("HEAD", "GET"):
                if method == "POST" and not request.token:
                    raise Refusal(401, "Invalid username or password.")
                return handler(self, request, *(unquote(value or "") for value in found.groups()))
        raise Refusal(501, f"the stand-in does not know {request.method} {request.path}")

    # Storage

    def _object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def _store(self, content: bytes) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        self._object(sha256).write_bytes(content)
        return Blob(sha256, len(content), _git_oid(content), lfs=False)

    def _stored_lfs(self, sha256: str, size: int) -> Blob:
        stored = self._object(sha256)
        if not stored.is_file() or stored.stat().st_size != size:
            raise Refusal(400, f"no LFS object {sha256} of {size} bytes was uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return Blob(sha256, size, _git_oid(pointer.encode()), lfs=True)

    def _resolve(self, repo_id: str, revision: str) -> str:
        folder = self.folder / "repos" / repo_id
        if not (folder / "main").is_file():
            raise Refusal(404, "Repository not found", "RepoNotFound")
        commit = (folder / "main").read_text() if revision in ("", "main") else revision
        if not (folder / f"{commit}.json").is_file():
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _files(self, repo_id: str, commit: str) -> dict[str, Blob]:
        manifest = json.loads((self.folder / "repos" / repo_id / f"{commit}.json").read_text())
        return {path: Blob(**blob) for path, blob in manifest["files"].items()}

    def _write_commit(self, repo_id: str, files: dict[str, Blob], **header: str) -> str:
        folder = self.folder / "repos" / repo_id
        content = json.dumps({**header, "files": {p: asdict(files[p]) for p in sorted(files)}})
        commit = hashlib.sha1(content.encode()).hexdigest()
        (folder / f"{commit}.json").write_text(content)
        (folder / "main").write_text(commit)
        return commit

    # Writing

    def _create(self, request: Request) -> Any:
        asked = json.loads(request.body)
        repo_id = f"{asked['organization'] or _USER}/{asked['name']}"
        url = {"url": f"{self.url}/{repo_id}"}
        if (self.folder / "repos" / repo_id).exists():
            # The client reads the address from the refusal too.
            conflict = json.dumps(url | {"error": "You already created this model repo"})
            return 409, conflict.encode(), {}
        (self.folder / "repos" / repo_id).mkdir(parents=True)
        self._write_commit(repo_id, {}, summary="initial commit")
        return url

    def _validate_yaml(self, request: Request) -> Any:
        content = json.loads(request.body)["content"]
        block = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
        try:
            if isinstance(yaml.safe_load(block[1]) if block else {}, dict | None):
                return {"errors": [], "warnings": []}
            problem = "the metadata is not a mapping"
        except yaml.YAMLError as error:
            problem = str(error)
        return 400, json.dumps({"errors": [{"message": problem}]}).encode(), {}

    def _preupload(self, request: Request, repo_id: str, revision: str) -> Any:
        files = self._files(repo_id, self._resolve(repo_id, revision))
        answers = []
        for asked in json.loads(request.body)["files"]:
            # The Hub decides by .gitattributes and content; a NUL byte is git's own sign of binary.
            binary = b"\0" in base64.b64decode(asked["sample"]) or asked["size"] > 10_000_000
            blob = files.get(asked["path"])
            oid = blob and (blob.sha256 if blob.lfs else blob.oid)
            mode = {"uploadMode": "lfs" if binary else "regular", "shouldIgnore": False}
            answers.append({"path": asked["path"], "oid": oid, **mode})
        return {"files": answers}

    def _lfs_batch(self, request: Request, repo_id: str) -> Any:
        self._resolve(repo_id, "main")
        answers = []
        for asked in json.loads(request.body)["objects"]:
            answers.append({"oid": asked["oid"], "size": asked["size"]})
            if not self._object(asked["oid"]).is_file():
                # The upload itself carries no token: as on the Hub, its address is the permission.
                signature = secrets.token_hex(8)
                self._signatures[signature] = asked["oid"]
                upload = {"href": f"{self.url}/storage/{asked['oid']}?signature={signature}"}
                verify = {"href": f"{self.url}/{repo_id}.git/info/lfs/objects/verify"}
                answers[-1]["actions"] = {"upload": upload, "verify": verify}
        return {"transfer": "basic", "objects": answers}

    def _lfs_put(self, request: Request, sha256: str) -> Any:
        if self._signatures.get(request.query.get("signature", [""])[0]) != sha256:
            raise Refusal(403, "this upload was not announced in an LFS batch")
        if hashlib.sha256(request.body).hexdigest() != sha256:
            raise Refusal(400, f"the uploaded content does not have sha256 {sha256}")
        self._store(request.body)
        return {}

    def _lfs_verify(self, request: Request, repo_id: str) -> Any:
        asked = json.loads(request.body)
        return asdict(self._stored_lfs(asked["oid"], asked["size"]))

    def _commit(self, request: Request, repo_id: str, revision: str) -> Any:
        if revision != "main" or "create_pr" in request.query:
            raise Refusal(501, "the stand-in has no branches and no pull requests")
        parent = self._resolve(repo_id, revision)
        files = self._files(repo_id, parent)
        header, *lines = [json.loads(line) for line in request.body.splitlines()]
        if header["value"].get("parentCommit", parent) != parent:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        for line in lines:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "file":
                files[path] = self._store(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                files[path] = self._stored_lfs(value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                del files[path]
            else:
                raise Refusal(501, f"the stand-in does not know the commit line {line['key']}")
        summary = header["value"]["summary"]
        commit = self._write_commit(repo_id, files, parent=parent, summary=summary)
        return {"commitOid": commit, "commitUrl": f"{self.url}/{repo_id}/commit/{commit}"}

    # Reading

    def _info(self, request: Request, repo_id: str, revision: str) -> Any:
        commit = self._resolve(repo_id, revision)
        siblings: list[dict[str, Any]] = []
        for path, blob in self._files(repo_id, commit).items():
            details = blob.describe("blobId", "sha256") if "blobs" in request.query else {}
            siblings.append({"rfilename": path, **details})
        values = {"sha": commit, "private": False, "tags": [], "siblings": siblings}
        wanted = request.query.get("expand", list(values))
        return {"id": repo_id} | {key: value for key, value in values.items() if key in wanted}

    def _tree(self, request: Request, repo_id: str, revision: str, path: str) -> Any:
        recursive = request.query.get("recursive", [""])[0].lower() == "true"
        prefix = f"{path}/" if path else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, blob in self._files(repo_id, self._resolve(repo_id, revision)).items():
            child = prefix + name.removeprefix(prefix).split("/")[0]
            if name.startswith(prefix) and (recursive or child == name):
                entries[name] = {"type": "file", "path": name, **blob.describe("oid", "oid")}
            elif name.startswith(prefix):
                entries[child] = {"type": "directory", "path": child, "oid": "0" * 40}
        if path and not entries:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        return list(entries.values())

    def _download(self, request: Request, repo_id: str, revision: str, path: str) -> Any:
        commit = self._resolve(repo_id, revision)
        if repo_id in self.gated:
            raise Refusal(403, f"Access to model {repo_id} is restricted.", "GatedRepo")
        blob = self._files(repo_id, commit).get(path)
        if blob is None:
            # The client remembers under this commit that the file is missing.
            raise Refusal(404, "Entry not found", "EntryNotFound", commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.oid}"'}
        if blob.lfs:
            headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        return 200, self._object(blob.sha256).read_bytes(), headers


_ID = r"((?:[\w-][\w.-]*/)?[\w-][\w.-]*)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", "/api/repos/create", HubServer._create),
    ("POST", "/api/validate-yaml", HubServer._validate_yaml),
    ("POST", rf"/api/models/{_ID}/preupload/([^/]+)", HubServer._preupload),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", HubServer._lfs_batch),
    ("PUT", "/storage/([0-9a-f]{64})", HubServer._lfs_put),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/verify", HubServer._lfs_verify),
    ("POST", rf"/api/models/{_ID}/commit/([^/]+)", HubServer._commit),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)(?:/(.+))?", HubServer._tree),
    ("GET", rf"/api/models/{_ID}(?:/revision/([^/]+))?", HubServer._info),
    ("GET", rf"/{_ID}/resolve/([^/]+)/(.+)", HubServer._download),
]


class _Handler(BaseHTTPRequestHandler):
    """Carries a request to `hub` and the answer back."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def _handle(self) -> None:
        url = urlsplit(self.path)
        token = self.headers.get("Authorization", "").partition("Bearer ")[2].strip()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, url.path, parse_qs(url.query), body, token)
        status, content, headers = self.hub.answer(request)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: `HubServer.requests` is the log."""

    do_GET = do_HEAD = do_POST = do_PUT = _handle


@contextmanager
def hub_server(folder: Path) -> Iterator[HubServer]:
    """Serve a Hub that stores its repositories in `folder`, on a free port of this machine."""
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    handler = type("_BoundHandler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        handler.hub = HubServer(folder, f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield handler.hub
        finally:
            http.shutdown()
            thread.join()
