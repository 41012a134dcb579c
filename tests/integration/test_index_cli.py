"""`m4rag index` as a person runs it: whole processes, exit codes, one line on stderr."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_fixtures import MilvusServer, corpus, documents, free_port

from m4rag.index.store import Store
from m4rag.manifests import Manifest

COUNT = 1100


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("M4RAG_", "MILVUS_"))}
    return {**kept, "M4RAG_HOME": str(home), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "m4rag.cli", "index", *arguments]


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(home, **more),
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def answer(home: Path, *arguments: str, **more: str) -> Any:
    done = run(home, *arguments, "--json", **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ingested(home: Path, count: int, name: str = "kb", seed: int = 0) -> Path:
    return corpus(home / "corpus" / name / "documents", documents(count, seed=seed))


def only_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a failed command."""
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_way_of_an_index_from_build_to_rollback(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ingested(home, 40, "world-kb")
    built = answer(home, "build", "--channels", "bm25")
    assert (built["rows"], built["written"], built["base"]) == (40, 40, "world_kb")
    assert built["served"] == built["collection"] == f"world_kb__{built['digest'][:12]}"
    again = answer(home, "build", "--channels", "bm25")
    assert (again["collection"], again["written"]) == (built["collection"], 0)
    title = documents(40)[3].title
    found = answer(home, "search", title, "-k", "1")
    assert (found["channel"], found["hits"][0]["document_id"]) == ("bm25", "test:3")
    assert answer(home, "search", title, "--language", "en", "-k", "1")["hits"][0]["language"] == "en"
    assert answer(home, "verify", "world-kb")["ok"] is True

    shutil.rmtree(home / "corpus")
    ingested(home, 50, "world-kb", seed=1)
    newer = run(home, "build", "--channels", "bm25")
    assert "world_kb is still " in newer.stdout
    assert newer.stderr.splitlines()[-1] == "to serve it: m4rag index promote world_kb"
    assert answer(home, "promote", "world_kb")["before"] == built["collection"]
    roles = {each["collection"]: each["role"] for each in answer(home, "list")}
    assert sorted(roles.values()) == ["previous", "served"]
    assert answer(home, "rollback")["served"] == built["collection"]


def test_nothing_to_build_from_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "no corpus. Ingest one: m4rag corpus ingest." in only_error(run(home, "build"), 2)
    ingested(home, 2, "a")
    ingested(home, 2, "b")
    assert "more than one corpus. There is: a, b." in only_error(run(home, "build"), 2)
    assert "no corpus 'c'. There is: a, b." in only_error(run(home, "build", "c"), 2)
    assert "unknown encoder 'bge'. Known: minilm" in only_error(run(home, "build", "a", "--encoder", "bge"), 2)
    assert "'words' is not a list of channels" in only_error(run(home, "build", "a", "--channels", "words"), 2)
    assert "no index. Build one" in only_error(run(home, "search", "soup"), 2)


def test_an_unreachable_milvus_is_exit_3_and_one_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ingested(home, 2)
    where = f"http://127.0.0.1:{free_port()}"
    for arguments in (
        ["build", "--channels", "bm25"],
        ["search", "x"],
        ["list"],
        ["verify"],
        ["promote"],
        ["rollback"],
    ):
        line = only_error(run(home, *arguments, MILVUS_URI=where, M4RAG_MILVUS_TIMEOUT_S="2"), 3)
        assert where in line


def test_an_address_that_is_none_is_exit_2(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "milvus.sqlite: neither an address nor a path" in only_error(
        run(home, "list", MILVUS_URI="milvus.sqlite"), 2
    )


@pytest.mark.milvus_server
def test_a_server_without_bm25_is_exit_3_and_dense_works_there(tmp_path: Path, milvus_server: MilvusServer) -> None:
    home = tmp_path / "home"
    ingested(home, 20, "served_kb")
    assert "build with --channels dense" in only_error(run(home, "build", MILVUS_URI=milvus_server.uri), 3)
    built = answer(home, "build", "--channels", "dense", "--dim", "128", MILVUS_URI=milvus_server.uri)
    assert (built["encoder"], built["dim"], built["written"]) == ("minilm", 128, 20)
    assert answer(home, "verify", MILVUS_URI=milvus_server.uri)["ok"] is True


def rows_of(home: Path, collection: str) -> dict[str, dict[str, Any]]:
    with Store(str(home / "milvus.db")) as store:
        rows = store.sample(collection, ["text", "title", "lex", "dense", "chunk_no"], COUNT * 2)
        return {row["chunk_id"]: row for row in rows}


def fingerprint(folder: Path) -> frozenset[tuple[str, int]]:
    found = set()
    for path in folder.rglob("*"):
        try:
            found.add((str(path), path.stat().st_size))
        except FileNotFoundError:
            continue
    return frozenset(found)


def kill_at_a_random_moment(home: Path, arguments: Sequence[str], chance: random.Random) -> bool:
    """Kill the command some changes of its folder after it began to work; False if it ended before."""
    changes, seen = chance.randint(1, 25), fingerprint(home)
    process = subprocess.Popen(
        arguments, env=environment(home), cwd=home.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        now = fingerprint(home)
        if now != seen:
            seen, changes = now, changes - 1
        if changes == 0:
            time.sleep(chance.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    return False


@pytest.mark.timeout(900)
def test_builds_killed_at_random_moments_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    quiet, noisy = tmp_path / "quiet" / "home", tmp_path / "noisy" / "home"
    ingested(quiet, COUNT)
    shutil.copytree(quiet / "corpus", noisy / "corpus")
    undisturbed = answer(quiet, "build")

    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kills = 0
    while kills < 5:
        if kill_at_a_random_moment(noisy, command("build"), chance):
            kills += 1
        else:  # it was done before its moment came: from the beginning
            shutil.rmtree(noisy / "index")
            shutil.rmtree(noisy / "milvus.db")
    continued = answer(noisy, "build")

    assert {**continued, "embedded": 0, "written": 0} == {**undisturbed, "embedded": 0, "written": 0}
    one, other = rows_of(quiet, undisturbed["collection"]), rows_of(noisy, continued["collection"])
    assert len(one) == COUNT
    assert one.keys() == other.keys()
    for key, row in one.items():
        np.testing.assert_allclose(other[key].pop("dense"), row.pop("dense"), atol=1e-6)
        assert other[key] == row
    chunks = [Manifest.read(next((home / "index").glob("chunks-*"))) for home in (quiet, noisy)]
    assert chunks[0] == chunks[1]
