"""How fast a corpus is read and cut, and in how much memory, beside langchain's recursive splitter.

    python benchmarks/chunking.py --mb 100                             # ours alone
    python -m venv /tmp/langchain && /tmp/langchain/bin/pip install langchain-text-splitters icu4py
    python benchmarks/chunking.py --peer-python /tmp/langchain/bin/python

The text is sentences of the packaged benchmarks (16 languages, 12 scripts) drawn into articles of 1 to 30 kB, in the
published article format. Two measurements:

    corpus    `m4rag corpus ingest`, then `chunk_corpus` on its folder, 256 tokens with an overlap of 50, on all cores:
              MB of UTF-8 text a second, and the most memory that the processes of each had together
    one core  `chunk_document` on the first `--peer-mb` of the same articles, and the peer on the same texts

The peer counts tokens by the same rule as ours in one row (256 tokens, overlap 50), and characters, its default, in the
other (1,000, overlap 200). It looks for blank lines, line ends, spaces, then cuts anywhere: Thai, Chinese or Japanese
without spaces is cut inside words. Our limit is the row `icu`: finding sentences and counting tokens once, no packing.
"""

from __future__ import annotations

import json as jsonlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from m4rag.corpus.chunker import PORTABLE, chunk_document
from m4rag.datasets import load_documents
from m4rag.processes import cores
from m4rag.schema import Document

PEER = Path(__file__).with_name("chunking_peer.py")
SAMPLE_EVERY_S = 0.1
CHUNK = (
    "import sys; from pathlib import Path; from m4rag.corpus.chunks import chunk_corpus\n"
    "if __name__ == '__main__': print(chunk_corpus(Path(sys.argv[1]), Path(sys.argv[2])).rows)"
)


def sentences() -> dict[str, list[str]]:
    """Language to sentences of the packaged documents."""
    from icu4py.breakers import SentenceBreaker

    found: dict[str, list[str]] = {}
    for document in load_documents("museum"):
        pieces = (str(piece) for piece in SentenceBreaker(document.text, document.language))
        found.setdefault(document.language, []).extend(piece.strip() for piece in pieces if piece.strip())
    return found


def articles(megabytes: int) -> Iterator[dict[str, Any]]:
    """Records of the article format with `megabytes` of text."""
    draw = random.Random(0)
    pool = sentences()
    made = number = 0
    while made < megabytes * 1_000_000:
        language = draw.choice(sorted(pool))
        size = 1_000 * 30 ** draw.random()
        paragraphs: list[str] = []
        length = 0
        while length < size:
            paragraphs.append(" ".join(draw.choices(pool[language], k=draw.randint(2, 8))))
            length += len(paragraphs[-1].encode())
        number += 1
        made += length
        yield {"id": str(number), "title": f"Article {number}", "text": "\n\n".join(paragraphs), "lang": language}


def write(path: Path, megabytes: int) -> int:
    """Bytes of text written."""
    total = 0
    with path.open("w", encoding="utf-8") as stream:
        for article in articles(megabytes):
            total += len(article["text"].encode())
            stream.write(jsonlib.dumps(article, ensure_ascii=False) + "\n")
    return total


def measured(command: list[str], home: Path) -> dict[str, float]:
    """Seconds of a command and the most memory that it and its children had together."""
    start = time.perf_counter()
    running = subprocess.Popen(command, env={**os.environ, "M4RAG_HOME": str(home)}, stdout=subprocess.DEVNULL)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLE_EVERY_S):
            most = max(most, sum(map(resident, family(running.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = running.wait()
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command[:6])} ... failed with {code}")
    return {"seconds": time.perf_counter() - start, "peak_mb": most / 1e6}


def family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(child))]


def resident(pid: int) -> int:
    """Proportional memory in bytes: what processes share is counted once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def corpus(file: Path, folder: Path, size: int) -> dict[str, dict[str, float]]:
    home = folder / "home"
    ingest = [sys.executable, "-m", "m4rag.cli", "corpus", "ingest", "--source", "articles", str(file)]
    script = folder / "chunk.py"
    script.write_text(CHUNK)
    steps = {
        "corpus ingest": ingest,
        "chunk_corpus": [sys.executable, str(script), str(home / "corpus/articles/documents"), str(folder / "chunks")],
    }
    result = {name: measured(command, home) for name, command in steps.items()}
    return {name: {**each, "mb_s": size / 1e6 / each["seconds"]} for name, each in result.items()}


def one_core(file: Path, megabytes: int) -> dict[str, float]:
    """MB a second of CPU."""
    documents, size = [], 0
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            record = jsonlib.loads(line)
            size += len(record["text"].encode())
            documents.append(
                Document(
                    document_id=record["id"],
                    title=record["title"],
                    text=record["text"],
                    language=record["lang"],
                    source="benchmark",
                )
            )
            if size > megabytes * 1_000_000:
                break
    return {"m4rag": rate(size, documents, chunk_document), "icu": rate(size, documents, breaks)}


def breaks(document: Document) -> None:
    from icu4py.breakers import SentenceBreaker

    PORTABLE.count([str(piece) for piece in SentenceBreaker(document.text, document.language)])


def rate(size: int, documents: list[Document], work: Callable[[Document], Any]) -> float:
    work(documents[0])
    start = time.process_time()
    for document in documents:
        work(document)
    return size / 1e6 / (time.process_time() - start)


def main(
    mb: Annotated[int, typer.Option(help="Megabytes of text.")] = 100,
    peer_mb: Annotated[int, typer.Option(help="Megabytes for the comparison on one core.")] = 10,
    peer_python: Annotated[Path | None, typer.Option(help="Python with langchain-text-splitters and icu4py.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "articles.jsonl"
        size = write(file, mb)
        result: dict[str, Any] = {"mb": size / 1e6, "cores": cores(), "corpus": corpus(file, folder, size)}
        rates = one_core(file, peer_mb)
        if peer_python is not None:
            done = subprocess.run([peer_python, PEER, file, str(peer_mb)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{peer_python} {PEER.name} failed: {done.stderr.strip().splitlines()[-1]}")
            rates |= jsonlib.loads(done.stdout)
    result["one_core"] = {name: {"mb_s": each, "ratio": each / rates["m4rag"]} for name, each in rates.items()}
    if json:
        print(jsonlib.dumps(result, indent=2))
        return
    console = Console()
    table = Table(title=f"{result['mb']:,.0f} MB of text, {cores()} cores", title_justify="left")
    for column in ("", "MB/s", "s", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in result["corpus"].items():
        table.add_row(name, f"{each['mb_s']:.1f}", f"{each['seconds']:.0f}", f"{each['peak_mb']:.0f}")
    console.print(table)
    table = Table(title=f"{peer_mb} MB on one core", title_justify="left")
    for column in ("", "MB/s", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in result["one_core"].items():
        table.add_row(name, f"{each['mb_s']:.1f}", f"{each['ratio']:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
