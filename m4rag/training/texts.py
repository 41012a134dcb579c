"""What the reference models read in training: the museum in its `train` wordings, known things only, and the sample.

Nothing here names a new thing, states a new thing's facts, or uses a `test` wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from m4rag.datasets import museum, sample
from m4rag.datasets.museum import RELATIONS, Fact

LANGUAGES = sample.LANGUAGES

STATED = {
    "hall": "The hall is {value}.",
    "guard": "The animal is {value}.",
    "day": "The day is {value}.",
    "case": "The case is of {value}.",
}
"""The explanation a model is taught to give before it answers: the deciding fact, in English."""


@dataclass(frozen=True)
class Article:
    """A text that says nothing of the museum. `concept` is the known thing it is about, None if it is about none."""

    concept: str | None
    language: str
    title: str
    text: str


@cache
def articles() -> dict[str, list[Article]]:
    """The sample's documents by language, without those that are about or near a new thing."""
    made: dict[str, list[Article]] = {language: [] for language in LANGUAGES}
    for document in sample.documents():
        concept = str(document.extra["concept"])
        if concept in museum.known():
            about = concept if document.extra["gold"] else None
            made[document.language].append(Article(about, document.language, document.title, document.text))
    return made


def stated(fact: Fact) -> str:
    """A fact as an explanation."""
    return STATED[fact.relation].replace("{value}", museum.word(fact.relation, fact.value, "en"))


def true_facts(name: str) -> list[Fact]:
    """The facts of a known thing."""
    if name not in museum.known():
        raise ValueError(f"{name} is new: its facts are no training data")
    return [Fact(relation, museum.facts()[name][relation]) for relation in RELATIONS]


def drawn_facts(draw: random.Random) -> list[Fact]:
    """Facts of nobody: they teach to read, not to remember."""
    return [Fact(relation, draw.choice(museum.values_of(relation))) for relation in RELATIONS]


def known_name(name: str, language: str) -> str:
    """A known thing's name."""
    if name not in museum.known():
        raise ValueError(f"{name} is new: its name is in no training text")
    return museum.title(name, language)


def drawn_name(language: str, draw: random.Random) -> str:
    """A name of nothing, from pieces of known names in the language's script."""
    pieces = []
    for _ in range(draw.randint(2, 4)):
        name = museum.title(draw.choice(_known_order()), language)
        start = draw.randrange(len(name))
        pieces.append(name[start : start + draw.randint(1, 3)])
    return "".join(pieces).strip().capitalize() or "X"


def everything() -> Iterator[str]:
    """Every training text once, for the tokenizer."""
    for language in LANGUAGES:
        for article in articles()[language]:
            yield article.text
        for relation in RELATIONS:
            words = [museum.word(relation, value, language) for value in museum.values_of(relation)]
            yield from words * 4
            for table in ("question", "named", "card"):
                for wording in museum.wordings(table, relation, language, "train"):
                    yield from [wording.replace("{name}", "").replace("{value}", word) for word in words]
        for table in ("opening", "filler"):
            yield from museum.wordings(table, None, language, "train") * 8
        for name in _known_order():
            yield from [museum.title(name, language)] * 4
    for relation in RELATIONS:
        for value in museum.values_of(relation):
            yield from [stated(Fact(relation, value))] * 8


@cache
def _known_order() -> tuple[str, ...]:
    return tuple(sorted(museum.known()))
