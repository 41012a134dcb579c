"""The words of the lexical channel, script by script."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4rag.index.lexical import LONGEST_BYTES, NOTHING, code, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Smoky Jollof-rice, 3 ways!", ["smoky", "jollof", "rice", "3", "ways"]),
        ("हिन्दी भाषा में पुस्तक", ["हिन्दी", "भाषा", "में", "पुस्तक"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("తెలుగు వంటకం", ["తెలుగు", "వంటకం"]),
        ("සිංහල කෑම", ["සිංහල", "කෑම"]),
        ("እንጀራ፣ ጤና።", ["እንጀራ", "ጤና"]),
        ("Русский борщ", ["русский", "борщ"]),
        ("ẹ̀kọ́ ilé-ẹ̀kọ́", ["ẹ̀kọ́", "ilé", "ẹ̀kọ́"]),
        ("طبق لذيذ", ["طبق", "لذيذ"]),
        ("ქართული სუფრა", ["ქართული", "სუფრა"]),
        ("东京都 a", ["东京", "京都", "a"]),
        ("ラーメン屋2024年", ["ラー", "ーメ", "メン", "ン屋", "2024", "年"]),
        ("ไม่มี", ["ไม่", "ม่มี"]),
        ("ລາວ", ["ລາ", "າວ"]),
        ("ខ្មែរ", ["ខ្មែ", "មែរ"]),
        ("မြန်မာ", ["မြန်", "န်မာ"]),
        ("김치찌개 밥", ["김치찌개", "김치", "치찌", "찌개", "밥"]),
        ("飯", ["飯"]),
        ("🍜 — …", []),
        ("", []),
    ],
)
def test_words_of_a_script(text: str, expected: list[str]) -> None:
    import unicodedata

    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRASSE", "straße"),
        ("ｒａｍｅｎ", "ramen"),
        ("ﾗｰﾒﾝ", "ラーメン"),
        ("مُحَمَّد", "محمد"),
        ("محـــمد", "محمد"),
        ("می‌خواهم", "میخواهم"),
        ("שָׁלוֹם", "שלום"),
        ("ශ්‍රී", "ශ්රී"),
        ("e\u0301", "é"),
        ("co\u00adoperate", "cooperate"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_two_spellings_are_one_word(one: str, other: str) -> None:
    assert words(one) == words(other) != []


@given(st.text())
def test_what_the_engine_gets_splits_at_spaces_only_and_nothing_is_too_long(text: str) -> None:
    coded = code(text)
    assert re.fullmatch(r"([0-9a-f]{2,32}( [0-9a-f]{2,32})*)?", coded)
    assert len(coded.split()) == len(words(text))
    assert NOTHING not in coded.split()


@given(st.text(min_size=1), st.text(min_size=1))
def test_words_have_one_code_if_they_are_one_word(one: str, other: str) -> None:
    if len(words(one)) == len(words(other)) == 1:
        assert (code(one) == code(other)) == (words(one) == words(other))


def test_a_word_too_long_for_an_analyzer_is_hashed() -> None:
    assert code("a" * LONGEST_BYTES) == "61" * LONGEST_BYTES
    assert len(code("a" * (LONGEST_BYTES + 1))) == 32
    assert code("a" * 200 + "b") != code("a" * 200 + "c")
