"""How well an index finds the gold documents of a benchmark's questions, within a language and across languages.

Each question, with its image where the encoder takes one, is searched three times:

    all              in the whole index
    monolingual      among the passages in the question's own language
    cross-lingual    among the passages in all other languages

A gold id that leaves the language out makes its documents in every language relevant (a parallel corpus). Varieties of
a language are that language: a question in Krama Javanese and a Javanese page are monolingual.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from m4rag.encoders import Encoder, Query
from m4rag.errors import BadData
from m4rag.index.evaluate import DEPTH, EvalQuery, score, summary
from m4rag.index.search import BATCH, SearchChannel, check, search_encoded
from m4rag.index.store import Store
from m4rag.languages import lookup
from m4rag.schema import Document, Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCOPES = ("all", "monolingual", "cross-lingual")


def evaluate_questions(
    store: Store,
    name: str,
    questions: Sequence[Question],
    documents: Iterable[Document],
    encoder: Encoder | None,
    channels: Sequence[SearchChannel],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Retrieve, score and summarise: the whole report as JSON.

    Args:
        store: Where the index is.
        name: Alias or collection.
        questions: With gold ids; their images are searched with if the encoder takes images.
        documents: The corpus that the index was built from.
        encoder: The index's encoder; None if only `bm25` is evaluated.
        channels: Channels to compare.
        progress: Called with finished questions.

    Returns:
        `{"collection", "passages", "encoder", "dim", "queries", "channels": {channel: {scope: {"queries", "mean",
        "macro", "macro_languages", "languages"}}}}`. A question counts in a scope that holds a relevant document.

    Raises:
        BadData: A question has no gold document in the corpus.
    """
    description = store.describe(name)
    for channel in channels:
        check(description, encoder, channel)
    relevant, languages = _relevant(questions, documents)
    pictured = encoder is not None and "image" in encoder.modalities
    ranked: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
    for language, asked in _by_language(questions).items():
        within = _within(language, set(languages.values()))
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            vectors = _vectors(encoder, part, pictured) if any(channel != "bm25" for channel in channels) else None
            for channel in channels:
                for scope, searched in within.items():
                    if not searched:
                        continue
                    found = search_encoded(
                        store,
                        description.name,
                        [question.question for question in part],
                        vectors,
                        DEPTH,
                        channel,
                        languages=searched,
                    )
                    for question, hits in zip(part, found, strict=True):
                        names = list(dict.fromkeys(hit.document_id for hit in hits))
                        ranked[channel, scope][question.question_id] = names
            progress(len(part))
    queries = {scope: _queries(questions, relevant, languages, scope) for scope in SCOPES}
    return {
        "collection": description.name,
        "passages": description.rows,
        "encoder": description.encoder,
        "dim": description.dim,
        "queries": len(questions),
        "channels": {
            channel: {scope: summary(queries[scope], score(queries[scope], ranked[channel, scope])) for scope in SCOPES}
            for channel in channels
        },
    }


def _within(language: str, there: set[str]) -> dict[str, list[str]]:
    """Scope to the languages of the passages that are searched; none where the corpus has none for it."""
    own = sorted(each for each in there if _same(each, language))
    return {"all": sorted(there), "monolingual": own, "cross-lingual": sorted(there - set(own))}


def _same(one: str, other: str) -> bool:
    return lookup(one).language == lookup(other).language


def _relevant(
    questions: Sequence[Question], documents: Iterable[Document]
) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Gold id to the documents it stands for, and document id to language."""
    wanted = {gold for question in questions for gold in question.gold}
    relevant: dict[str, set[str]] = defaultdict(set)
    languages = {}
    for document in documents:
        languages[document.document_id] = document.language
        for gold in (document.document_id, document.document_id.removesuffix(f":{document.language}")):
            if gold in wanted:
                relevant[gold].add(document.document_id)
    for question in questions:
        if not any(relevant.get(gold) for gold in question.gold):
            raise BadData(
                "none of its gold documents is in the corpus",
                where=question.question_id,
                remedy="Name the corpus that belongs to this dataset.",
            )
    return relevant, languages


def _by_language(questions: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        found[question.language].append(question)
    return found


def _vectors(encoder: Encoder | None, questions: Sequence[Question], pictured: bool) -> NDArray[np.float32] | None:
    if encoder is None:
        return None
    return encoder.encode_queries(
        [Query(text=question.question, image=question.image if pictured else None) for question in questions]
    )


def _queries(
    questions: Sequence[Question], relevant: dict[str, set[str]], languages: dict[str, str], scope: str
) -> list[EvalQuery]:
    """The questions that have a relevant document in a scope, with those as judgements."""
    made = []
    for question in questions:
        names = {name for gold in question.gold for name in relevant.get(gold, ())}
        if scope != "all":
            own = scope == "monolingual"
            names = {name for name in names if _same(languages[name], question.language) is own}
        if names:
            made.append(
                EvalQuery(
                    query_id=question.question_id,
                    text=question.question,
                    language=question.language,
                    relevant=dict.fromkeys(names, 1),
                )
            )
    return made
