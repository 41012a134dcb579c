"""What models are asked: prompt templates, and the JSON schemas that their answers must follow.

The section structure is the published one (Question, Context, Options, Answer Format, Response) in words of our own.
The published instruction asks for the number alone and then for an object with an explanation; ours asks once.
A question's prompt is one template for all languages, whose words are in `templates/native/<code>.toml`; what is
searched with and what judges is English.
The judge's prompt (Question, Correct Answer, Context, Rubric, Answer Format, Response) is built the same way.
Question, context and options are data from datasets and retrieval: none of them can open a section of the prompt.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag import manifests
from m4rag.errors import BadData, UsageError
from m4rag.languages import lookup

if TYPE_CHECKING:
    from jinja2 import Environment, Template

TEMPLATES = Path(__file__).parent / "templates"
QUESTION, CAPTION, JUDGE = "question.jinja", "caption.en.jinja", "judge.en.jinja"
PASSAGES = "passages.en.jinja"
WORDS = "native"
"""Folder of the words that the question template takes, a file a language."""

ENGLISH, NATIVE = "en", "native"
PROMPT_LANGUAGES = (ENGLISH, NATIVE)
"""What a run's prompts can be in: all in English, or each in the language of its question."""

OWN_WORDS = frozenset({"jv_krama", "nan_spoken"})
"""Varieties with words of their own: another vocabulary, another script. All others have those of their language."""

EXPLANATION_LENGTH = 240
"""Characters. A grammar that sets no end lets a weak model explain until its tokens run out."""

BEST_SCORE = 5
"""The judge's scores run from 1, irrelevant or misleading, to this one, which confirms the right answer."""

# What a line opens with: symbols of any kind (bullets, quote marks, hashes, invisible characters) and list numbers.
OPENING = re.compile(r"(?:[\W_]*\d{1,3}[.)])*[\W_]*")
# Hashes there, ASCII, small and full-width, are a heading if there are two or a blank follows; "#1 in sales" is none.
HEADING = re.compile(r"[#\ufe5f\uff03](?:[\W_]*[#\ufe5f\uff03]|\s)")
HASHES = re.compile(r"[#\ufe5f\uff03]")
# Tokenizers read these as their control tokens wherever they stand: <|im_end|>, <image>, </s>, [INST].
CONTROL = re.compile(r"<(?=[^\s<>]{1,60}>)|\[(?=/?[A-Z_]{3,20}\])")
# What looks like the number of a passage, in a passage.
NUMBER = re.compile(r"\[(\s*\d+\s*)\]")
INDENT = "\n  "


def words_for(prompt_language: str, variety: str) -> str:
    """Code of the language that the prompt of a question is written in.

    Args:
        prompt_language: One of `PROMPT_LANGUAGES`.
        variety: The question's language: any code that `m4rag.languages.lookup` knows.

    Raises:
        UsageError: There is no such code, or its language has no words. English is never put in their place.
    """
    if prompt_language == ENGLISH:
        return ENGLISH
    found = lookup(variety)
    code = found.code if found.code in OWN_WORDS else found.language.code
    if not _words_file(code).exists():
        raise UsageError(
            f"there is no prompt in {found.language.name}", where=variety, remedy="Use --prompt-language en."
        )
    return code


def render_question(question: str, options: Sequence[str], context: Sequence[str] = (), language: str = ENGLISH) -> str:
    """The text part of a multiple-choice prompt.

    Args:
        question: The question in its own language.
        options: The options in the order they are numbered, from 1.
        context: Passages, best first; without any the prompt has no Context section.
        language: Language of all else, a code of `words_for`.

    Raises:
        BadData: The question or an option is blank: there would be nothing to answer or to choose.
    """
    if not question.strip():
        raise BadData("the question has no text")
    for number, option in enumerate(options, start=1):
        if not option.strip():
            raise BadData(f"option {number} has no text", where=_shorten(question))
    return _filled(
        _question_template(language),
        question="\n".join(_lines(question)),
        options=[" ".join(_lines(option)) for option in options],
        context=[INDENT.join(lines) for passage in context if (lines := _lines(passage))],
        explanation_length=EXPLANATION_LENGTH,
    )


def render_caption(question: str = "") -> str:
    """The text part of a prompt for an image's caption, which then serves as a search query.

    Args:
        question: What will be asked about the image, for a caption that keeps to it; "" for a general one.
    """
    return _render(CAPTION, question="\n".join(_lines(question)))


