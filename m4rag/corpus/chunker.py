"""Cut a document into passages at sentence boundaries, in every script.

Boundaries come from ICU (Unicode annex 29 with dictionaries for Thai, Lao, Khmer, Burmese, Chinese and Japanese). A
passage is always a slice of the source, so scripts without spaces come out right and no text is lost: the parts that
a passage does not share with the one before it, put together, are the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from m4rag.errors import BadData, UsageError
from m4rag.manifests import digest
from m4rag.schema import Chunk, Document

MAX_TOKENS = 256
OVERLAP = 50

LETTERS_A_TOKEN = 8


@dataclass(frozen=True)
class Tokenizer:
    """Counts tokens.

    Attributes:
        name: What makes two tokenizers count alike; enters the digest of everything they cut.
        count: Texts to their numbers of tokens, without any that mark begin or end.
    """

    name: str
    count: Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Span:
    """One passage as a slice of its document.

    Attributes:
        start: First code point.
        end: One past the last code point.
        fresh: Where the text begins that the passage before does not have; `start` without overlap.
    """

    start: int
    end: int
    fresh: int


@dataclass(frozen=True)
class _Unit:
    """What is never cut: a sentence, or a word of a sentence that is too long."""

    start: int
    end: int
    tokens: int


def _count_words(texts: Sequence[str]) -> list[int]:
    """Every text by itself, but with one breaker: to make one takes longer than to count a sentence."""
    from icu4py.breakers import WordBreaker

    counts = [0] * len(texts)
    number = position = 0
    end = len(texts[0]) if texts else 0
    # No word and no dictionary's run of letters goes on behind a line feed.
    for word in WordBreaker("\n".join(texts), ""):
        letters = len(word)
        position += letters
        if not word.isspace():
            while position > end:
                number += 1
                end += 1 + len(texts[number])
            counts[number] += (letters + LETTERS_A_TOKEN - 1) // LETTERS_A_TOKEN
    return counts


PORTABLE = Tokenizer(name=f"icu-words/{LETTERS_A_TOKEN}", count=_count_words)
"""Needs no model: ICU's words and punctuation marks, one token for every eight letters begun.

About three quarters of what a subword tokenizer counts in English, and independent of any encoder.
"""


def chunk_document(
    document: Document,
    tokenizer: Tokenizer = PORTABLE,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
) -> list[Chunk]:
    """The passages of a document in order; none if it has no text.

    Args:
        document: What to cut.
        tokenizer: Counts tokens.
        max_tokens: Most tokens of a passage with its title, which is embedded and indexed in front of it.
        overlap: Most tokens that a passage repeats of the one before it, in whole sentences.

    Raises:
        BadData: The title takes more than half of a passage.
        UsageError: `max_tokens` or `overlap` make no sense.
    """
    room = max_tokens - tokenizer.count([document.title + "\n"])[0]
    if room < max_tokens / 2:
        raise BadData(
            f"the title leaves {max(room, 0)} of {max_tokens} tokens for text",
            where=document.document_id,
            remedy="Shorten the title or make passages longer.",
        )
    spans = split(
        document.text, tokenizer, max_tokens=room, overlap=min(overlap, room // 2), language=document.language
    )
    texts = [document.text[span.start : span.end].strip() for span in spans]
    counts = tokenizer.count(texts)
    return [
        _chunk(document, index, text, tokens) for index, (text, tokens) in enumerate(zip(texts, counts, strict=True))
    ]


def _chunk(document: Document, index: int, text: str, tokens: int) -> Chunk:
    return Chunk(
        chunk_id=digest([document.document_id, index, document.language, text])[:32],
        document_id=document.document_id,
        index=index,
        title=document.title,
        text=text,
        language=document.language,
        source=document.source,
        tokens=tokens,
        image=document.image,
        image_digest=document.image_digest,
    )


def split(
    text: str,
    tokenizer: Tokenizer = PORTABLE,
    *,
    max_tokens: int = MAX_TOKENS,
    overlap: int = OVERLAP,
    language: str = "",
) -> list[Span]:
    """Where to cut a text.

    Sentences are packed greedily. A sentence longer than a passage is cut between words, a word longer than a passage
    between graphemes. Every passage has text that the one before it does not have.

    Args:
        text: Any text; none but white space gives no passage.
        tokenizer: Counts tokens.
        max_tokens: Most tokens of a passage.
        overlap: Most tokens that a passage repeats of the one before it.
        language: Language code; ICU knows the sentence marks of some languages.

    Raises:
        UsageError: `overlap` is not smaller than `max_tokens`, or a single character has more tokens than that.
    """
    if not 0 <= overlap < max_tokens:
        raise UsageError(
            f"an overlap of {overlap} tokens in passages of {max_tokens}", remedy="Make the overlap smaller."
        )
    if not text or text.isspace():
        return []
    units = list(_units(text, 0, 0, language, tokenizer, max_tokens))
    spans: list[Span] = []
    first = fresh = 0
    while fresh < len(units):
        first, last = _pack(text, units, first, fresh, tokenizer, max_tokens)
        spans.append(Span(units[first].start, units[last - 1].end, units[fresh].start))
        first, fresh = _step_back(units, first, last, overlap, max_tokens), last
    return spans


def _units(text: str, start: int, level: int, language: str, tokenizer: Tokenizer, max_tokens: int) -> Iterator[_Unit]:
    """Contiguous units of at most `max_tokens`, as large as the boundaries allow."""
    pieces = _pieces(text, level, language)
    for piece, tokens in zip(pieces, tokenizer.count(pieces), strict=True):
        if tokens <= max_tokens:
            yield _Unit(start, start + len(piece), tokens)
        elif len(piece) == 1:
            raise UsageError(f"{piece!r} alone has {tokens} tokens", remedy=f"Allow more than {max_tokens}.")
        else:
            yield from _units(piece, start, level + 1, language, tokenizer, max_tokens)
        start += len(piece)


def _pieces(text: str, level: int, language: str) -> list[str]:
    """Sentences, words, graphemes or code points.

    The breakers' strings are used, never their offsets: those count UTF-16 units.
    """
    from icu4py.breakers import CharacterBreaker, SentenceBreaker, WordBreaker

    breakers = (SentenceBreaker, WordBreaker, CharacterBreaker)
    return list(breakers[level](text, language)) if level < len(breakers) else list(text)


def _pack(
    text: str, units: Sequence[_Unit], first: int, fresh: int, tokenizer: Tokenizer, max_tokens: int
) -> tuple[int, int]:
    """The passage that starts with unit `first` (overlap up to `fresh`): its first unit and one past its last."""
    last, total = first, 0
    while last < len(units) and total + units[last].tokens <= max_tokens:
        total += units[last].tokens
        last += 1
    # Not every tokenizer counts a text as the sum of its sentences.
    while tokenizer.count([text[units[first].start : units[last - 1].end]])[0] > max_tokens and last - first > 1:
        if last - 1 > fresh:
            last -= 1
        else:
            first += 1
    return first, last


def _step_back(units: Sequence[_Unit], first: int, last: int, overlap: int, max_tokens: int) -> int:
    """First unit of the passage after `units[first:last]`: as many trailing units as fit beside a new one."""
    if last == len(units):
        return last
    allowed = min(overlap, max_tokens - units[last].tokens)
    start, carried = last, 0
    while start - 1 > first and carried + units[start - 1].tokens <= allowed:
        start -= 1
        carried += units[start].tokens
    return start
