"""Our side of `benchmarks/eval_client.py`, in a process of its own so that its CPU and memory are its own.

Arguments: folder of the load, run folder, base URL, concurrency. Prints the number of counted answers whenever it
grows, and at last what it cost as JSON. What is measured: from rows in memory to Parquet with a manifest, log included.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from m4rag.bench import runner
from m4rag.bench.contexts import gold_documents
from m4rag.bench.runs import ModelIdentity, RunPlan
from m4rag.manifests import Manifest, rows_digest
from m4rag.progress import Progress, silent
from m4rag.schema import Document, Question
from m4rag.shards import read_folder
from m4rag.vlm.client import VlmClient

WARM_UP = 64
MAX_TOKENS = 128


def plan_of(questions: list[Question], model: str) -> RunPlan:
    return RunPlan(
        dataset="load",
        questions_digest=rows_digest(questions),
        n_questions=len(questions),
        settings=("oracle",),
        images="all",
        model=ModelIdentity(name=model, engine="", root=model),
        prompts_digest="",
        decoding={"temperature": 0.0, "max_tokens": MAX_TOKENS, "seed": 0, "schema": True},
        k=1,
    )


async def run(
    folder: Path, questions: list[Question], documents: list[Document], url: str, concurrency: int, progress: Progress
) -> Manifest:
    async with VlmClient(url, concurrency=concurrency) as client:
        plan = plan_of(questions, (await client.model()).name)
        runner.prepare(folder, plan, questions)
        gold = gold_documents(questions, documents)
        runner.write_contexts(folder, plan, gold=gold, searches={}, progress=lambda _: None)
        return await runner.answer(folder, plan, client, progress)


@contextmanager
def counting(label: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """Tells the parent process what is counted, as a person would be told."""

    def advance(units: int) -> None:
        nonlocal done
        done += units
        print(done, flush=True)

    yield advance


def main(load: Path, folder: Path, url: str, concurrency: int) -> None:
    questions = list(read_folder(load / "rows", Question))
    documents = list(read_folder(load / "documents", Document))
    if not folder.exists():  # a resumed run is timed as a person sees it, from the start of the process
        with tempfile.TemporaryDirectory() as warm:
            few = questions[:WARM_UP]
            asyncio.run(run(Path(warm), few, documents, url, concurrency, silent))
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    manifest = asyncio.run(run(folder, questions, documents, url, concurrency, counting))
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "questions": manifest.rows,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": wall,
        "rss_mb": after.ru_maxrss / 1024,
        "digest": manifest.digest,
    }
    print(json.dumps(cost))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
