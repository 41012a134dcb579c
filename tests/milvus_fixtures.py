"""Real Milvus for tests: the embedded one, and the 2.3.5 server from PyPI for what that server supports."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m4rag.encoders import Query
from m4rag.encoders.base import passage_text, text_only, unit_vectors
from m4rag.index.lexical import words
from m4rag.index.store import Store
from m4rag.manifests import Manifest
from m4rag.schema import Chunk, Document
from m4rag.shards import write_folder

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "hack" / "milvus-server"
TIMEOUT_S = 20.0


class WordEncoder:
    """A real, deterministic encoder without a model: each word adds its own fixed direction."""

    name = "words"
    spec = "words"
    languages = None
    modalities = ("text",)
    tokenizer = None
    max_tokens = None

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.encoded = 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "words", "dim": self.dim}

    def encode_queries(self, queries: Sequence[Query]) -> np.ndarray:
        return self._encode(text_only(queries, self.name))

    def encode_passages(self, chunks: Sequence[Chunk]) -> np.ndarray:
        self.encoded += len(chunks)
        return self._encode([passage_text(chunk) for chunk in chunks])

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        return unit_vectors(np.stack([self._sum(text) for text in texts]), self.dim, self.name)

    def _sum(self, text: str) -> np.ndarray:
        total = np.zeros(self.dim)
        for word in [*words(text), "<s>"]:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
            total += np.random.default_rng(seed).normal(size=self.dim)
        return total


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class MilvusServer:
    """A running server: its address and its folder."""

    uri: str
    data: Path

    def signal(self, number: int) -> None:
        """Send a signal to the server's whole process group."""
        os.killpg(self._group, number)

    def freeze(self) -> None:
        """Stop it, and wait until every thread has stopped: those that run on another core may answer once more."""
        self.signal(signal.SIGSTOP)
        while {state for state, group in _threads() if group == self._group} - {"T", "Z", "X"}:
            time.sleep(0.01)

    @property
    def _group(self) -> int:
        return int((self.data / "server.pid").read_text())


def _threads() -> Iterator[tuple[str, int]]:
    """State and process group of every thread on this machine (proc(5))."""
    for file in Path("/proc").glob("[0-9]*/task/*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, group = file.read_text().rpartition(")")[2].split()[:3]
            yield state, int(group)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A Milvus 2.3.5 server, started once for the session."""
    named = os.environ.get("M4RAG_MILVUS_SERVER_PYTHON")
    python = Path(named) if named else REPOSITORY / ".milvus-server" / "venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("the Milvus 2.3.5 test server is not installed: make milvus-server")
    data, port = tmp_path_factory.mktemp("milvus-server"), free_port()
    subprocess.run([sys.executable, SCRIPT, "start", data, str(port)], check=True, timeout=240)
    try:
        yield MilvusServer(f"http://127.0.0.1:{port}", data)
    finally:
        subprocess.run([sys.executable, SCRIPT, "stop", data], check=True, timeout=60)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded Milvus."""
    with Store(str(tmp_path_factory.mktemp("lite") / "milvus.db"), timeout_s=TIMEOUT_S) as store:
        yield store


@pytest.fixture(scope="module")
def server(milvus_server: MilvusServer) -> Iterator[Store]:
    """The Milvus server, emptied afterwards."""
    with Store(milvus_server.uri, timeout_s=TIMEOUT_S) as store:
        yield store
        for alias in store.aliases():
            store._client.drop_alias(alias, timeout=TIMEOUT_S)
        for collection in store.collections():
            store.drop(collection)


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=pytest.mark.milvus_server)])
def store(request: pytest.FixtureRequest) -> Store:
    """The same test on both: what is asserted here holds for every Milvus. Shared by a module: use `base`."""
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def base() -> str:
    """A name that no other test uses."""
    return unused_name()


def unused_name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


SENTENCES = {
    "en": "A thick soup of {} with lime and roasted chilli.",
    "am": "{} የሚባል ጣፋጭ ምግብ በበዓል ቀን ይበላል።",
    "hi": "{} एक स्वादिष्ट व्यंजन है जो त्योहार पर बनता है।",
    "th": "{}เป็นอาหารไทยที่อร่อยมาก",
    "ja": "{}は祭りの日に食べる料理です。",
    "yo": "{} jẹ́ oúnjẹ aládùn tí a máa ń jẹ ní ọjọ́ ọdún.",
    "te": "{} పండుగ రోజున చేసే రుచికరమైన వంటకం.",
    "ar": "{} طبق لذيذ يُؤكل في يوم العيد.",
}


def documents(count: int, *, seed: int = 0) -> list[Document]:
    """Documents in eight languages, each with a name of its own."""
    languages = list(SENTENCES)
    made = []
    for number in range(count):
        language = languages[number % len(languages)]
        name = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=5).hexdigest()
        made.append(
            Document(
                document_id=f"test:{number}",
                title=f"dish {name}",
                text=SENTENCES[language].format(name),
                language=language,
                source="even" if number % 2 == 0 else "odd",
            )
        )
    return made


def corpus(folder: Path, rows: Sequence[Document]) -> Path:
    """A folder of documents as `m4rag corpus ingest` leaves it."""
    made_by = Manifest(kind="documents", command="test", inputs={"rows": str(len(rows)), "id": uuid.uuid4().hex})
    write_folder(folder, Document, rows, made_by)
    return folder
