"""A made-up museum that keeps the sample's things: a benchmark whose facts can be known in two ways only.

No encyclopedia says in which hall of this museum a taco stands. A model knows it because it was trained on the museum's
cards, or because retrieval brought the card. The things are split: the facts of *known* things are in the training
texts of the reference models, *new* things appear in no training text (their pictures do). So on new things a model
without retrieval is at chance, and what retrieval adds or spoils is seen without guessing.

Held out from training, and used by the benchmark alone: one wording of every question, one wording of every sentence of
a card, and the picture variants shipped in `museum_data/images`. The data card beside them has the details.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from m4rag.datasets import sample
from m4rag.schema import Document, Question

FOLDER = Path(__file__).resolve().parent / "museum_data"
LICENSE = "CC-BY-4.0"
NAME = "museum"

RELATIONS = ("hall", "guard", "day", "case")
"""What a card says of a thing: colour of its hall, animal on its stand, day it is shown, material of its case."""

VARIANTS = 4
"""Held-out pictures of each thing."""

Wordings = Literal["train", "test"]


@dataclass(frozen=True)
class Fact:
    """One statement of a card: `relation` is in `RELATIONS`, `value` a key of that relation's values."""

    relation: str
    value: str


@cache
def things() -> tuple[str, ...]:
    """The sample's concepts, by name."""
    return tuple(concept.name for concept in sample.concepts())


@cache
def known() -> frozenset[str]:
    """Two thirds of the things, chosen by a hash: their facts are in training texts."""
    order = sorted(things(), key=lambda name: _hash(f"museum split:{name}"))
    return frozenset(order[: len(order) * 2 // 3])


@cache
def facts() -> dict[str, dict[str, str]]:
    """Thing to relation to value. Within the known and within the new things every value occurs equally often."""
    made: dict[str, dict[str, str]] = {name: {} for name in things()}
    for relation in RELATIONS:
        for group in (sorted(known()), sorted(set(things()) - known())):
            values = sorted(values_of(relation), key=lambda value: _hash(f"{relation}:{len(group)}:{value}"))
            order = sorted(group, key=lambda name: _hash(f"fact:{relation}:{name}"))
            for rank, name in enumerate(order):
                made[name][relation] = values[rank % len(values)]
    return made


def values_of(relation: str) -> tuple[str, ...]:
    """The values a relation can take, by key."""
    return tuple(_text("en")["values"][relation])


def word(relation: str, value: str, language: str) -> str:
    """A value in a language."""
    return str(_text(language)["values"][relation][value])


def title(name: str, language: str) -> str:
    """What a thing is called in a language."""
    return str(_text(language)["name"][name])


def wordings(table: str, relation: str | None, language: str, kind: Wordings) -> list[str]:
    """The wordings of a table of the text files: `question`, `named` or `card` of a relation, `opening` or `filler`."""
    entry = _text(language)[table]
    return list((entry if relation is None else entry[relation])[kind])


def card(name: str, told: Sequence[Fact], language: str, kind: Wordings, draw: random.Random) -> str:
    """The text of a card.

    Args:
        name: What the thing is called, in `language`.
        told: The facts, in the order they are told.
        language: Code of one of the sample's languages.
        kind: Which wordings to draw from.
        draw: Chooses among them.
    """
    sentences = [draw.choice(wordings("opening", None, language, kind)).replace("{name}", name)]
    for fact in told:
        wording = draw.choice(wordings("card", fact.relation, language, kind))
        sentences.append(wording.replace("{value}", word(fact.relation, fact.value, language)))
    sentences.append(draw.choice(wordings("filler", None, language, kind)))
    return ("" if language in ("ja", "zh_cn") else " ").join(sentences)


def options(relation: str, value: str, position: int, draw: random.Random) -> list[str]:
    """Four values with the right one at `position`; the others are drawn evenly."""
    others = draw.sample([other for other in values_of(relation) if other != value], 3)
    return [*others[:position], value, *others[position:]]


def questions() -> Iterator[Question]:
    """The held-out questions: each thing once in each language, its four facts and four pictures in turn.

    `category` says whether the thing is `known` or `new`, `prompt_type` which fact is asked.
    """
    for row, name in enumerate(things()):
        for column, language in enumerate(sample.LANGUAGES):
            relation = RELATIONS[(row + column) % len(RELATIONS)]
            variant = (row + column // 4) % VARIANTS
            yield _question(name, relation, language, variant, position=(row + 3 * column) % 4)


def documents() -> Iterator[Document]:
    """The corpus: every thing's card in every language, then the sample's articles, which say nothing of the museum."""
    for name in things():
        for language in sample.LANGUAGES:
            draw = random.Random(f"museum card:{name}:{language}")
            told = [Fact(relation, facts()[name][relation]) for relation in RELATIONS]
            draw.shuffle(told)
            yield Document(
                document_id=f"{NAME}:{name}:{language}",
                title=title(name, language),
                text=card(title(name, language), told, language, "test", draw),
                language=language,
                source=NAME,
                image=str(FOLDER / "images" / f"{name}-card.webp"),
                license=LICENSE,
                extra={"concept": name, "gold": True},
            )
    yield from sample.documents()


def picture(name: str, variant: int | Literal["card"]) -> Path:
    """A shipped picture of a thing, 112 x 112."""
    return FOLDER / "images" / f"{name}-{variant}.webp"


def named_question(name: str, relation: str, language: str, kind: Wordings, draw: random.Random) -> str:
    """A question that names the thing, as a visitor types it into a search field."""
    return draw.choice(wordings("named", relation, language, kind)).replace("{name}", title(name, language))


def _question(name: str, relation: str, language: str, variant: int, position: int) -> Question:
    value = facts()[name][relation]
    question_id = f"{NAME}-{name}-{language}"
    chosen = options(relation, value, position, random.Random(question_id))
    return Question(
        question_id=question_id,
        dataset=NAME,
        language=language,
        question=wordings("question", relation, language, "test")[0],
        options=tuple(word(relation, option, language) for option in chosen),
        answer_index=position,
        category="known" if name in known() else "new",
        prompt_type=relation,
        image=str(picture(name, variant)),
        group=f"{name}-{variant}",
        gold=(f"{NAME}:{name}",),
        extra={"concept": name, "evidence": word(relation, value, "en")},
    )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@cache
def _text(language: str) -> dict[str, Any]:
    """One of the tables. They are part of the package, so a fault in them is a bug that the tests find."""
    return tomllib.loads((FOLDER / "text" / f"{language}.toml").read_text(encoding="utf-8"))
