"""Dumps of a wiki: articles with their revisions, everything else counted, hostile files refused in bounded memory."""

from __future__ import annotations

import bz2
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from m4rag.corpus.left_out import LeftOut
from m4rag.corpus.wikitext import plain_text
from m4rag.datasets import load_documents
from m4rag.datasets.ingest import ingest_documents
from m4rag.errors import BadData
from m4rag.manifests import Manifest

SITE = """<siteinfo><sitename>ውክፔዲያ</sitename><dbname>amwiki</dbname>
<base>https://am.wikipedia.org/wiki/%E1%8B%8B%E1%8A%93</base><generator>MediaWiki 1.44</generator>
<namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">ስዕል</namespace>
<namespace key="14" case="first-letter">መደብ</namespace></namespaces></siteinfo>"""


def page(number: int, title: str, text: str, *, ns: int = 0, inside: str = "", model: str = "wikitext") -> str:
    return (
        f"<page><title>{escape(title)}</title><ns>{ns}</ns><id>{number}</id>{inside}<revision><id>{1000 + number}</id>"
        f"<parentid>5</parentid><timestamp>2025-04-{number % 28 + 1:02d}T00:00:00Z</timestamp>"
        f"<contributor><username>x</username><id>77</id></contributor><comment>c</comment><model>{model}</model>"
        f'<format>text/x-wiki</format><text bytes="1" xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def dump(path: Path, *pages: str, head: str = "", language: str = "am", site: str = SITE) -> Path:
    xml = f'{head}<mediawiki xml:lang="{language}" version="0.11">{site}\n{"".join(pages)}</mediawiki>'.encode()
    path.write_bytes(bz2.compress(xml) if path.suffix == ".bz2" else xml)
    return path


@pytest.mark.parametrize("name", ["amwiki.xml", "amwiki.xml.bz2"])
def test_articles_come_with_their_revisions_and_the_rest_is_counted(tmp_path: Path, name: str) -> None:
    path = dump(
        tmp_path / name,
        page(1, "እንጀራ", "'''እንጀራ''' [[ስዕል:x.jpg|thumb|picture]] የ[[ምግብ|ምግብ]] ዓይነት ነው።\n\n[[መደብ:ምግብ]]"),
        page(2, "Redirected", "#REDIRECT [[እንጀራ]]", inside='<redirect title="እንጀራ" />'),
        page(3, "Talk", "chat", ns=1),
        page(4, "Module", "return 1", model="Scribunto"),
        page(5, "A/B & <C>?", "1 &lt; 2"),
    )
    left_out = LeftOut()
    first, second = load_documents("mediawiki-dump", path, left_out=left_out)
    assert first.document_id == "amwiki:1"
    assert (first.title, first.text) == ("እንጀራ", "እንጀራ የምግብ ዓይነት ነው።")
    assert (first.language, first.source, first.license) == ("am", "amwiki", "CC-BY-SA-4.0")
    assert first.url == "https://am.wikipedia.org/wiki/%E1%8A%A5%E1%8A%95%E1%8C%80%E1%88%AB"
    assert first.extra == {"revision_id": 1001, "revision_time": "2025-04-02T00:00:00Z"}
    assert (second.title, second.text) == ("A/B & <C>?", "1 < 2")
    assert left_out.counts == {"redirects": 1, "pages of other namespaces": 1, "pages of Scribunto": 1}


def test_m4rag_fault_20_the_manifest_says_which_file_and_which_revisions(tmp_path: Path) -> None:
    path = dump(tmp_path / "am.xml", *(page(number, f"T{number}", "text") for number in (3, 9, 4)))
    one = ingest_documents("mediawiki-dump", [path], tmp_path / "one", "am")
    two = ingest_documents("mediawiki-dump", [path], tmp_path / "two", "am")
    assert one.digest == two.digest
    assert one.revisions == {
        "first": 1003,
        "last": 1009,
        "oldest": "2025-04-04T00:00:00Z",
        "newest": "2025-04-10T00:00:00Z",
    }
    manifest = Manifest.read(one.folder)
    assert set(manifest.inputs) == {"am.xml"}
    assert manifest.config["parser"].startswith("mwparserfromhell ")
    assert manifest.counts["revisions"] == one.revisions


def test_pages_keep_their_order_over_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m4rag.corpus.mediawiki.BATCH_PAGES", 3)
    path = dump(tmp_path / "am.xml", *(page(number, f"T{number}", f"text {number}") for number in range(1, 20)))
    assert [document.text for document in load_documents("mediawiki-dump", path)] == [
        f"text {number}" for number in range(1, 20)
    ]


BILLION = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BILLION, EXTERNAL, '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">'])
def test_a_document_type_is_refused_before_any_entity_of_it_counts(tmp_path: Path, head: str) -> None:
    path = dump(tmp_path / "am.xml", page(1, "T", "text").replace("text</text>", "&a;</text>"), head=head)
    with pytest.raises(BadData, match="line 1: has a document type, which no dump has"):
        list(load_documents("mediawiki-dump", path))


