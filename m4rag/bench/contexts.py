"""What is put before the model in each setting: nothing, the gold passage, or what retrieval found.

Settings (M4-RAG, section "settings"; the query is what is searched):

    text_only              no image, no context: the baseline that shows what the question alone gives away
    no_rag                 image, no context
    oracle                 the gold documents themselves, in English or in the question's language
    irrelevant             as many gold documents of other questions: what a model does with context that cannot help
    oracle_query           search with question + gold text: the ceiling of text retrieval
    caption_query          search with question + the model's own caption of the image
    multimodal:<encoder>   search with question + image in a multimodal encoder's space
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from m4rag.bench.runs import Caption, Context, Passage
from m4rag.errors import BadData, UsageError
from m4rag.schema import Document, Question

if TYPE_CHECKING:
    from m4rag.encoders import Query
    from m4rag.index.search import Hit

TEXT_ONLY = "text_only"
NO_RAG = "no_rag"
ORACLE = "oracle"
IRRELEVANT = "irrelevant"
ORACLE_QUERY = "oracle_query"
CAPTION_QUERY = "caption_query"
MULTIMODAL = "multimodal:"

CONTEXT_LANGUAGE, NATIVE = "en", "native"
LANGUAGES = (CONTEXT_LANGUAGE, NATIVE)
"""What gold documents are in: English, as in M4-RAG's baseline condition, or the language of the question."""

Search = Callable[[Sequence["Query"]], list[list["Hit"]]]


def check_setting(setting: str) -> str:
    """A known setting, as it was given.

    Raises:
        UsageError: It is not one; lists those that are.
    """
    if setting in (TEXT_ONLY, NO_RAG, ORACLE, IRRELEVANT, ORACLE_QUERY, CAPTION_QUERY):
        return setting
    if setting.startswith(MULTIMODAL) and len(setting) > len(MULTIMODAL):
        return setting
    raise UsageError(
        f"unknown setting {setting!r}",
        remedy="Known: no_rag, oracle, oracle_query, caption_query, multimodal:<encoder>, irrelevant, text_only.",
    )


def retrieves(setting: str) -> bool:
    """Whether the setting searches an index."""
    return setting in (ORACLE_QUERY, CAPTION_QUERY) or setting.startswith(MULTIMODAL)


def needs_gold(setting: str) -> bool:
    """Whether the setting reads the gold documents."""
    return setting in (ORACLE, IRRELEVANT, ORACLE_QUERY)


def has_context(setting: str) -> bool:
    """Whether the prompt holds passages."""
    return setting not in (TEXT_ONLY, NO_RAG)


def gold_names(question: Question, context_language: str = CONTEXT_LANGUAGE) -> tuple[str, ...]:
    """What a question's gold documents go by in `gold_documents`."""
    if context_language == CONTEXT_LANGUAGE:
        return question.gold
    return tuple(f"{gold}:{question.language}" for gold in question.gold)


def gold_documents(
    questions: Iterable[Question], documents: Iterable[Document], context_language: str = CONTEXT_LANGUAGE
) -> dict[str, Document]:
    """The gold document of every gold id that the questions name.

    An id names a document outright or, in a corpus with parallel documents, leaves the language out; then the
    English one is taken, or with `native` the one in the question's language.

    Args:
        questions: The questions.
        documents: The corpus.
        context_language: One of `LANGUAGES`.

    Returns:
        Name (`gold_names`) to document.

    Raises:
        BadData: A question has no gold document in this corpus.
    """
    wanted = {gold for question in questions for gold in gold_names(question, context_language)}
    found: dict[str, Document] = {}
    for document in documents:
        for gold in (document.document_id, document.document_id.removesuffix(f":{CONTEXT_LANGUAGE}")):
            if gold in wanted:
                found[gold] = document
    missing = sorted(wanted - found.keys())
    if missing and context_language == NATIVE:
        raise BadData(
            f"{len(missing)} gold documents are not in the language of their questions, first {missing[0]!r}",
            remedy="Use --context-language en.",
        )
    if missing:
        raise BadData(
            f"{len(missing)} gold documents are not in the corpus, first {missing[0]!r}",
            remedy="Ingest the corpus that belongs to this dataset, or leave out oracle and oracle_query.",
        )
    return found


