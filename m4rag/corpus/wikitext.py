"""Wikitext to plain text: what a reader of the page would read as running text.

Kept are paragraphs, headings, lists and the labels of links. Left out are templates (so what a page is given by them,
infoboxes above all), tables, pictures with their captions, footnotes, formulas, categories and comments. Templates are
programs of their wiki and cannot be run here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mwparserfromhell.wikicode import Wikicode

VERSION = 1
"""Raised when the same wikitext would give another text."""

LEFT_OUT_TAGS = frozenset(
    {
        "ref", "references", "gallery", "table", "math", "chem", "score", "timeline", "graph", "mapframe", "maplink",
        "imagemap", "syntaxhighlight", "source", "templatestyles", "style", "script", "hr", "noinclude", "categorytree",
        "inputbox", "indicator",
    }
)  # fmt: skip
BREAKS = frozenset({"br", "li", "dt", "dd", "p", "div", "blockquote", "center", "ul", "ol", "dl"})
DEEPEST = 6
"""Levels of headings."""

LEFT_OUT_NAMESPACES = frozenset({"file", "image", "media", "category"})

_BREAK = "\v"  # a new line, unless there is one; no page can hold this character
_BREAKS = re.compile(rf"[ \t]*\n?(?:[ \t]*{_BREAK}[ \t]*)+\n?")
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
_SWITCH = re.compile(r"__[^\W\d_]+__")
_SPACES = re.compile(r"[^\S\n]+")
# What stays of brackets around a template. Not `f()`.
_EMPTY_BRACKETS = re.compile(r"(?: \(|（)\s*[,;、،؛]*\s*[)）]")


@dataclass(frozen=True)
class _Heading:
    level: int
    title: str


def plain_text(wikitext: str, left_out: Collection[str] = LEFT_OUT_NAMESPACES) -> str:
    """The running text of a page; paragraphs are separated by blank lines.

    Args:
        wikitext: A page's source.
        left_out: Namespaces, in lower case, whose links are no text: those of files and categories, in every language
            that the wiki knows them by.
    """
    import mwparserfromhell

    pieces: list[str | _Heading] = list(_walk(mwparserfromhell.parse(wikitext), frozenset(left_out)))
    return "\n\n".join(_without_empty_sections(list(_blocks(pieces))))


def parser_version() -> str:
    """Name and version of the parser, which decides what a page's text is."""
    import mwparserfromhell

    return f"mwparserfromhell {mwparserfromhell.__version__}"


def _walk(code: Wikicode, left_out: frozenset[str]) -> Iterator[str | _Heading]:
    from mwparserfromhell import nodes

    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield _SWITCH.sub("", str(node.value))
        elif isinstance(node, nodes.Wikilink):
            yield from _link(node, left_out)
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield from _walk(node.title, left_out)
            elif not node.brackets:
                yield str(node.url)
        elif isinstance(node, nodes.Heading):
            title = "".join(each for each in _walk(node.title, left_out) if isinstance(each, str))
            if title.strip():
                yield _Heading(node.level, " ".join(title.split()))
        elif isinstance(node, nodes.HTMLEntity):
            yield node.normalize() or str(node)
        elif isinstance(node, nodes.Argument):
            if node.default is not None:
                yield from _walk(node.default, left_out)
        elif isinstance(node, nodes.Tag):
            yield from _tag(node, left_out)


def _tag(node: Any, left_out: frozenset[str]) -> Iterator[str | _Heading]:
    name = str(node.tag).strip().casefold()
    if name in LEFT_OUT_TAGS:
        return
    if name == "nowiki":
        yield str(node.contents)
        return
    if name in BREAKS:
        yield _BREAK
    if node.contents is not None:
        yield from _walk(node.contents, left_out)


def _link(node: Any, left_out: frozenset[str]) -> Iterator[str | _Heading]:
    target = str(node.title).strip()
    namespace, colon, _ = target.partition(":")
    if colon and namespace.strip().casefold() in left_out:
        return
    if node.text is not None:
        yield from _walk(node.text, left_out)
    elif not (colon and _INTERLANGUAGE.fullmatch(namespace)):
        yield target.removeprefix(":")


def _blocks(pieces: list[str | _Heading]) -> Iterator[str | _Heading]:
    """Paragraphs, each on lines of its own, and the headings between them."""
    running: list[str] = []
    for piece in [*pieces, _Heading(0, "")]:
        if isinstance(piece, str):
            running.append(piece)
            continue
        for paragraph in re.split(r"\n\s*\n", _BREAKS.sub("\n", "".join(running))):
            lines = (_EMPTY_BRACKETS.sub("", _SPACES.sub(" ", line)).strip() for line in paragraph.split("\n"))
            if text := "\n".join(line for line in lines if line):
                yield text
        running = []
        yield piece


def _without_empty_sections(blocks: list[str | _Heading]) -> list[str]:
    """Headings stay where text follows before the next heading of their level or above."""
    kept: list[str] = []
    below = 0  # level above which a heading has text below it: any has right above text, none at the end of the page
    for block in reversed(blocks):
        if isinstance(block, str):
            kept.append(block)
            below = DEEPEST + 1
        elif 0 < block.level < below:
            kept.append(block.title)
            below = block.level
    return kept[::-1]
