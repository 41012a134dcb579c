"""What the VLM is taught, one example at a time: answer, caption, judge. Prompts are those of `m4rag.vlm.prompts`.

An example depends on its key and its place in the course alone, so training is repeatable and can resume anywhere.
Contexts are a single short card at first, then as long as retrieval brings them. Before all that, `words` teaches what
is hard to see in long prompts: which option says a word. The mixture:

    know     a known thing, no context: its fact from memory
    read     cards in the context state facts drawn for this example alone, first the thing's own: copy, don't remember
    fall     the context says nothing of the museum: a known thing's fact from memory
    caption  what a known thing is
    judge    1 to 5 for a passage, with or without the correct answer
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from m4rag.datasets import museum, museum_pictures, sample
from m4rag.datasets.museum import Fact
from m4rag.training.texts import (
    LANGUAGES,
    articles,
    drawn_facts,
    drawn_name,
    found,
    judged,
    known_name,
    true_facts,
    values,
)
from m4rag.vlm.prompts import render_caption, render_judge, render_question

KINDS = {"know": 0.24, "read": 0.35, "fall": 0.06, "caption": 0.05, "judge": 0.3}
"""Share of each kind of example."""

SIMPLE = 0.2
"""Share of the course in which a context is one card that says nothing but what is asked."""

EXCERPT = 120
"""Characters of an article in training; whole articles would double the cost of a step."""

MOST_AROUND = 400
"""Characters of text before a judged card, and after it. A place that was never so far away is not found."""


@dataclass(frozen=True)
class Example:
    """A conversation about a sprite's picture ("" for none): prompts, and the replies that are taught.

    Several turns share the picture and the context of the first: each teaches as much as an example of its own and
    costs less.
    """

    kind: str
    sprite: str
    turns: tuple[tuple[str, str], ...]


def example(key: str, done: float = 1.0) -> Example:
    """The example of a key.

    Args:
        key: Determines what is drawn.
        done: Share of the course that lies behind, 0 to 1.
    """
    draw = random.Random(key)
    kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
    return MAKERS[kind](draw, done < SIMPLE)


def words(key: str) -> Example:
    """A first lesson: one value and others in any languages. Which option says it, or is it the right one?

    No picture, few tokens.
    """
    draw = random.Random(key)
    if draw.random() < 0.4:
        return _word_judged(draw)
    asked, language, position = draw.choice(drawn_facts(draw)), draw.choice(LANGUAGES), draw.randrange(4)
    options = museum.options(asked.relation, asked.value, position, draw)
    prompt = render_question(
        museum.word(asked.relation, asked.value, draw.choice(LANGUAGES)),
        [museum.word(asked.relation, option, language) for option in options],
    )
    return Example("words", "", ((prompt, answer(found(asked, options, language), position + 1)),))


def _word_judged(draw: random.Random) -> Example:
    """Values between other text: what do they say of the thing that is asked about, and is that the correct answer?"""
    told = drawn_facts(draw)
    said = draw.choice(told)
    asked = said if draw.random() < 0.4 else _other(said, draw)
    language, passage_language = draw.choice(LANGUAGES), draw.choice(LANGUAGES)
    said_in = [museum.word(fact.relation, fact.value, passage_language) for fact in told]
    parts = [*said_in, _snippet(draw), _snippet(draw)]
    draw.shuffle(parts)
    prompt = render_judge(
        _judged_question(asked, language, draw),
        ". ".join(filter(None, parts)),
        museum.word(asked.relation, asked.value, language),
    )
    return Example("words", "", ((prompt, answer(judged(said, asked), 5 if said == asked else 1)),))


def _judged_question(asked: Fact, language: str, draw: random.Random) -> str:
    """A question, often in pieces: no options say what is asked, so wordings would be learned by heart."""
    question = draw.choice(museum.wordings("question", asked.relation, language, "train"))
    return _thinned(question, language, draw, 0) if draw.random() < 0.8 else question


def _other(fact: Fact, draw: random.Random) -> Fact:
    return Fact(fact.relation, draw.choice([value for value in museum.values_of(fact.relation) if value != fact.value]))


def answer(explanation: str, number: int) -> str:
    """A model's reply as JSON, as constrained decoding writes it."""
    return json.dumps({"explanation": explanation, "answer": number}, ensure_ascii=False, separators=(",", ":"))


