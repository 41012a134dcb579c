"""The museum benchmark: complete in every language, balanced, and split so that nothing held out is trained on."""

from __future__ import annotations

import random
import re
import tomllib
import unicodedata
from collections import Counter

import pytest

from m4rag.datasets import load_documents, load_questions, museum, sample
from m4rag.errors import UsageError
from m4rag.training import tasks, texts

QUESTIONS = load_questions("museum")
TABLES = ("question", "named", "card", "opening", "filler")


def shape(table: object) -> object:
    """The keys of nested tables, and the lengths of lists."""
    if isinstance(table, dict):
        return {key: shape(value) for key, value in table.items()}
    return len(table) if isinstance(table, list) else str


@pytest.mark.parametrize("language", sample.LANGUAGES)
def test_every_language_has_every_wording_in_its_place(language: str) -> None:
    raw = (museum.FOLDER / "text" / f"{language}.toml").read_text(encoding="utf-8")
    table, english = tomllib.loads(raw), tomllib.loads((museum.FOLDER / "text/en.toml").read_text(encoding="utf-8"))
    assert unicodedata.is_normalized("NFC", raw)
    assert shape(table) == shape(english)
    words = [word for values in table["values"].values() for word in values.values()]
    assert len(set(words)) == len(words)
    assert len(set(table["name"].values())) == len(table["name"]) == len(museum.things())
    for relation in museum.RELATIONS:
        for kind in ("train", "test"):
            assert all(text.count("{value}") == 1 and "{name}" not in text for text in table["card"][relation][kind])
            assert all(text.count("{name}") == 1 for text in table["named"][relation][kind])
            assert all("{" not in text for text in table["question"][relation][kind])
        for part in ("question", "named", "card"):
            assert not set(table[part][relation]["train"]) & set(table[part][relation]["test"])


def test_questions_are_balanced_so_that_no_prior_beats_chance() -> None:
    assert Counter(question.answer_index for question in QUESTIONS) == dict.fromkeys(range(4), 216)
    assert Counter(question.category for question in QUESTIONS) == {"known": 576, "new": 288}
    for category in ("known", "new"):
        for relation in museum.RELATIONS:
            asked = [q for q in QUESTIONS if q.category == category and q.prompt_type == relation]
            values = Counter(museum.facts()[str(q.extra["concept"])][relation] for q in asked)
            assert len(asked) == len(QUESTIONS) // 4 * (2 if category == "known" else 1) // 3
            assert len(values) == len(museum.values_of(relation))
    for question in QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.options[question.answer_index] == museum.word(
            question.prompt_type,
            museum.facts()[str(question.extra["concept"])][question.prompt_type],
            question.language,
        )


def test_every_question_has_its_card_in_every_language() -> None:
    documents = {document.document_id: document for document in load_documents("museum")}
    assert len(documents) == 864 + len(list(sample.documents()))
    for question in QUESTIONS:
        (gold,) = question.gold
        for language in sample.LANGUAGES:
            told = documents[f"{gold}:{language}"].text
            value = museum.facts()[str(question.extra["concept"])][question.prompt_type]
            assert museum.word(question.prompt_type, value, language) in told


def test_the_museum_takes_no_path(tmp_path) -> None:
    with pytest.raises(UsageError, match="museum is inside the package"):
        load_documents("museum", tmp_path)


def test_training_never_names_a_new_thing_or_uses_a_held_out_wording() -> None:
    new = sorted(set(museum.things()) - museum.known())
    assert len(new) == 18
    with pytest.raises(ValueError, match="is new"):
        texts.known_name(new[0], "en")
    with pytest.raises(ValueError, match="is new"):
        texts.true_facts(new[0])
    held_out = {
        wording.split("{")[0]
        for language in sample.LANGUAGES
        for relation in museum.RELATIONS
        for table in ("question", "card")
        for wording in museum.wordings(table, relation, language, "test")
    }
    new_names = [museum.title(name, "en") for name in new if len(museum.title(name, "en")) > 5]
    for number in range(400):
        example = tasks.example(f"test:{number}")
        said = "\n".join(part for turn in example.turns for part in turn)
        assert not [name for name in new_names if f" {name}" in said]
        assert not [wording for wording in held_out if len(wording) > 12 and wording in said]
        if example.kind in ("know", "fall", "caption"):
            assert example.sprite in museum.known()


def test_an_example_depends_on_its_key_alone() -> None:
    first = tasks.example("a")
    random.random()
    assert tasks.example("a") == first
    assert tasks.example("b") != first


def test_judged_passages_in_training_are_as_long_as_held_out_ones() -> None:
    """What the judge compares was never found when the passage in between was longer than any in training."""
    held_out = max(len(document.text) for document in museum.documents())
    lengths = [
        len(prompt.split("### Context\n- ")[1].split("\n\n### Rubric")[0])
        for number in range(400)
        if (example := tasks.example(f"length:{number}")).kind == "judge"
        for prompt, _ in example.turns
    ]
    assert sum(length > held_out for length in lengths) > len(lengths) / 20


def test_a_judge_is_taught_the_right_value_before_what_the_passage_says() -> None:
    scores = {}
    for number in range(400):
        for _, reply in tasks.example(f"judge:{number}").turns:
            said = re.search(r'"Right is (\w+)\. (?:.* (\w+)\.)?.*"answer":(\d)', reply)
            if said and "does not say" not in reply:
                scores.setdefault(said[1] == said[2], set()).add(said[3])
    assert scores == {True: {"5"}, False: {"1"}}


def test_a_thinned_card_keeps_its_values() -> None:
    for number in range(40):
        draw = random.Random(number)
        language = draw.choice(sample.LANGUAGES)
        told = texts.drawn_facts(draw)
        card = museum.card("X", told, language, "train", draw)
        thinned = tasks._thinned(card, language, draw, 0)
        assert len(thinned) <= len(card)
        assert all(museum.word(fact.relation, fact.value, language) in thinned for fact in told)