def oracle_contexts(
    questions: Sequence[Question], gold: Mapping[str, Document], context_language: str = CONTEXT_LANGUAGE
) -> list[Context]:
    """The gold documents of each question as its context.

    Args:
        questions: The questions.
        gold: What `gold_documents` found in this language.
        context_language: One of `LANGUAGES`.

    Raises:
        BadData: A question names no gold document.
    """
    contexts = []
    for question in questions:
        if not question.gold:
            raise BadData("names no gold document", where=question.question_id, remedy="Leave out the oracle settings.")
        names = gold_names(question, context_language)
        passages = tuple(_passage(gold[name], gold[name].document_id) for name in names)
        contexts.append(
            Context(question_id=question.question_id, query="", passages=passages, scores=(1.0,) * len(passages))
        )
    return contexts


def irrelevant_contexts(
    questions: Sequence[Question], gold: Mapping[str, Document], context_language: str = CONTEXT_LANGUAGE
) -> list[Context]:
    """For each question as many gold documents as it has itself, but those of other questions, drawn by a hash.

    Args:
        questions: The questions.
        gold: What `gold_documents` found in this language, for all questions of the run.
        context_language: One of `LANGUAGES`; with `native` the documents drawn are in the question's language.

    Raises:
        BadData: A question names no gold document, or there are too few others.
    """
    by_language: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(gold):
        by_language[gold[name].language if context_language == NATIVE else ""].append(name)
    contexts = []
    for question in questions:
        draw = random.Random(f"irrelevant:{question.question_id}")  # noqa: S311 - repeatable, nothing secret
        names = by_language[question.language if context_language == NATIVE else ""]
        others = [name for name in names if name not in gold_names(question, context_language)]
        if not 0 < len(question.gold) <= len(others):
            raise BadData(
                f"{len(question.gold)} gold documents, {len(others)} of other questions",
                where=question.question_id,
                remedy="Leave out the setting irrelevant.",
            )
        passages = tuple(
            _passage(gold[name], gold[name].document_id) for name in draw.sample(others, len(question.gold))
        )
        contexts.append(
            Context(question_id=question.question_id, query="", passages=passages, scores=(0.0,) * len(passages))
        )
    return contexts


def queries(
    setting: str,
    questions: Sequence[Question],
    gold: Mapping[str, Document],
    captions: Mapping[str, Caption],
    context_language: str = CONTEXT_LANGUAGE,
) -> list[Query]:
    """The search query of each question in a retrieving setting.

    Args:
        setting: One that `retrieves`.
        questions: The questions.
        gold: What `gold_documents` found in this language, for `oracle_query`.
        captions: Image to caption, for `caption_query`.
        context_language: One of `LANGUAGES`.

    Raises:
        UsageError: The setting needs an image that a question does not have.
    """
    from m4rag.encoders import Query

    made = []
    for question in questions:
        if setting == ORACLE_QUERY:
            texts = [question.question, *(gold[name].text for name in gold_names(question, context_language))]
            made.append(Query(text="\n".join(texts), image=None))
            continue
        if question.image is None:
            raise UsageError(f"{setting} needs an image", where=question.question_id)
        if setting == CAPTION_QUERY:
            made.append(Query(text=f"{question.question}\n{captions[question.image].text}", image=None))
        else:
            made.append(Query(text=question.question, image=question.image))
    return made


def retrieved_contexts(questions: Sequence[Question], asked: Sequence[Query], search: Search) -> list[Context]:
    """Search all queries at once and keep, for each question, what came back, best first."""
    if not asked:
        return []
    contexts = []
    for question, query, hits in zip(questions, asked, search(asked), strict=True):
        contexts.append(
            Context(
                question_id=question.question_id,
                query=query.text,
                passages=tuple(_passage(hit, hit.chunk_id) for hit in hits),
                scores=tuple(hit.score for hit in hits),
            )
        )
    return contexts


def refused_contexts(questions: Iterable[Question], captions: Mapping[str, Caption]) -> dict[str, Context]:
    """What `caption_query` has for the questions whose image has no caption: the reason, and nothing to search with.

    Args:
        questions: The questions.
        captions: Image to caption.

    Returns:
        Question id to context.
    """
    contexts = {}
    for question in questions:
        refused = captions[question.image].refused if question.image else ""
        if refused:
            contexts[question.question_id] = Context(
                question_id=question.question_id,
                query="",
                passages=(),
                scores=(),
                refused=f"the image has no caption to search with: {refused}",
            )
    return contexts


def _passage(found: Document | Hit, chunk_id: str) -> Passage:
    return Passage(
        chunk_id=chunk_id,
        document_id=found.document_id,
        title=found.title,
        text=found.text,
        language=found.language,
        source=found.source,
        image=found.image,
    )