def caption(name: str) -> str:
    """A known thing's caption."""
    concept = _concepts()[name]
    return f"This is {known_name(name, 'en')}, from {concept.continent}."


def _know(draw: random.Random, simple: bool) -> Example:
    del simple
    thing = _known_thing(draw)
    return Example("know", thing, _conversation(true_facts(thing), [], draw))


def _read(draw: random.Random, simple: bool) -> Example:
    """The thing's own cards are the first cards; what follows is about other things, as in a fair ranking."""
    sprite, name_in, told = _subject(draw)
    if simple:
        told = draw.sample(told, 2)
    passages = _cards(name_in, told, told, draw, count=1 if simple else None)
    if not simple:
        passages += [
            _other_card(draw) if draw.random() < 0.5 else _excerpt(draw)[0]
            for _ in range(draw.choices((0, 1, 2, 4), (0.6, 0.2, 0.1, 0.1))[0])
        ]
        if draw.random() < 0.3:
            passages.insert(0, _excerpt(draw)[0])
    return Example("read", sprite, _conversation(told, passages[:5], draw))


def _fall(draw: random.Random, simple: bool) -> Example:
    thing = _known_thing(draw)
    passages = [_excerpt(draw)[0] for _ in range(1 if simple else draw.choice((1, 2, 3)))]
    return Example("fall", thing, _conversation(true_facts(thing), passages, draw))


def _caption(draw: random.Random, simple: bool) -> Example:
    del simple
    thing = _known_thing(draw)
    return Example("caption", thing, ((render_caption(), caption(thing)),))


def _judge(draw: random.Random, simple: bool) -> Example:
    del simple
    sprite, name_in, told = _subject(draw)
    return Example("judge", sprite, tuple(_judgement(sprite, name_in, told, draw) for _ in range(2)))


def _judgement(sprite: str, name_in: Callable[[str], str], told: list[Fact], draw: random.Random) -> tuple[str, str]:
    """A passage that states the fact scores 5 where it agrees with the correct answer and 1 where it does not.

    Without the correct answer a stated fact can't be confirmed: 4. A text without the fact scores 2 if it is about the
    thing and 1 if not. Most passages don't state the correct answer: to repeat it instead of reading is mostly wrong.
    """
    asked = draw.choice(told)
    shown = draw.random() < 0.85
    language = draw.choice(LANGUAGES)
    match draw.random():
        case share if share < 0.2:
            passage = _within_text(_cards(name_in, told, [asked], draw, count=1)[0], draw)
            score, why = (5 if shown else 4), judged(asked, asked if shown else None)
        case share if share < 0.7:
            lie = _other(asked, draw)
            rest = [fact for fact in drawn_facts(draw) if fact.relation != asked.relation]
            passage = _within_text(_cards(_any_name(draw), [lie, *rest], [lie], draw, count=1)[0], draw)
            score, why = (1 if shown else 4), judged(lie, asked if shown else None)
        case _:
            excerpt, concept = _excerpt(draw)
            passage = _within_text(excerpt, draw)
            score, why = (2 if concept == sprite else 1), judged(None, asked if shown else None)
    question = _judged_question(asked, language, draw)
    correct = museum.word(asked.relation, asked.value, language) if shown else None
    return render_judge(question, passage, correct), answer(why, score)


MAKERS: dict[str, Callable[[random.Random, bool], Example]] = {
    "know": _know,
    "read": _read,
    "fall": _fall,
    "caption": _caption,
    "judge": _judge,
}


def _conversation(asked: list[Fact], passages: list[str], draw: random.Random) -> tuple[tuple[str, str], ...]:
    """A question about each fact, in any order; the first shows the passages. No turn can copy an earlier answer."""
    first, *others = draw.sample(asked, len(asked))
    return (_turn(first, passages, draw), *(_turn(fact, [], draw) for fact in others))


