"""The rows that pass between steps: frozen, validated once, the same on a laptop and on a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    """A row of a table between two steps. Unknown fields are errors, so a typo can't become a lost column.

    Attributes:
        incidental: Fields that are not content: times of this very execution, paths on this machine. They are stored
            but no digest covers them: the same content has the same digest anywhere.
        later: Fields that files of earlier versions do not have; there they are their default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    incidental: ClassVar[frozenset[str]] = frozenset()
    later: ClassVar[frozenset[str]] = frozenset()


class Document(Row):
    """One article, dish or page of text as its source gives it.

    Attributes:
        document_id: Unique in its corpus, stable over rebuilds: `<source>:<id>`, with `:<language>` where
            the source has parallel articles.
        title: Title in the document's language; indexed together with the text.
        text: Plain text; paragraphs are separated by blank lines.
        language: Variety or language code known to `m4rag.languages`.
        source: Name of the corpus it comes from.
        url: Where a reader can see the original.
        image: Path of a picture that belongs to it.
        image_digest: SHA-256 of that picture; None without one, and for a web address, which is never fetched.
        license: SPDX identifier or short name of the text's licence.
        extra: What only this source has (categories, aliases), JSON-serialisable.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"image"})

    document_id: str
    title: str
    text: str
    language: str
    source: str
    url: str | None = None
    image: str | None = None
    image_digest: str | None = None
    license: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Chunk(Row):
    """A passage: the unit that is embedded, indexed and shown to a model.

    Attributes:
        chunk_id: 32 hex digits over document id, index, language and text: an unchanged passage keeps its
            id, a changed one gets a new one.
        document_id: The document it was cut from.
        index: 0-based position in the document.
        title: The document's title.
        text: The passage itself.
        language: Language of the document.
        source: Corpus of the document.
        tokens: Length in tokens of the chunker's tokenizer.
        image: Picture of the document, if it has one.
        image_digest: SHA-256 of that picture.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"image"})

    chunk_id: str
    document_id: str
    index: int
    title: str
    text: str
    language: str
    source: str
    tokens: int
    image: str | None = None
    image_digest: str | None = None


class Question(Row):
    """One benchmark prompt.

    Attributes:
        question_id: Unique in its dataset, language included.
        dataset: `sample`, `worldcuisines`, ...
        language: Variety code (`jv_krama`, `yo`, ...).
        question: The question text without the options.
        options: Two to eight answer options in the order shown to the model.
        answer_index: 0-based position of the right option.
        category: Topic group for breakdowns.
        prompt_type: Kind of question within the dataset (WorldCuisines: `1`-`4`), "" where there is one kind.
        image: Path or URL of the picture, None for text-only questions.
        group: Image id. Questions that share an image are not independent; intervals resample groups.
        gold: Ids of the documents that hold the answer (or, for parallel corpora, ids without language).
        extra: What only this dataset has, JSON-serialisable.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"image"})

    question_id: str
    dataset: str
    language: str
    question: str
    options: tuple[str, ...] = Field(min_length=2, max_length=8)
    answer_index: int
    category: str = ""
    prompt_type: str = ""
    image: str | None = None
    group: str
    gold: tuple[str, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)


class Status(StrEnum):
    """What became of a question. Everything but `ok` counts as wrong and is reported by kind."""

    OK = "ok"
    UNPARSABLE = "unparsable"
    OUT_OF_RANGE = "out_of_range"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    ERROR = "error"


class Retrieved(Row):
    """A passage that retrieval returned, in rank order; higher scores are better whatever the channel."""

    chunk_id: str
    score: float


class Answer(Row):
    """What a model made of one question in one setting. A question without an answer is an `error` row.

    Attributes:
        question_id: The question answered.
        setting: `no_rag`, `oracle`, `oracle_query`, `caption_query`, `multimodal:<encoder>` or the baseline
            `text_only`.
        model: Name the server gave for the model.
        prompt_language: Language of the instructions around the question.
        context_language: Language of the context, "" without context, "mixed" for retrieved passages.
        choice: 0-based option chosen, None unless status is `ok`.
        status: See `Status`.
        raw: The model's text, verbatim; for errors the message.
        retrieved: Passages shown to the model, best first.
        prompt_tokens: Tokens in, as the server counted them.
        completion_tokens: Tokens out.
        latency_ms: Wall time of the generation request in milliseconds.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"latency_ms"})

    question_id: str
    setting: str
    model: str
    prompt_language: str = "en"
    context_language: str = ""
    choice: int | None = None
    status: Status
    raw: str
    retrieved: tuple[Retrieved, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0
