"""Questions from the hub: only from a pinned commit, through the client that everyone uses, network or not."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cvqa_files import parquet, row, shade

from m4rag.datasets.sources import HubAddress, Source, find, hub_address
from m4rag.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = f"hf://datasets/owner/cvqa@{COMMIT}"

pytest.importorskip("huggingface_hub")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The files of the commit."""
    parquet(tmp_path / "hub" / "data" / "test-00000-of-00002.parquet", row(ID="1_0", image=shade(1)))
    parquet(tmp_path / "hub" / "data" / "test-00001-of-00002.parquet", row(ID="2_0", image=shade(2)))
    parquet(tmp_path / "hub" / "other" / "dev.parquet", row(ID="9_0", image=shade(9), Label=-1))
    (tmp_path / "hub" / "setup.py").write_text("raise SystemExit('never fetched')")
    return tmp_path / "hub"


@pytest.fixture
def hub(served: Path) -> Iterator[str]:
    """A server that speaks as much of the hub's protocol as the client asks for one commit of one dataset."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            files = sorted(str(file.relative_to(served)) for file in served.rglob("*") if file.is_file())
            resolve = f"/datasets/owner/cvqa/resolve/{COMMIT}/"
            if path == f"/api/datasets/owner/cvqa/revision/{COMMIT}":
                listed = [{"rfilename": name} for name in files]
                self.send(json.dumps({"id": "owner/cvqa", "sha": COMMIT, "siblings": listed}).encode(), body)
            elif path.startswith(f"/api/datasets/owner/cvqa/tree/{COMMIT}"):
                tree = [
                    {"type": "file", "path": name, "size": (served / name).stat().st_size, "oid": digest(served / name)}
                    for name in files
                ]
                self.send(json.dumps(tree).encode(), body)
            elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                file = served / path.removeprefix(resolve)
                self.send(file.read_bytes(), body, ETag=f'"{digest(file)}"')
            else:
                code = "RevisionNotFound" if "/owner/cvqa/" in path else "RepoNotFound"
                self.send(b"{}", body, 404, **{"X-Error-Code": code})

        def send(self, data: bytes, body: bool, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"X-Repo-Commit": COMMIT} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def m4rag(tmp_path: Path) -> Run:
    """Run the command line in a process of its own: the client reads its settings when it is imported."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        ours = {"M4RAG_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-m", "m4rag.cli", *arguments],
            env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **ours, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def refused(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1, done.stderr
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def test_a_pinned_commit_is_fetched_prepared_and_named_by_the_manifest(m4rag: Run, hub: str, tmp_path: Path) -> None:
    prepare = ("data", "prepare", "--dataset", "cvqa", "--items", f"{ADDRESS}/data", "--json")
    done = m4rag(*prepare, HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["varieties"], report["images"]) == (4, 2, 2)
    manifest = json.loads((Path(report["folder"]) / "manifest.json").read_text())
    assert manifest["config"]["source"] == {"repository": "owner/cvqa", "revision": COMMIT, "path": "data"}
    fetched = {path.name for path in (tmp_path / "hf").rglob("*") if path.is_symlink() or path.is_file()}
    assert "test-00001-of-00002.parquet" in fetched
    assert not {"dev.parquet", "setup.py"} & fetched
    offline = m4rag(*prepare, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout) == report


def test_the_whole_commit_is_read_where_no_folder_is_named(m4rag: Run, hub: str) -> None:
    refused(
        m4rag("data", "prepare", "--dataset", "cvqa", "--items", ADDRESS, HF_ENDPOINT=hub),
        4,
        "dev.parquet row 0 (9_0-en): labels withheld (-1)",
    )


def test_what_the_hub_does_not_have_is_one_line(m4rag: Run, hub: str) -> None:
    check = ("data", "check", "--dataset", "cvqa", "--items")
    refused(m4rag(*check, ADDRESS.replace("owner", "nobody"), HF_ENDPOINT=hub), 2, "the hub has no such dataset")
    refused(m4rag(*check, ADDRESS.replace("0123", "4567"), HF_ENDPOINT=hub), 2, "the hub has no such dataset or commit")
    refused(m4rag(*check, f"{ADDRESS}/nowhere", HF_ENDPOINT=hub), 2, "no 'nowhere' in this commit")


def test_no_network_is_one_line(m4rag: Run) -> None:
    check = ("data", "check", "--dataset", "cvqa", "--items", ADDRESS)
    refused(m4rag(*check, HF_HUB_OFFLINE="1"), 3, "owner/cvqa@0123456789ab: the dataset cannot be fetched")
    refused(m4rag(*check, HF_ENDPOINT="http://127.0.0.1:9"), 3, "the dataset cannot be fetched")


def test_a_fetch_without_the_client_names_the_remedy(m4rag: Run, tmp_path: Path) -> None:
    (tmp_path / "without" / "huggingface_hub").mkdir(parents=True)
    (tmp_path / "without" / "huggingface_hub" / "__init__.py").write_text("raise ImportError('absent')\n")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    done = m4rag("data", "check", "--dataset", "cvqa", "--items", ADDRESS, PYTHONPATH=path)
    refused(done, 3, "huggingface_hub is not installed. pip install huggingface-hub")


@pytest.mark.parametrize(
    "revision", ["", "@", "@main", "@v1.1", "@0123456", f"@{COMMIT[:-1]}", f"@{COMMIT}0", f"@{COMMIT.upper()}"]
)
def test_m4rag_fault_21_a_revision_that_can_move_is_refused(revision: str) -> None:
    with pytest.raises(UsageError, match=r"is not a commit.*Pin one: 40 hex digits"):
        hub_address(Path(f"hf://datasets/owner/cvqa{revision}"))


@pytest.mark.parametrize(
    "address", ["hf://owner/cvqa", f"hf://datasets/cvqa@{COMMIT}", f"{ADDRESS}/../../x", f"{ADDRESS}/a/../b", "hf:x/y"]
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    if address == "hf:x/y":
        assert hub_address(Path(address)) is None
        return
    with pytest.raises(UsageError, match="not an address of a dataset"):
        hub_address(Path(address))


def test_addresses_survive_being_read_as_paths(tmp_path: Path) -> None:
    assert hub_address(Path(ADDRESS)) == HubAddress("owner/cvqa", COMMIT, "")
    assert hub_address(Path(f"{ADDRESS}/data/test.parquet")) == HubAddress("owner/cvqa", COMMIT, "data/test.parquet")
    assert hub_address(tmp_path) is None
    assert find(tmp_path) == Source(tmp_path, tmp_path)
    assert find(tmp_path / "a.parquet") == Source(tmp_path / "a.parquet", tmp_path)
