"""The lexical channel's words, in every script, the same for documents and queries.

Search engines' analyzers differ: Milvus Lite's `standard` splits Hindi, Tamil and vocalised Arabic at every combining
mark and keeps a Japanese sentence as one word. So the text is segmented here, and the words go to the engine as hex
digits in a field of their own (`lex`): its `standard` analyzer then only splits at spaces, on any Milvus.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regex import Pattern  # type: ignore[import-untyped]

VERSION = 1
"""Raised when a text would give other words; part of every collection's digest."""

LONGEST_BYTES = 15
"""Longer words go to the engine as a hash: some analyzers drop words of more than 40 letters."""

NOTHING = "00"
"""A word that no text has: the query of a text without words."""

NO_SPACES = ("Han", "Hira", "Kana", "Bopo", "Thai", "Laoo", "Khmr", "Mymr", "Java", "Bali", "Lana", "Tale", "Talu")
"""Scripts written without spaces between words (ISO 15924)."""

# Format characters (joiners, soft hyphens), Arabic and Hebrew vowel signs and the tatweel: written or not, it is the
# same word.
IGNORED = r"[\p{Cf}\u0591-\u05C7\u0610-\u061A\u0640\u064B-\u065F\u0670\u06D6-\u06ED]"


@cache
def _patterns() -> tuple[Pattern[str], Pattern[str], Pattern[str]]:
    import regex

    unspaced = "".join(rf"\p{{scx={script}}}" for script in NO_SPACES)
    words = rf"(?P<unspaced>(?:(?=[{unspaced}])[\p{{L}}\p{{N}}]\p{{M}}*)+)"
    words += r"|(?P<hangul>(?:\p{Hangul}\p{M}*)+)"
    words += rf"|(?:(?![{unspaced}\p{{Hangul}}])[\p{{L}}\p{{M}}\p{{N}}]\p{{M}}*)+"
    return regex.compile(IGNORED), regex.compile(words), regex.compile(r"\P{M}\p{M}*")


def words(text: str) -> list[str]:
    """The words of a text in order, folded.

    NFKC and case folding; runs of letters, marks and digits. In scripts without spaces every pair of neighbouring
    characters (with their marks) is a word, a lone character one by itself; Korean has its words and their pairs.
    """
    ignored, pattern, _ = _patterns()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    for match in pattern.finditer(ignored.sub("", folded)):
        run = match.group()
        if match["unspaced"]:
            found.extend(_pairs(run))
        else:
            found.append(run)
            if match["hangul"] and len(run) > 2:
                found.extend(_pairs(run))
    return found


def _pairs(run: str) -> Iterator[str]:
    characters = _patterns()[2].findall(run)
    if len(characters) == 1:
        yield run
    for first, second in pairwise(characters):
        yield first + second


def code(text: str) -> str:
    """The words of a text as the engine gets them: hex digits, separated by spaces; "" if there are none."""
    return " ".join(_code(word) for word in words(text))


def _code(word: str) -> str:
    data = word.encode()
    return data.hex() if len(data) <= LONGEST_BYTES else hashlib.blake2b(data, digest_size=16).hexdigest()
