"""How well an index retrieves: trec_eval's measures per language and channel.

Queries come from a corpus whose documents name themselves in many languages (`Document.extra["aliases"]`, language
code to name): each name is a query, its document the only relevant one. Names are not indexed, only title and text
are. A name may equal the title, which any word search finds, so three sets are reported:

    all            every name
    other name     names that are not the title (after folding)
    other script   names without a Latin letter, for an index of titles and texts in Latin letters: only an encoder that
                   knows the language can find them
"""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m4rag.encoders import Encoder, Query
from m4rag.errors import BadData
from m4rag.index.search import BATCH, SearchChannel, check, search_encoded
from m4rag.index.store import Store
from m4rag.schema import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

DEPTH = 50
"""Passages retrieved a query; documents count by their best passage."""

MEASURES = {
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "mrr": "recip_rank",
    "ndcg@5": "ndcg_cut_5",
}
_TREC = {"recall.1,5,10", "recip_rank", "ndcg_cut.5"}

MACRO_QUERIES = 20
"""Languages with fewer queries are shown but stay out of the macro average: one name more or less moves them."""

SUBSETS = ("all", "other name", "other script")


@dataclass(frozen=True)
class EvalQuery:
    """A query with its judgements.

    Attributes:
        query_id: Unique.
        text: What is searched.
        language: Language of the query.
        relevant: Document id to grade, 1 and up.
        subsets: Sets of the report it belongs to.
    """

    query_id: str
    text: str
    language: str
    relevant: Mapping[str, int]
    subsets: tuple[str, ...] = ("all",)


def alias_queries(documents: Iterable[Document]) -> list[EvalQuery]:
    """One query for each name that a document has in `extra["aliases"]`; empty names are left out.

    Raises:
        BadData: No document has any.
    """
    queries = []
    for document in documents:
        for language, name in sorted(document.extra.get("aliases", {}).items()):
            if not name.strip():
                continue
            subsets = ["all"]
            if _folded(name) != _folded(document.title):
                subsets.append("other name")
            if not _has_latin(name):
                subsets.append("other script")
            queries.append(
                EvalQuery(
                    query_id=f"{document.document_id}/{language}",
                    text=name,
                    language=language,
                    relevant={document.document_id: 1},
                    subsets=tuple(subsets),
                )
            )
    if not queries:
        raise BadData("no document names itself in other languages (extra.aliases)")
    return queries


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _has_latin(text: str) -> bool:
    import regex  # type: ignore[import-untyped]

    return regex.search(r"\p{Latin}", text) is not None


def retrieve(
    store: Store,
    name: str,
    queries: Sequence[EvalQuery],
    encoder: Encoder | None,
    channels: Sequence[SearchChannel],
    progress: Callable[[int], None],
) -> dict[SearchChannel, dict[str, list[str]]]:
    """Rank documents for every query in every channel; equal texts are searched once.

    Returns:
        Channel to query id to document ids, best first, each once.
    """
    description = store.describe(name)
    for channel in channels:
        check(description, encoder, channel)
    texts = sorted({query.text for query in queries})
    ranked: dict[SearchChannel, dict[str, list[str]]] = {channel: {} for channel in channels}
    collection = store.resolve(name)
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        vectors = _vectors(encoder, part) if any(channel != "bm25" for channel in channels) else None
        for channel in channels:
            found = search_encoded(store, collection, part, vectors, DEPTH, channel)
            for text, hits in zip(part, found, strict=True):
                ranked[channel][text] = list(dict.fromkeys(hit.document_id for hit in hits))
        progress(len(part))
    return {channel: {query.query_id: by_text[query.text] for query in queries} for channel, by_text in ranked.items()}


def _vectors(encoder: Encoder | None, texts: Sequence[str]) -> NDArray[np.float32] | None:
    return None if encoder is None else encoder.encode_queries([Query(text=text) for text in texts])


def score(queries: Sequence[EvalQuery], ranked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """trec_eval's measures of every query: linear gain, log2 discount.

    Args:
        queries: With judgements.
        ranked: Query id to document ids, best first.

    Returns:
        Query id to measure to value, 0.0 throughout where nothing was found.
    """
    import pytrec_eval

    judged = {query.query_id: dict(query.relevant) for query in queries}
    # trec_eval sorts by score and breaks ties by id: ranks as scores keep the order that was returned.
    run = {
        query.query_id: {document: -float(rank) for rank, document in enumerate(ranked[query.query_id])}
        for query in queries
    }
    values = pytrec_eval.RelevanceEvaluator(judged, _TREC).evaluate(run)
    return {
        query.query_id: {
            name: float(values.get(query.query_id, {}).get(measure, 0.0)) for name, measure in MEASURES.items()
        }
        for query in queries
    }


def summarise(queries: Sequence[EvalQuery], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Means of one channel.

    Returns:
        Subset to `{"queries", "mean", "macro", "macro_languages", "languages": {code: {"queries", measures...}}}`;
        `mean` is over queries, `macro` over languages with at least 20 of them (None if there is none).
    """
    return {subset: summary([query for query in queries if subset in query.subsets], scores) for subset in SUBSETS}


def summary(queries: Sequence[EvalQuery], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Means over queries and languages of one set of queries, as `summarise` gives them."""
    by_language: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for query in queries:
        by_language[query.language].append(scores[query.query_id])
    languages = {
        language: {"queries": len(values), **_means(values)} for language, values in sorted(by_language.items())
    }
    large = [each for each in languages.values() if each["queries"] >= MACRO_QUERIES]
    return {
        "queries": len(queries),
        "mean": _means([scores[query.query_id] for query in queries]) if queries else None,
        "macro": _means(large) if large else None,
        "macro_languages": len(large),
        "languages": languages,
    }


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(sum(value[name] for value in values) / len(values), 4) for name in MEASURES}


def evaluate(
    store: Store,
    name: str,
    queries: Sequence[EvalQuery],
    encoder: Encoder | None,
    channels: Sequence[SearchChannel],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Retrieve, score and summarise: the whole report as JSON.

    Args:
        store: Where the index is.
        name: Alias or collection.
        queries: With judgements.
        encoder: The index's encoder; None if only `bm25` is evaluated.
        channels: Channels to compare.
        progress: Called with finished queries (equal texts count once).
    """
    description = store.describe(name)
    ranked = retrieve(store, name, queries, encoder, channels, progress)
    return {
        "collection": description.name,
        "passages": description.rows,
        "encoder": description.encoder,
        "encoder_languages": list(encoder.languages) if encoder and encoder.languages else None,
        "queries": len(queries),
        "channels": {channel: summarise(queries, score(queries, ranked[channel])) for channel in channels},
    }
