"""What an index is measured with: a dataset's questions, or the names of its documents in other languages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m4rag.datasets import load_questions
from m4rag.errors import UsageError
from m4rag.index.evaluate import SUBSETS, alias_queries, evaluate
from m4rag.index.evaluate_questions import SCOPES, evaluate_questions
from m4rag.index.search import SEARCH_CHANNELS, SearchChannel, encoder_of
from m4rag.index.store import connect
from m4rag.progress import Progress
from m4rag.schema import Document
from m4rag.settings import Settings
from m4rag.shards import read_folder


def evaluate_index(
    index: str,
    documents: Path,
    settings: Settings,
    progress: Progress,
    *,
    dataset: str | None = None,
    items: Path | None = None,
    channels: Sequence[str] = (),
    encoder: str | None = None,
) -> dict[str, Any]:
    """Measure how well an index finds documents.

    Args:
        index: Alias or collection.
        documents: Folder of the corpus that it was built from.
        settings: Where Milvus and the encoder are.
        progress: Shows long work.
        dataset: Dataset whose questions are searched; None searches the names that documents have in other languages.
        items: File of questions, for datasets that are not shipped.
        channels: `dense`, `bm25`, `hybrid`; none for all that the index has.
        encoder: The index's encoder at another address.

    Returns:
        The report: of `evaluate_questions` with a dataset, of `evaluate` without.

    Raises:
        UsageError: An unknown channel or dataset, or no such index.
        BadData: The corpus does not hold what the queries look for, or names nothing in another language.
        Unavailable: Milvus or the encoder is missing.
    """
    rows = read_folder(documents, Document)
    questions = load_questions(dataset, items) if dataset else []
    queries = [] if dataset else alias_queries(rows)
    with connect(settings) as store:
        description = store.describe(index)
        every = (*description.channels, "hybrid") if len(description.channels) > 1 else description.channels
        wanted = [known_channel(each) for each in channels or every]
        using = encoder_of(description, settings, encoder) if any(each != "bm25" for each in wanted) else None
        if dataset:
            with progress("questions", len(questions)) as advance:
                return evaluate_questions(store, index, questions, rows, using, wanted, advance)
        with progress("queries", len({query.text for query in queries})) as advance:
            return evaluate(store, index, queries, using, wanted, advance)


def sets(dataset: str | None) -> tuple[str, ...]:
    """The sets of queries that `evaluate_index` reports on."""
    return SCOPES if dataset else SUBSETS


def known_channel(name: str) -> SearchChannel:
    """A channel by its name.

    Raises:
        UsageError: There is none.
    """
    for channel in SEARCH_CHANNELS:
        if channel == name:
            return channel
    raise UsageError(f"unknown channel {name!r}", remedy=f"Use {', '.join(SEARCH_CHANNELS)}.")


def means(report: dict[str, Any]) -> dict[str, float]:
    """Each measure of each channel, mean over all queries: `<channel>.<measure>`."""
    whole = {channel: found["all"]["mean"] or {} for channel, found in report["channels"].items()}
    return {f"{channel}.{name}": value for channel, measured in whole.items() for name, value in measured.items()}