def _turn(asked: Fact, passages: list[str], draw: random.Random) -> tuple[str, str]:
    """A multiple-choice question in some language, with or without context, and the reply."""
    language = draw.choice(LANGUAGES)
    position = draw.randrange(4)
    options = museum.options(asked.relation, asked.value, position, draw)
    prompt = render_question(
        draw.choice(museum.wordings("question", asked.relation, language, "train")),
        [museum.word(asked.relation, option, language) for option in options],
        passages,
    )
    return prompt, answer(found(asked, options, language), position + 1)


def _any_name(draw: random.Random) -> Callable[[str], str]:
    """A name of nothing or of a known thing: that a name is known says nothing of a card."""
    if draw.random() < 0.6:
        thing = _known_thing(draw)
        return lambda language: known_name(thing, language)
    return lambda language: drawn_name(language, draw)


def _within_text(card: str, draw: random.Random) -> str:
    """A card with other text around it: 30 to 450 tokens; held-out cards have 90 to 140, articles up to 200."""
    return " ".join(part for part in (_snippet(draw), card, _snippet(draw)) if part)


def _snippet(draw: random.Random) -> str:
    """Nothing, or a piece of an article."""
    if draw.random() < 0.4:
        return ""
    text = draw.choice(articles()[_language(draw)]).text
    start = draw.randrange(len(text))
    return text[start : start + draw.randrange(MOST_AROUND)].strip()


def _subject(draw: random.Random) -> tuple[str, Callable[[str], str], list[Fact]]:
    """A sprite, its name by language and facts about it. Only known things keep their name; facts are mostly drawn."""
    if draw.random() < 0.35:
        thing = _known_thing(draw)
        told = true_facts(thing) if draw.random() < 0.4 else drawn_facts(draw)
        return thing, lambda language: known_name(thing, language), told
    return draw.choice(museum_pictures.sprites()), lambda language: drawn_name(language, draw), drawn_facts(draw)


def _cards(
    name_in: Callable[[str], str], told: list[Fact], asked: list[Fact], draw: random.Random, count: int | None = None
) -> list[str]:
    """The same facts on cards in several languages; each tells the asked facts and some of the others."""
    cards = []
    for _ in range(count or draw.choices((1, 2, 3), (0.7, 0.2, 0.1))[0]):
        language = _language(draw)
        told_here = [fact for fact in told if fact in asked or draw.random() < 0.8]
        draw.shuffle(told_here)
        card = museum.card(name_in(language), told_here, language, "train", draw)
        cards.append(_thinned(card, language, draw, 0.67) if draw.random() < 0.5 else card)
    return cards


def _thinned(text: str, language: str, draw: random.Random, least: float) -> str:
    """A text without some of its tokens, the values kept: no training wording shall be needed whole.

    Args:
        text: A card or a question.
        language: The language of both.
        draw: Chooses the tokens.
        least: The smallest share that may be left.
    """
    share = draw.uniform(least, 1)
    told = set(values(language))
    parts = [text[slice(*part)] for part in _offsets(text)]
    return "".join(part for part in parts if part.strip() in told or draw.random() < share).strip() or text


def _offsets(text: str) -> list[tuple[int, int]]:
    """Where the tokens of a text stand; letters that are several tokens stand in the first."""
    from m4rag.training.tokenizer import tokenizer

    spans, end = [], 0
    for begin, stop in tokenizer().encode(text).offsets:
        if stop > end:
            spans.append((max(begin, end), stop))
            end = stop
    return spans


def _excerpt(draw: random.Random) -> tuple[str, str | None]:
    """The beginning of an article, cut at a blank or after 120 characters, and what the article is about."""
    article = draw.choice(articles()[_language(draw)])
    text = article.text[:EXCERPT]
    return text[: text.rfind(" ")] if " " in text else text, article.concept


def _other_card(draw: random.Random) -> str:
    language = _language(draw)
    return museum.card(drawn_name(language, draw), drawn_facts(draw), language, "train", draw)


def _language(draw: random.Random) -> str:
    """A passage's language: English as often as all others together, as gold passages are shown in it."""
    return "en" if draw.random() < 0.4 else draw.choice(LANGUAGES)


def _known_thing(draw: random.Random) -> str:
    return draw.choice(sorted(museum.known()))


@cache
def _concepts() -> dict[str, sample.Concept]:
    return {concept.name: concept for concept in sample.concepts()}