def history(number: int) -> str:
    return page(number, "T", "one").replace("</page>", "<revision><id>7</id></revision></page>")


@pytest.mark.parametrize(
    ("pages", "changes", "message"),
    [
        ([history(1)], {}, "several revisions of 'T'. Use a pages-articles dump"),
        ([page(1, "T", "x").replace("<id>1</id>", "")], {}, "page 'T' lacks 'id'"),
        ([page(1, "T", "x")], {"language": "xx"}, "unknown language code 'xx'"),
        ([], {"site": ""}, "no siteinfo"),
        ([page(1, "T", "x"), page(1, "T", "x")], {}, "document id 'amwiki:1' occurs twice"),
        ([page(1, "T", "x"), "<page>"], {}, "not a whole XML file"),
    ],
)
def test_what_is_no_dump_of_articles_is_refused(
    tmp_path: Path, pages: Iterable[str], changes: dict[str, str], message: str
) -> None:
    path = dump(tmp_path / "am.xml", *pages, **changes)
    with pytest.raises(BadData, match=message):
        list(load_documents("mediawiki-dump", path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    cases = {"html": b"<html></html>", "text": b"title", "empty": b"", "bz2": bz2.compress(b"<mediawiki>" * 999)[:-9]}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadData, match=name):
            list(load_documents("mediawiki-dump", tmp_path / name))
    with pytest.raises(BadData, match="no such file"):
        list(load_documents("mediawiki-dump", tmp_path / "none"))


def test_one_field_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m4rag.corpus.mediawiki_dump.MOST_CHARACTERS", 1000)
    path = dump(tmp_path / "am.xml", page(1, "T", "x" * 1001))
    with pytest.raises(BadData, match="more than 1,000 characters"):
        list(load_documents("mediawiki-dump", path))


def test_m4rag_fault_18_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    """Reading 37 MB of articles takes a process less than half of that."""
    path = tmp_path / "am.xml"
    article = page(1, "T", "")
    text = "ይህ ምግብ በጣም ጣፋጭ ነው። " * 2000
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f'<mediawiki xml:lang="am">{SITE}')
        for number in range(1, 401):
            stream.write(
                article.replace("<id>1</id>", f"<id>{number}</id>").replace("></text>", f">{number} {text}</text>")
            )
        stream.write("</mediawiki>")
    assert path.stat().st_size > 37_000_000
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from m4rag.corpus.left_out import LeftOut\n"
        "from m4rag.corpus.mediawiki_dump import _Parser\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pages = sum(1 for _ in _Parser(Path(sys.argv[1]), LeftOut()).pages())\n"
        "print(pages, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, check=True)
    pages, grown_kib = map(int, done.stdout.split())
    assert pages == 400
    assert grown_kib < 18_000


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''A''' ''b'' '''''c'''''", "A b c"),
        ("A<ref name=x>note {{cite|url=y}}</ref> b<ref name=x />.", "A b."),
        ("{{Infobox|a=[[b]]|c={{d}}}}\nText.", "Text."),
        ("A ({{lang|am|x}}) b f() (c)", "A b f() (c)"),
        ("[[a|b]] [[c]] [[:Category:d]] [http://e f] http://g [http://h]", "b c Category:d f http://g"),
        ("[[File:a.jpg|thumb|A [[b]] c]]Text [[category:x]][[de:Haus]][[zh-min-nan:x]]", "Text"),
        ("{| class=x\n! a\n|-\n| b\n|}\nText.", "Text."),
        ("* one\n* two\n# three\n; d : e", "one\ntwo\nthree\nd\ne"),
        ("A<br>b<br/>\nc<br><br>d\n\n* e\n** f\n\ng", "A\nb\nc\nd\n\ne\nf\n\ng"),
        ("A &amp; &lt;b&gt; &#233;&nbsp;x", "A & <b> é x"),
        ("A<!-- [[b]] -->c __NOTOC__ a__b", "Ac a__b"),
        ("<nowiki>''a'' [[b]]</nowiki>", "''a'' [[b]]"),
        ("H<sub>2</sub>O <math>x^2</math><gallery>File:a.jpg|b</gallery>", "H2O"),
        ("One\n\n\n\nTwo\nthree", "One\n\nTwo\nthree"),
        ("{{{1|default}}} {{{2}}}", "default"),
        (
            "== A ==\n=== B ===\ntext\n=== C ===\n== D ==\n{{reflist}}\n== E ==\nend\n== F ==",
            "A\n\nB\n\ntext\n\nE\n\nend",
        ),
        ("שלום [[עולם|העולם]]。 مرحبا", "שלום העולם。 مرحبا"),
        ("", ""),
        ("[[unclosed {{also <ref>", "[[unclosed {{also <ref>"),
    ],
)
def test_wikitext_becomes_running_text(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == text
