"""The whole loop on the museum benchmark and the reference models: corpus, indexes, benchmark, judge, report."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag import models
from m4rag.bench.benchmark import Request, run
from m4rag.bench.contexts import (
    CAPTION_QUERY,
    IRRELEVANT,
    MULTIMODAL,
    NO_RAG,
    ORACLE,
    ORACLE_QUERY,
    TEXT_ONLY,
)
from m4rag.bench.judge import judge_run
from m4rag.progress import Progress
from m4rag.settings import Settings

if TYPE_CHECKING:
    from m4rag.vlm.launcher import VllmServer

CORPUS = models.WORLD
VISION_INDEX = f"{CORPUS}_vision"
SERVED = MULTIMODAL + models.EMBED
"""The setting that the policy is about."""
SETTINGS = (TEXT_ONLY, NO_RAG, IRRELEVANT, CAPTION_QUERY, SERVED, ORACLE_QUERY, ORACLE)
QUESTIONS = 288
"""A third of the benchmark, spread over languages and kinds: enough to see the effects, quick enough to wait for."""


def run_demo(settings: Settings, progress: Progress, say: Callable[[str], None]) -> Path:
    """Build the museum's indexes, measure the larger reference model in every setting, and have it judge the passages.

    Two vLLM servers are started and stopped: one answers and judges, one embeds question and image for `multimodal`.
    What an earlier run finished is not done again.

    Args:
        settings: Where things are.
        progress: Shows long work.
        say: Told in one line what comes next.

    Returns:
        The run folder with scores and report.
    """
    from m4rag.datasets.ingest import ingest_documents
    from m4rag.vlm import launcher

    say("1/7 corpus: the museum's cards and articles")
    documents = ingest_documents(CORPUS, [], settings.home, CORPUS).folder

    logs = settings.home / "logs"
    say(f"2/7 models: two vLLM servers with {models.VLM} and {models.EMBED} (logs: {logs})")
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        answering = pool.submit(launcher.start, models.folder(models.VLM), served_name=models.VLM, log=logs / "vlm.log")
        embedding = pool.submit(
            launcher.start,
            models.folder(models.EMBED),
            runner="pooling",
            served_name=models.EMBED,
            log=logs / "embedding.log",
        )
        for starting in (answering, embedding):
            stack.callback(_stop, starting)
        servers = [starting.result() for starting in (answering, embedding)]

        say("3/7 indexes: text (BM25 + MiniLM) and multimodal")
        urls = {"vlm_url": servers[0].url, "embedding_url": servers[1].url}
        settings = settings.model_copy(update=urls)
        _index(settings, documents, CORPUS, "minilm", progress)
        _index(settings, documents, VISION_INDEX, "vllm", progress)

        say("4/7 benchmark: every question in every setting")
        request = Request(
            dataset=CORPUS,
            limit=QUESTIONS,
            settings=SETTINGS,
            documents=documents,
            index=CORPUS,
            multimodal={models.EMBED: VISION_INDEX},
            command="m4rag demo",
        )
        folder = run(request, settings, nullcontext(servers[0].url), progress)
        say("5/7 judge: how relevant each passage was")
        judge_run(folder, settings, servers[0].url, progress)
    return folder


def _stop(starting: Future[VllmServer]) -> None:
    if starting.exception() is None:
        starting.result().stop()


def _index(settings: Settings, documents: Path, base: str, spec: str, progress: Progress) -> None:
    """Build an index if it is not there, and serve it."""
    from m4rag.index.aliases import promote
    from m4rag.index.build import build_index
    from m4rag.index.store import connect

    built = build_index(
        documents,
        base,
        settings,
        encoder=spec,
        progress=lambda label, total, done=0: progress(f"{base}: {label}", total, done),
    )
    if built.served != built.description.name:  # the museum changed with a new version of m4rag
        with connect(settings) as store:
            promote(store, base)
