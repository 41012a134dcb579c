"""Answers are read strictly: the last object counts, an option that does not exist is no answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.schema import Status
from m4rag.vlm.parsing import Parsed, paper_parity, parse, stated_number

FENCE = "```"


def ok(number: int) -> Parsed:
    return Parsed(number - 1, Status.OK)


UNPARSABLE = Parsed(None, Status.UNPARSABLE)
OUT_OF_RANGE = Parsed(None, Status.OUT_OF_RANGE)
TRUNCATED = Parsed(None, Status.TRUNCATED)
REFUSED = Parsed(None, Status.REFUSED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The rows on which the published parser was run; what it made of them stands behind each.
        ('{"explanation": "Thin dough", "answer": 3}', ok(3)),  # 3
        ('{"explanation": "Thin dough", "answer": "3"}', ok(3)),  # 3
        (f'{FENCE}json\n{{"explanation": "x", "answer": 3}}\n{FENCE}', ok(3)),  # 3
        ('I think {"answer": 1} at first.</think>{"explanation": "x", "answer": 3}', ok(3)),  # 1: the first match
        ('First I say {"answer": 1}, but then: {"explanation": "x", "answer": 3}', ok(3)),  # 1
        ('{"answer": "3. Foo"}', ok(3)),  # "3. Foo": wrong
        (f'{FENCE}\n{{"answer": "3. Foo"}}\n{FENCE}', ok(3)),  # 3
        ('{"answer": 3.0}', ok(3)),  # "3.0": wrong
        ('{"answer": null}', UNPARSABLE),  # "None": wrong
        ('[{"answer": 3}]', ok(3)),  # None
        ("3", UNPARSABLE),  # None
        ("The answer is 3", UNPARSABLE),  # None
        ("Answer: 2", UNPARSABLE),  # None
        ('{"answer": 7}', OUT_OF_RANGE),  # 7, not flagged
    ],
)
def test_what_the_published_parser_was_run_on(text: str, expected: Parsed) -> None:
    assert parse(text, 5, "stop") == expected


# The same rows as the published parser was seen to read them. None counts as wrong, whatever it became on the way.
@pytest.mark.parametrize(
    ("fault", "text", "expected"),
    [
        ("none: a clean object", '{"explanation": "Thin dough", "answer": 3}', 3),
        ("none: a number as text", '{"explanation": "Thin dough", "answer": "3"}', 3),
        ("none: fenced", f'{FENCE}json\n{{"explanation": "x", "answer": 3}}\n{FENCE}', 3),
        (
            "the first match wins over the final object",
            'I think "answer": 1</think>{"explanation": "x", "answer": 3}',
            1,
        ),
        ("the first of two objects wins", '{"answer": 1} or rather {"answer": 3}', 1),
        ("an option's text behind its number", '{"answer": "3. Foo"}', None),
        ("which is read inside a fence", f'{FENCE}\n{{"answer": "3. Foo"}}\n{FENCE}', 3),
        ("a float", '{"answer": 3.0}', None),
        ("null becomes the text None", '{"answer": null}', None),
        ("a list", '[{"answer": 3}]', None),
        ("a bare number", "3", None),
        ("prose", "The answer is 3", None),
        ("a capital letter", "Answer: 2", None),
        ("a cut off explanation that mentions an answer", '{"explanation": "1 is out, so answer: 4 is', 4),
        ("out of range and not flagged", '{"answer": 7}', 7),
        ("true", '{"answer": true}', None),
        ("leading zero", '{"answer": "03"}', None),
        ("nested", '{"result": {"answer": 2}}', None),
        ("digits of another script", '{"answer": "३"}', None),
        ("thousands of digits", '{"answer": ' + "9" * 5000 + "}", None),
        ("thousands of brackets", "[" * 100_000, None),
        ("nothing", "", None),
    ],
)
def test_paper_parity_keeps_the_fault(fault: str, text: str, expected: int | None) -> None:
    assert paper_parity(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<think>{"answer": 1}</think>{"answer": 2}', 2),
        ('{"answer": 9}', 9),
        ('{"answer": "Foo"}', None),
        ('<think>{"answer": 1}', None),
        ("2", None),
    ],
)
def test_the_number_that_an_object_states(text: str, expected: int | None) -> None:
    assert stated_number(text) == expected


def test_a_cut_off_explanation_that_mentions_an_answer_is_no_answer() -> None:
    assert parse('{"explanation": "options 1 and 2 are out, so answer: 4 is', 5, "length") == TRUNCATED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (1, ok(1)),
        (5, ok(5)),
        (0, OUT_OF_RANGE),
        (6, OUT_OF_RANGE),
        (-1, OUT_OF_RANGE),
        ("-1", OUT_OF_RANGE),
        (3.5, UNPARSABLE),
        (True, UNPARSABLE),
        ([3], UNPARSABLE),
        ({"answer": 3}, UNPARSABLE),
        ("", UNPARSABLE),
        (" 3 ", ok(3)),
        ("3.0", ok(3)),
        ("3.", ok(3)),
        ("3) Foo", ok(3)),
        ("3: Foo", ok(3)),
        ("(3)", ok(3)),
        ("३", ok(3)),
        ("٣. كشري", ok(3)),
        ("3.5", UNPARSABLE),
        ("3 dishes", UNPARSABLE),
        ("7 Up", UNPARSABLE),
        ("Foo", UNPARSABLE),
        ("9" * 50, UNPARSABLE),
    ],
)
def test_which_values_are_an_option(answer: object, expected: Parsed) -> None:
    assert parse(json.dumps({"explanation": "x", "answer": answer}), 5, "stop") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"result": {"answer": 2}}', ok(2)),
        ('{"steps": [{"answer": 1}, {"answer": 2}]}', ok(2)),
        ('{"answer": 2, "details": {"answer": 1}}', ok(2)),
        ('{"answer": 1, "answer": 2}', ok(2)),
        ('{"explanation": "a brace } and { another", "answer": 2}', ok(2)),
        ('A set {x} is no object. {"answer": 2} So it is.', ok(2)),
        ('{"answer": 2}\n{"note": "done"}', UNPARSABLE),
        ('{"explanation": "raw\ncontrol \x1b characters", "answer": 2}', ok(2)),
        ('{"answer": 2', UNPARSABLE),
        ("", UNPARSABLE),
        ('{"answer": 1e999}', UNPARSABLE),
        ('{"answer": NaN}', UNPARSABLE),
        ('{"answer": ' + "9" * 5000 + "}", UNPARSABLE),
        ('{"a":' * 5000, UNPARSABLE),
        ("{" * 5000, UNPARSABLE),
    ],
)
def test_m4rag_fault_01_the_last_outermost_object_counts(text: str, expected: Parsed) -> None:
    assert parse(text, 5, "stop") == expected


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ('<think>{"answer": 1}</think>{"answer": 2}', "stop", ok(2)),
        ('<think>a</think>{"answer": 1}<think>b</think>{"answer": 2}', "stop", ok(2)),
        ('<think>{"answer": 1}', "stop", UNPARSABLE),
        ('<think>{"answer": 1}', "length", TRUNCATED),
        ('{"answer": 1}</think>', "stop", UNPARSABLE),
    ],
)
def test_m4rag_fault_01_what_is_thought_is_not_answered(text: str, finish: str, expected: Parsed) -> None:
    assert parse(text, 5, finish) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"explanation": "x", "answer": 2}', ok(2)),
        ('{"answer": 1} No, wait: {"explanation": "it is rather', TRUNCATED),
        ('{"explanation": "x", "details": {"answer": 2}, "answer":', TRUNCATED),
        ("It is a soup, because", TRUNCATED),
        ('{"answer": "Foo"}', UNPARSABLE),
        ('{"answer": 9}', OUT_OF_RANGE),
        ("I'm sorry, but I can't", TRUNCATED),
    ],
)
def test_m4rag_fault_02_at_the_token_limit_only_a_complete_object_counts(text: str, expected: Parsed) -> None:
    assert parse(text, 5, "length") == expected


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("I'm sorry, but I can't help with that.", "stop"),
        ("I\u2019m sorry, I cannot identify people.", "stop"),
        ("As an AI language model, I do not eat.", "stop"),
        ('{"explanation": "I cannot identify the person", "answer": null}', "stop"),
        ("", "content_filter"),
        ('{"answer": 2}', "content_filter"),
        ("No.", "refusal"),
    ],
)
def test_refusals_are_told_apart(text: str, finish: str) -> None:
    assert parse(text, 5, finish) == REFUSED


def test_an_apology_with_an_answer_is_an_answer() -> None:
    assert parse('I\'m sorry for the wait. {"explanation": "x", "answer": 2}', 5, "stop") == ok(2)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["answer", "explanation", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["{", "}", '"', "</think>", "<think>", '{"answer":', "\\", "I cannot", "```json\n"]),
    JSONISH.map(json.dumps),
)


@given(
    text=st.lists(PIECES, max_size=8).map("".join),
    n_options=st.integers(2, 8),
    finish=st.sampled_from(["stop", "length", "content_filter", "abort", None]),
)
def test_it_never_raises_and_never_accepts_an_option_that_is_not_there(
    text: str, n_options: int, finish: str | None
) -> None:
    assert isinstance(paper_parity(text), int | None)
    parsed = parse(text, n_options, finish)
    if parsed.status is Status.OK:
        assert parsed.choice is not None
        assert 0 <= parsed.choice < n_options
    else:
        assert parsed.choice is None


@given(
    before=st.text(alphabet=st.characters(exclude_characters="<"), max_size=40).filter(lambda text: "{" not in text),
    explanation=st.text(max_size=60),
    answer=st.integers(1, 5),
)
def test_a_clean_object_is_read_whatever_its_explanation_says(before: str, explanation: str, answer: int) -> None:
    said = json.dumps({"explanation": explanation.replace("</think>", ""), "answer": answer}, ensure_ascii=False)
    if "<think>" not in said:
        assert parse(before + said, 5, "stop") == ok(answer)