def render_judge(question: str, passage: str, answer: str | None = None) -> str:
    """The text part of a prompt that asks how much one passage helps with one question.

    Args:
        question: The question in its own language.
        passage: The passage's text, written as in the prompt of the question itself.
        answer: Text of the right option, as the published judge is given it; None where it is not known (serving).

    Raises:
        BadData: The question, the passage or the answer is blank: there would be nothing to judge.
    """
    given = {"question": question, "passage": passage, "correct answer": answer}
    lines = {name: _lines(text) for name, text in given.items() if text is not None}
    for name, written in lines.items():
        if not written:
            raise BadData(f"the {name} has no text", where=_shorten(question))
    return _render(
        JUDGE,
        question="\n".join(lines["question"]),
        passage=INDENT.join(lines["passage"]),
        answer=" ".join(lines.get("correct answer", [])),
        explanation_length=EXPLANATION_LENGTH,
        best=BEST_SCORE,
    )


def render_passages(passages: Sequence[tuple[str, str]], text: str) -> str:
    """The text of a message with passages before it, numbered from 1, as the endpoint asks a model.

    Args:
        passages: Titles and texts, best first.
        text: What the user wrote; it stays as it is.
    """
    listed = [INDENT.join(_lines(f"{title}\n{passage}")) for title, passage in passages]
    return _render(PASSAGES, passages=[NUMBER.sub(r"(\1)", passage) for passage in listed], text=text)


def judge_schema() -> dict[str, Any]:
    """JSON schema of a judgement: an explanation first, then the score from 1 to `BEST_SCORE`, nothing else."""
    return answer_schema(BEST_SCORE)


def rubric() -> list[str]:
    """What each of the judge's scores means, a line a score, as the judge reads it."""
    section = _read(JUDGE).partition("### Rubric\n")[2].partition("\n\n")[0]
    return section.splitlines()


def answer_schema(n_options: int) -> dict[str, Any]:
    """JSON schema of an answer: an explanation first, then the number of an option, nothing else."""
    return {
        "type": "object",
        "properties": {
            "explanation": {"type": "string", "maxLength": EXPLANATION_LENGTH},
            "answer": {"type": "integer", "minimum": 1, "maximum": n_options},
        },
        "required": ["explanation", "answer"],
        "additionalProperties": False,
    }


def digest(languages: Iterable[str] = (ENGLISH,)) -> str:
    """SHA-256 over all that turns a question into a request: templates, answer schema, how data is kept data.

    Args:
        languages: Codes of the languages that prompts are in (`words_for`); a change in another one moves nothing.
    """
    templates = {f"question.{code}.jinja": question_template(code) for code in languages}
    return _digest(templates | {CAPTION: _read(CAPTION)}, answer_schema(2))


def judge_digest() -> str:
    """SHA-256 over all that turns a question and a passage into a request to the judge, as `digest` is of questions."""
    return _digest({JUDGE: _read(JUDGE)}, judge_schema())


def question_template(language: str) -> str:
    """The Jinja template of a question's prompt in one language (a code of `words_for`), its words put in."""
    words = tomllib.loads(_words_file(language).read_text(encoding="utf-8"))
    return string.Template(_read(QUESTION)).substitute(words)


def _words_file(language: str) -> Path:
    return TEMPLATES / WORDS / f"{language}.toml"


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(templates: Mapping[str, str], schema: dict[str, Any]) -> str:
    patterns = [pattern.pattern for pattern in (OPENING, HEADING, HASHES, CONTROL)]
    return manifests.digest({"templates": templates, "schema": schema, "patterns": patterns})


def _lines(text: str) -> list[str]:
    """A text's lines, blank ones dropped, with nothing in them that opens a section or ends the message."""
    lines = (_without_heading(line.strip()) for line in text.splitlines())
    return [CONTROL.sub(lambda bracket: f"{bracket[0]} ", line) for line in lines if line]


def _without_heading(line: str) -> str:
    opening = OPENING.match(line)
    if opening is None or not HEADING.search(f"{opening[0]}\n" if opening[0] == line else opening[0]):
        return line
    return (HASHES.sub("", opening[0]) + line[opening.end() :]).strip()


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _render(name: str, **values: Any) -> str:
    return _filled(_environment().get_template(name), **values)


def _filled(template: Template, **values: Any) -> str:
    return template.render(values).rstrip("\n")


@lru_cache
def _question_template(language: str) -> Template:
    return _environment().from_string(question_template(language))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - prompts are text, not HTML
    )
