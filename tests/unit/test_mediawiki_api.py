"""Pages over a wiki's API: what it is asked, what it is not asked, and every way in which it says no."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from mediawiki_server import MediaWiki, error, mediawiki, status

from m4rag.corpus.mediawiki_api import api_url, fetch, read_titles
from m4rag.datasets.ingest import ingest_documents
from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import Manifest
from m4rag.schema import Document
from m4rag.shards import read_folder

NAMES = [f"ገጽ {number}" for number in range(1, 131)]


@pytest.fixture
def wiki() -> Iterator[MediaWiki]:
    with mediawiki(MediaWiki({name: f"'''{name}''' ጽሑፍ።" for name in NAMES})) as served:
        yield served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m4rag.corpus.mediawiki_api.BACKOFF_S", 0.001)


def titles(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def ingest(wiki: MediaWiki, file: Path, home: str = "home") -> list[Document]:
    done = ingest_documents("mediawiki-api", [file], file.parent / home, "wiki", site=wiki.url)
    return list(read_folder(done.folder, Document))


def test_pages_become_documents_with_their_revisions(wiki: MediaWiki, tmp_path: Path) -> None:
    first, second = ingest(wiki, titles(tmp_path / "t.txt", NAMES[4], "", "#2"))
    assert (first.document_id, first.title, first.text) == ("amwiki:5", NAMES[4], f"{NAMES[4]} ጽሑፍ።")
    assert (first.language, first.source, first.license) == ("am", "amwiki", "CC-BY-SA-4.0")
    assert first.url == "https://am.wikipedia.org/wiki/%E1%8C%88%E1%8C%BD_5"
    assert first.extra == {"revision_id": 1005, "revision_time": "2025-04-06T00:00:00Z"}
    assert second.document_id == "amwiki:2"


def test_m4rag_fault_16_requests_are_few_and_polite(wiki: MediaWiki, tmp_path: Path) -> None:
    start = time.monotonic()
    fetch(titles(tmp_path / "t.txt", *NAMES[:60]), wiki.url, tmp_path / "kept", pause_s=0.2)
    assert time.monotonic() - start >= 2 * 0.2
    assert len(wiki.requests) == 3  # the site's facts, then fifty and ten pages
    assert {request["maxlag"] for request in wiki.requests} == {"5"}
    assert all(request["User-Agent"].startswith("m4rag/") for request in wiki.requests)
    assert all("https://" in request["User-Agent"] for request in wiki.requests)


def test_m4rag_fault_12_every_line_of_the_titles_is_asked_for_once(wiki: MediaWiki, tmp_path: Path) -> None:
    """The published crawler asked for items 542 to 603 whatever it was given, and for English twice."""
    pages = ingest_pages(wiki, tmp_path, *NAMES)
    assert wiki.asked() == [title for title, _ in pages] == NAMES


def test_an_answer_in_several_parts_is_put_together(wiki: MediaWiki, tmp_path: Path) -> None:
    wiki.answer_pages = 7
    documents = ingest_pages(wiki, tmp_path, *NAMES[:20])
    assert documents == [(name, f"'''{name}''' ጽሑፍ።") for name in NAMES[:20]]
    assert len(wiki.requests) == 1 + 3


def ingest_pages(wiki: MediaWiki, folder: Path, *names: str) -> list[tuple[str, str]]:
    fetched = fetch(titles(folder / "t.txt", *names), wiki.url, folder / "kept", pause_s=0)
    return [(page.title, page.text) for page in fetched.pages()]


def test_m4rag_fault_16_titles_without_a_page_and_of_one_page_are_named_and_counted(
    wiki: MediaWiki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wiki.redirects["ሌላ"] = NAMES[0]
    file = titles(tmp_path / "t.txt", NAMES[0], "ሌላ", "የለም", "#999")
    done = ingest_documents("mediawiki-api", [file], tmp_path / "home", "wiki", site=wiki.url)
    assert done.rows == 1
    assert done.left_out == {"titles without a page": 2, "titles of the same page": 1}
    lines = {record.getMessage() for record in caplog.records}
    assert lines == {"ሌላ: the same page as 'ገጽ 1'", "የለም: no such page", "#999: no such page"}


def test_what_is_on_the_disk_is_not_asked_again(wiki: MediaWiki, tmp_path: Path) -> None:
    file = titles(tmp_path / "t.txt", *NAMES[:3])
    before = ingest(wiki, file)
    asked = len(wiki.requests)
    assert ingest(wiki, file) == before
    assert len(wiki.requests) == asked
    titles(file, *NAMES[1:4])
    assert [document.title for document in ingest(wiki, file)] == NAMES[1:4]
    assert wiki.asked()[3:] == [NAMES[3]]


def test_m4rag_fault_20_equal_revisions_make_equal_corpora_whenever_they_are_fetched(
    wiki: MediaWiki, tmp_path: Path
) -> None:
    file = titles(tmp_path / "t.txt", *NAMES[:3])
    ingest(wiki, file, "one")
    ingest(wiki, file, "two")
    one, two = (Manifest.read(tmp_path / home / "corpus" / "wiki" / "documents") for home in ("one", "two"))
    assert (one.digest, one.identity) == (two.digest, two.identity)
    wiki.pages[NAMES[0]] = "ሌላ ጽሑፍ።"
    ingest(wiki, file, "three")
    three = Manifest.read(tmp_path / "three" / "corpus" / "wiki" / "documents")
    assert three.identity != one.identity
    assert three.digest != one.digest
    assert one.counts["revisions"]["last"] == 1003


def test_a_fetch_that_was_killed_asks_for_the_rest_only(wiki: MediaWiki, tmp_path: Path) -> None:
    file = titles(tmp_path / "t.txt", *NAMES)
    command = [sys.executable, "-m", "m4rag.cli", "corpus", "ingest", "--source", "mediawiki-api", str(file)]
    environment = {**os.environ, "M4RAG_HOME": str(tmp_path / "home")}
    running = subprocess.Popen([*command, "--site", wiki.url], env=environment, stderr=subprocess.DEVNULL)
    log = tmp_path / "home" / "corpus" / "mediawiki-api" / "fetched"
    until = time.monotonic() + 60
    while sum(path.read_bytes().count(b"\n") for path in log.glob("*.jsonl")) < 50 and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (kept,) = log.glob("*.jsonl")
    there = kept.read_bytes().count(b"\n")
    assert 50 <= there < 130
    kept.write_bytes(kept.read_bytes() + b'{"asked": "half a li')
    asked = len(wiki.asked())
    done = subprocess.run(
        [*command, "--site", wiki.url, "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["rows"] == 130
    assert wiki.asked()[asked:] == NAMES[there:]


BUSY: list[tuple[Callable[[], web.Response], str]] = [
    (error("maxlag", "Waiting for 10.0.0.1: 6 seconds lagged", **{"Retry-After": "0"}), "maxlag"),
    (error("ratelimited", "too many"), "ratelimited"),
    (status(429, **{"Retry-After": "0"}), "HTTP 429"),
    (status(503), "HTTP 503"),
    (status(502, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), "HTTP 502"),
]


@pytest.mark.parametrize(("reply", "name"), BUSY)
@pytest.mark.usefixtures("quick")
def test_m4rag_fault_16_a_busy_site_is_asked_again_a_few_times(
    wiki: MediaWiki, tmp_path: Path, reply: Callable[[], web.Response], name: str
) -> None:
    wiki.replies.extend([reply] * 3)
    assert ingest_pages(wiki, tmp_path, NAMES[0]) == [(NAMES[0], f"'''{NAMES[0]}''' ጽሑፍ።")]
    assert len(wiki.requests) == 3 + 2
    wiki.replies.extend([reply] * 99)
    with pytest.raises(Unavailable, match=f"{name}.*6 times. Repeat the command later: it continues"):
        ingest_pages(wiki, tmp_path, NAMES[0], NAMES[1])
    assert len(wiki.requests) == 3 + 2 + 6


def test_the_time_that_a_site_names_is_waited(wiki: MediaWiki, tmp_path: Path) -> None:
    wiki.replies.append(error("maxlag", "lagged", **{"Retry-After": "1"}))
    start = time.monotonic()
    ingest_pages(wiki, tmp_path, NAMES[0])
    assert time.monotonic() - start >= 1.0


def test_a_wait_that_is_too_long_is_left_to_the_user(wiki: MediaWiki, tmp_path: Path) -> None:
    wiki.replies.append(status(429, **{"Retry-After": "3600"}))
    with pytest.raises(Unavailable, match="asks to wait for 3600 s"):
        ingest_pages(wiki, tmp_path, NAMES[0])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (status(302, Location="http://169.254.169.254/latest/meta-data"), "redirects to 169.254.169.254"),
        (status(301, Location="/w/other.php"), "redirects to itself"),
        (status(404), "HTTP 404"),
        (error("badvalue", "Unrecognized value"), "refuses: badvalue: Unrecognized value"),
        (lambda: web.Response(text="<html>"), "no JSON object"),
        (lambda: web.json_response([]), "no JSON object"),
        (lambda: web.json_response({"query": {"general": {}}}), "not the API of a MediaWiki"),
    ],
)
def test_m4rag_fault_16_other_answers_end_the_command(
    wiki: MediaWiki, tmp_path: Path, reply: Callable[[], web.Response], message: str
) -> None:
    wiki.replies.append(reply)
    with pytest.raises(Unavailable, match=message):
        ingest_pages(wiki, tmp_path, NAMES[0])
    assert len(wiki.requests) == 1


def test_an_answer_without_end_is_cut_off(wiki: MediaWiki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m4rag.corpus.mediawiki_api.MOST_BYTES", 100_000)
    wiki.replies.append(lambda: web.Response(body=b" " * 1_000_000))
    with pytest.raises(Unavailable, match="more than 100,000 bytes"):
        ingest_pages(wiki, tmp_path, NAMES[0])


@pytest.mark.usefixtures("quick")
def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no answer .*6 times"):
        fetch(titles(tmp_path / "t.txt", "x"), "http://127.0.0.1:9", tmp_path / "kept", pause_s=0)


def test_a_page_that_the_answer_forgets_is_no_loss_in_silence(wiki: MediaWiki, tmp_path: Path) -> None:
    ingest_pages(wiki, tmp_path, NAMES[0])
    wiki.replies.append(lambda: web.json_response({"batchcomplete": True, "query": {"pages": []}}))
    with pytest.raises(Unavailable, match=f"says nothing of '{NAMES[1]}'"):
        ingest_pages(wiki, tmp_path, NAMES[1])


@pytest.mark.parametrize(
    ("site", "url"),
    [
        ("am", "https://am.wikipedia.org/w/api.php"),
        ("nan", "https://zh-min-nan.wikipedia.org/w/api.php"),
        ("https://wiki.example.org", "https://wiki.example.org/w/api.php"),
        ("https://wiki.example.org/api.php", "https://wiki.example.org/api.php"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80/w/api.php"),
        ("http://[::1]/w/api.php", "http://[::1]/w/api.php"),
    ],
)
def test_a_site_has_one_api(site: str, url: str) -> None:
    assert api_url(site) == url


@pytest.mark.parametrize(
    "site",
    [
        "http://am.wikipedia.org",
        "http://10.0.0.1",
        "file:///etc/passwd",
        "https://",
        "https://u:p@x.org",
        "https://x.org?a",
        "xx",
    ],
)
def test_other_sites_are_refused(site: str) -> None:
    with pytest.raises(UsageError):
        api_url(site)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb|c", "line 2: 'b|c' can't be a title"),
        ("a\n[[b]]", "line 2"),
        ("#12a", "line 1"),
        ("x" * 256, "line 1"),
        ("a b\n\na_b", "line 3: 'a b' is in line 1 already"),
        ("\n\n", "no title"),
    ],
)
def test_titles_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadData) as caught:
        read_titles(titles(tmp_path / "t.txt", text))
    assert message in str(caught.value)


def test_site_and_source_go_together(tmp_path: Path) -> None:
    file = titles(tmp_path / "t.txt", "a")
    for source, site in (("mediawiki-api", None), ("articles", "am")):
        with pytest.raises(UsageError, match="go together"):
            ingest_documents(source, [file], tmp_path, "wiki", site=site)
