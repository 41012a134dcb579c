"""Prompts in 44 wordings: each variety has one, in its own script, with the structure of the English prompt."""

from __future__ import annotations

import os
import re
import tomllib
import unicodedata
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from prompt_texts import ATTACKS, GOLDEN, PASSAGES

from m4rag import languages
from m4rag.errors import UsageError
from m4rag.languages import CVQA_PAIRS, LANGUAGES, VARIETIES, WORLDCUISINES_VARIETIES, lookup
from m4rag.vlm import prompts
from m4rag.vlm.prompts import NATIVE, OWN_WORDS, digest, render_question, words_for

FOLDER = prompts.TEMPLATES / prompts.WORDS
CODES = sorted(path.stem for path in FOLDER.glob("*.toml"))
ENGLISH_DIGEST = "bbf105f661ceebc77977882153756c69c2f116cfc27bfe880a18d9f42937c9a6"

# What a script is called in Unicode, and words that stay in Latin everywhere.
PROPERTIES = {
    "Arab": ("Arabic",), "Beng": ("Bengali",), "Cyrl": ("Cyrillic",), "Deva": ("Devanagari",), "Ethi": ("Ethiopic",),
    "Hans": ("Han",), "Hant": ("Han",), "Jpan": ("Han", "Hiragana", "Katakana"), "Kore": ("Hangul",),
    "Latn": ("Latin",), "Sinh": ("Sinhala",), "Taml": ("Tamil",), "Telu": ("Telugu",), "Thai": ("Thai",),
}  # fmt: skip
NAME = "JSON"

PLACEHOLDERS = {"explanation": ["{{ explanation_length }}"], "answer": ["{{ options | length }}"]}


def words(code: str) -> dict[str, str]:
    return tomllib.loads((FOLDER / f"{code}.toml").read_text(encoding="utf-8"))


def variety(code: str) -> languages.Variety:
    return lookup(code)


def structure(prompt: str) -> str:
    """A prompt with the words of its lines left out: headings, bullets, numbers, blank lines, JSON."""
    lines = [re.sub(r"^(### |)\S.*$", r"\1", line) if not line.startswith(" ") else line for line in prompt.split("\n")]
    return "\n".join(re.sub(r": \"?<.*>\"?", ": <>", line) for line in lines)


def test_english_prompts_are_what_runs_and_models_were_made_with() -> None:
    assert digest() == digest(["en"]) == ENGLISH_DIGEST
    assert render_question("Q", ["a", "b"], PASSAGES) == render_question("Q", ["a", "b"], PASSAGES, "en")


@pytest.mark.parametrize("code", [*WORLDCUISINES_VARIETIES, *CVQA_PAIRS, *VARIETIES, *LANGUAGES])
def test_m4rag_fault_28_every_variety_and_language_has_a_prompt(code: str) -> None:
    found = words_for(NATIVE, code)
    assert found == (lookup(code).code if lookup(code).code in OWN_WORDS else lookup(code).language.code)
    assert found in CODES
    assert words_for("en", code) == "en"


def test_no_file_is_without_a_language() -> None:
    assert set(CODES) == {words_for(NATIVE, code) for code in [*VARIETIES, *LANGUAGES]}
    assert len(CODES) == 42 + len(OWN_WORDS)


def test_hokkien_and_javanese_have_two_wordings_each() -> None:
    assert [words_for(NATIVE, code) for code in ("nan", "nan_spoken")] == ["nan", "nan_spoken"]
    assert [words_for(NATIVE, code) for code in ("jv_ngoko", "jav-ID", "jv_krama")] == ["jv", "jv", "jv_krama"]


def test_a_language_without_words_is_refused_and_never_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "TEMPLATES", tmp_path)
    with pytest.raises(UsageError, match=r"yo: there is no prompt in Yoruba\. Use --prompt-language en"):
        words_for(NATIVE, "yo")
    with pytest.raises(UsageError, match="unknown language code 'tlh'"):
        words_for(NATIVE, "tlh")


@pytest.mark.parametrize("code", CODES)
def test_each_wording_is_complete_and_holds_each_placeholder_once(code: str) -> None:
    given = words(code)
    assert list(given) == list(words("en"))
    for name, text in given.items():
        assert text.strip() == text
        assert unicodedata.is_normalized("NFC", text)
        assert re.findall(r"\{\{.*?\}\}", text) == PLACEHOLDERS.get(name, [])
        assert not regex.search(r"[\p{Cc}\p{Bidi_Control}<>#$\"\\]", text)
        # Digits that people of the language may write otherwise: options are numbered in these.
        assert not regex.search(r"[\p{Nd}--[0-9]]", text, regex.V1)
    assert "1" in given["answer"]
    assert NAME in given["reply"]
    titles = [given[name] for name in ("question", "context", "options", "answer_format")]
    assert len(set(titles)) == len(titles)


