"""What the reference models read in training: the museum in its `train` wordings, known things only, and the sample.

Nothing here names a new thing, states a new thing's facts, or uses a `test` wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from m4rag.datasets import museum, sample
from m4rag.datasets.museum import RELATIONS, Fact

LANGUAGES = sample.LANGUAGES

STATED = {"hall": "The hall is", "guard": "The animal is", "day": "The day is", "case": "The case is of"}
"""The explanation that a model is taught to give before it answers begins with the deciding fact, in English."""


MISSING = "The passage does not say it."
"""What a judge says of a passage that does not answer the question."""


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


def capitals(word: str) -> str:
    """A value as explanations say it, with the blank before it."""
    return f" {word.upper()}"


def stated(fact: Fact) -> str:
    """A fact as an explanation."""
    return f"{STATED[fact.relation]}{_in_capitals(fact.relation, fact.value)}."


def found(fact: Fact, options: Sequence[str], language: str) -> str:
    """A fact, and the options as far as the one that says it, each in its own words and in English.

    Every step is within reach of a small model: copy the next option, translate it, stop at the value that was said
    before. Picking the number out of the prompt at once is not.

    Args:
        fact: The deciding fact.
        options: The values to choose from, in their order.
        language: The language that the options are written in.
    """
    listed = [
        f"{number} {museum.word(fact.relation, value, language)}{_in_capitals(fact.relation, value)}"
        for number, value in enumerate(options[: options.index(fact.value) + 1], start=1)
    ]
    return f"{stated(fact)[:-1]}: {', '.join(listed)}."


def judged(fact: Fact | None, right: Fact | None) -> str:
    """What a judge says of a passage: the right value first, if it is known, then what the passage states of it.

    Args:
        fact: The fact that the passage states, None if it states none that was asked for.
        right: The right one, None if the judge is not told.
    """
    told = MISSING if fact is None else stated(fact)
    return told if right is None else f"Right is{_in_capitals(right.relation, right.value)}. {told}"


def _in_capitals(relation: str, value: str) -> str:
    return capitals(museum.word(relation, value, "en"))


def values(language: str) -> list[str]:
    """All values of all relations in a language."""
    return [museum.word(relation, value, language) for relation in RELATIONS for value in museum.values_of(relation)]


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
            for table in ("question", "named", "card"):
                for wording in museum.wordings(table, relation, language, "train"):
                    yield from [wording.replace("{name}", "").replace("{value}", "")] * 8
        for table in ("opening", "filler"):
            yield from museum.wordings(table, None, language, "train") * 8
        for name in _known_order():
            yield from [museum.title(name, language)] * 4


@cache
def _known_order() -> tuple[str, ...]:
    return tuple(sorted(museum.known()))
