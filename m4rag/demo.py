"""The whole loop on the embedded sample: corpus, indexes, models, benchmark, report, record."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.benchmark import DEFAULT_SETTINGS, Request, run
from m4rag.bench.contexts import MULTIMODAL
from m4rag.progress import Progress
from m4rag.settings import Settings

if TYPE_CHECKING:
    from m4rag.vlm.launcher import VllmServer

CORPUS = "sample"
VISION_INDEX = "sample_vision"


def run_demo(settings: Settings, progress: Progress, say: Callable[[str], None]) -> Path:
    """Build the sample's indexes and measure the embedded model in every setting.

    Two vLLM servers are started and stopped: one answers, one embeds question and image for `multimodal`. What an
    earlier run finished is not done again.

    Args:
        settings: Where things are.
        progress: Shows long work.
        say: Told in one line what comes next.

    Returns:
        The run folder with scores and report.
    """
    from m4rag.datasets.ingest import ingest_documents
    from m4rag.vlm import launcher, standin

    say("1/5 corpus: the sample's documents")
    documents = ingest_documents(CORPUS, None, settings.home, CORPUS).folder

    model = standin.write_standin(settings.home / "models" / standin.NAME)
    logs = settings.home / "logs"
    say(f"2/5 models: two vLLM servers with {standin.NAME} (logs: {logs})")
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        answering = pool.submit(launcher.start, model, served_name=standin.NAME, log=logs / "vlm.log")
        embedding = pool.submit(
            launcher.start, model, runner="pooling", served_name=standin.NAME, log=logs / "embedding.log"
        )
        for starting in (answering, embedding):
            stack.callback(_stop, starting)
        servers = [starting.result() for starting in (answering, embedding)]

        say("3/5 indexes: text (BM25 + MiniLM) and multimodal")
        urls = {"vlm_url": servers[0].url, "embedding_url": servers[1].url}
        settings = settings.model_copy(update=urls)
        _index(settings, documents, CORPUS, "minilm", progress)
        encoder = _index(settings, documents, VISION_INDEX, "vllm", progress)

        say("4/5 benchmark: every question in every setting")
        request = Request(
            dataset=CORPUS,
            settings=(*DEFAULT_SETTINGS, MULTIMODAL + encoder),
            documents=documents,
            index=CORPUS,
            multimodal={encoder: VISION_INDEX},
            command="m4rag demo",
        )
        return run(request, settings, nullcontext(servers[0].url), progress)


def _stop(starting: Future[VllmServer]) -> None:
    if starting.exception() is None:
        starting.result().stop()


def _index(settings: Settings, documents: Path, base: str, spec: str, progress: Progress) -> str:
    """Build an index if it is not there, and serve it; the encoder's name."""
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
    if built.served != built.description.name:  # the sample changed with a new version of m4rag
        with connect(settings) as store:
            promote(store, base)
    return built.description.encoder