def test_no_wording_is_another_ones() -> None:
    for name in ("instruction", "reply"):
        assert len({words(code)[name] for code in CODES}) == len(CODES)


@pytest.mark.parametrize("code", CODES)
def test_words_are_in_the_script_of_the_language(code: str) -> None:
    script = "|".join(rf"\p{{Script={name}}}" for name in PROPERTIES[variety(code).script])
    for text in words(code).values():
        shown = re.sub(r"\{\{.*?\}\}", "", text).replace(NAME, "")
        letters = regex.findall(r"\p{L}", shown)
        assert letters
        strange = [letter for letter in letters if not regex.match(script, letter) and letter != "ー"]
        assert not strange, f"{strange} in {text!r}"


@pytest.mark.parametrize(("code", "charset"), [("zh", "gb2312"), ("nan", "gb2312"), ("yue", "big5hkscs")])
def test_chinese_characters_are_simplified_or_traditional_as_the_questions_are(code: str, charset: str) -> None:
    for text in words(code).values():
        text.encode(charset)
    assert variety(code).script == ("Hant" if charset == "big5hkscs" else "Hans")


@pytest.mark.parametrize("code", CODES)
def test_the_structure_is_that_of_the_english_prompt(code: str) -> None:
    for context in ([], PASSAGES):
        shown = render_question("Q?", ["a", "b", "c"], context, code)
        assert structure(shown) == structure(render_question("Q?", ["a", "b", "c"], context))
        assert "\nQ?\n" in shown
        assert "\n1. a\n2. b\n3. c\n" in shown
        assert [line.split(":")[0].strip() for line in shown.split("\n") if line.startswith('    "')] == [
            '"explanation"',
            '"answer"',
        ]
        assert "240" in shown
        assert shown.count("3") == 2 + words(code)["answer"].count("3")


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=10)
@given(question=ATTACKS, option=ATTACKS, passage=ATTACKS)
def test_no_text_opens_a_section_in_any_language(code: str, question: str, option: str, passage: str) -> None:
    heading = f"### {words(code)['response']}"
    rendered = render_question(
        f"Q {question}\n{heading}", [f"A {option}\n{heading}", "B"], [f"{heading}\n{passage}", "end"], code
    )
    assert len(re.findall(r"^[\W_]*[#＃﹟][\W_]*[#＃﹟]", rendered, re.MULTILINE)) == 5
    assert rendered.split("\n").count(heading) == 1
    assert not re.search(r"<image>|<\|im_end\|>|</s>|\[INST\]", rendered)


def test_native_prompts_are_the_golden_ones() -> None:
    rendered = "\n".join(
        f"{'=' * 20} {code}\n{render_question('…?', ['…', '…', '…', '…'], ['…'], code)}\n" for code in CODES
    )
    path = GOLDEN / "native_questions.txt"
    if os.environ.get("M4RAG_REGENERATE") == "1":
        path.write_text(rendered, encoding="utf-8")
    assert rendered == path.read_text(encoding="utf-8"), "M4RAG_REGENERATE=1 accepts the change; read the diff"


def test_the_digest_follows_the_words_that_are_used_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(["yo"]), digest(["yo", "en"]), digest(["sw"])
    assert len({*before, ENGLISH_DIGEST}) == 4
    assert digest(["en", "yo"]) == before[1]
    for path in prompts.TEMPLATES.rglob("*.*"):
        copy = tmp_path / path.relative_to(prompts.TEMPLATES)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8").replace("Ìbéèrè", "Ìbéérè"), encoding="utf-8")
    monkeypatch.setattr(prompts, "TEMPLATES", tmp_path)
    after = digest(["yo"]), digest(["yo", "en"]), digest(["sw"])
    assert [new != old for new, old in zip(after, before, strict=True)] == [True, True, False]
    assert digest() == ENGLISH_DIGEST


def test_the_table_beside_the_files_says_which_varieties_share_one() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*?\| (.*?) \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {code: set(re.findall(r"`([\w-]+)`", shared)) for code, shared in rows}
    codes = [*WORLDCUISINES_VARIETIES, *CVQA_PAIRS]
    assert shown == {own: {code for code in codes if words_for(NATIVE, code) == own} for own in CODES}
