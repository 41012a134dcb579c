"""The project's own small benchmark, inside the package: one image per concept, asked about in many languages.

The wording is in `sample_data/text/<language>.toml`, what a concept is in `sample_data/concepts.toml`; the data card
beside them says how both and the pictures were made. The concept is shown and never named in the question, and a
document in the same language holds the answer, so every question tests image recognition, knowledge and retrieval.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from m4rag.schema import Document, Question

FOLDER = Path(__file__).resolve().parent / "sample_data"
LICENSE = "CC-BY-4.0"

LANGUAGES: tuple[str, ...] = (
    "en", "es", "sw", "yo", "jv", "ru", "ar", "hi", "te", "ta", "si", "am", "th", "ja", "zh_cn", "ko",
)  # fmt: skip
"""Codes of the languages it is written in."""

CONTINENTS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")

CATEGORIES = ("animals", "crafts", "festivals", "food", "landmarks", "music", "plants", "sports", "vehicles")

PROMPT_TYPES = ("ingredient", "material", "nature", "occasion", "origin", "part", "place", "symbol", "use")
"""What kind of fact a question asks for."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A thing that has a picture, a question and a document in English and in some of the other languages.

    Attributes:
        name: Id, also the group of its questions.
        category: One of `CATEGORIES`.
        prompt_type: One of `PROMPT_TYPES`.
        continent: One of `CONTINENTS`: where it comes from.
    """

    name: str
    category: str
    prompt_type: str
    continent: str


def concepts() -> tuple[Concept, ...]:
    """The concepts, in the order of their table."""
    return tuple(
        Concept(name, row["category"], row["prompt_type"], row["continent"])
        for name, row in _read("concepts.toml")["concept"].items()
    )


def questions() -> Iterator[Question]:
    """The questions, by concept and within a concept by language.

    `extra` holds the concept's `continent`, and as `evidence` the words of the gold document that state the answer:
    the right option itself or, where grammar inflects it, the form that the document has.
    """
    for concept in concepts():
        for language in LANGUAGES:
            entry = _text(language)["concept"].get(concept.name)
            if entry is not None:
                yield _question(concept, language, entry)


def documents() -> Iterator[Document]:
    """The documents: for each concept and language the one that holds the answer, then the distractors.

    `extra` holds the `concept` that a document is about or, for a distractor, near to, and whether it is `gold`.
    """
    for concept in concepts():
        for language in LANGUAGES:
            entry = _text(language)["concept"].get(concept.name)
            if entry is not None:
                yield _document(concept.name, language, entry, concept=concept.name, gold=True)
    for name, row in _read("concepts.toml")["distractor"].items():
        for language in LANGUAGES:
            entry = _text(language)["distractor"].get(name)
            if entry is not None:
                yield _document(name, language, entry, concept=row["near"], gold=False)


def _question(concept: Concept, language: str, entry: dict[str, Any]) -> Question:
    question_id = f"{concept.name}-{language}"
    right, *options = entry["options"]
    options.sort(key=lambda option: _hash(f"{question_id}:{option}"))
    answer_index = _answer_indices(language)[concept.name]
    options.insert(answer_index, right)
    return Question(
        question_id=question_id,
        dataset="sample",
        language=language,
        question=entry["question"],
        options=tuple(options),
        answer_index=answer_index,
        category=concept.category,
        prompt_type=concept.prompt_type,
        image=str(FOLDER / "images" / f"{concept.name}.webp"),
        group=concept.name,
        gold=(f"sample:{concept.name}",),
        extra={"continent": concept.continent, "evidence": entry.get("evidence", right)},
    )


@cache
def _answer_indices(language: str) -> dict[str, int]:
    """Where the right option goes: every position equally often in each language, in the order of a hash."""
    names = sorted(_text(language)["concept"], key=lambda name: _hash(f"{name}-{language}"))
    start = LANGUAGES.index(language)
    return {name: (start + rank) % 4 for rank, name in enumerate(names)}


def _document(name: str, language: str, entry: dict[str, Any], *, concept: str, gold: bool) -> Document:
    return Document(
        document_id=f"sample:{name}:{language}",
        title=entry["title"],
        text=entry["text"],
        language=language,
        source="sample",
        image=str(FOLDER / "images" / f"{name}-document.webp"),
        license=LICENSE,
        extra={"concept": concept, "gold": gold},
    )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _text(language: str) -> dict[str, Any]:
    return _read(f"text/{language}.toml")


@cache
def _read(name: str) -> dict[str, Any]:
    """One of the tables. They are part of the package, so a fault in them is a bug that the tests find."""
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
