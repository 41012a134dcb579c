"""The published article format: every field kept, every defect and every repeated article named by file and line."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from m4rag.corpus.left_out import LeftOut
from m4rag.datasets import load_documents
from m4rag.datasets.ingest import ingest_documents
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.schema import Document
from m4rag.shards import read_folder


def article(pageid: int = 7, wiki: str = "am", **changes: Any) -> dict[str, Any]:
    time = "2025-04-12T10:00:00Z"
    picture = {"src": "https://upload.wikimedia.org/x.jpg", "alt": "እንጀራ", "caption": "A flatbread"}
    record = {
        "id": hashlib.md5(f"{pageid}_{wiki}".encode()).hexdigest(),
        "pageid": pageid,
        "title": "እንጀራ",
        "url": f"https://{wiki}.wikipedia.org/wiki/እንጀራ",
        "content": [
            {
                "heading": "Introduction",
                "content": ["እንጀራ ምግብ ነው።", "ጣፋጭ ነው።"],
                "images": [picture],
                "access_time": time,
            },
            {"heading": "ታሪክ", "content": ["ጥንታዊ ነው።"], "images": [], "access_time": time},
            {"heading": "ማጣቀሻ", "content": [], "images": [], "access_time": time},
        ],
    }
    return record | changes


def jsonl(path: Path, *records: Any) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_every_field_of_a_record_is_kept(tmp_path: Path) -> None:
    record = article(revision_id=99, queries=["injera"])
    (document,) = load_documents("articles", jsonl(tmp_path / "a.jsonl", record))
    assert document.document_id == f"articles:{record['id']}"
    assert document.title == "እንጀራ"
    assert document.text == "እንጀራ ምግብ ነው።\n\nጣፋጭ ነው።\n\nታሪክ\n\nጥንታዊ ነው።"
    assert (document.language, document.source) == ("am", "articles")
    assert (document.url, document.license) == (record["url"], "CC-BY-SA-4.0")
    assert document.image is None
    assert document.extra == {
        "pageid": 7,
        "access_time": "2025-04-12T10:00:00Z",
        "images": record["content"][0]["images"],
        "revision_id": 99,
        "queries": ["injera"],
    }


@pytest.mark.parametrize(
    ("wiki", "language"), [("zh-min-nan", "nan"), ("zh-yue", "yue"), ("arz", "arz"), ("min", "min"), ("am.m", "am")]
)
def test_the_language_is_the_whole_subdomain_of_the_url(tmp_path: Path, wiki: str, language: str) -> None:
    (document,) = load_documents("articles", jsonl(tmp_path / "a.jsonl", article(wiki=wiki)))
    assert document.language == language


def test_flat_records_and_other_licences_are_read(tmp_path: Path) -> None:
    flat = {"id": "x_ja", "text": " 本文。 ", "lang": "ja", "license": "CC0-1.0"}
    (document,) = load_documents("articles", jsonl(tmp_path / "a.jsonl", flat))
    assert (document.text, document.language, document.license) == ("本文。", "ja", "CC0-1.0")


def test_every_defect_is_a_line_before_the_file_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        article(1),
        '{"id": "torn',
        article(2, content=[{"heading": "x", "content": "no list"}]),
        article(3, wiki="xx"),
        {"id": "flat", "text": "no language"},
        article(4),
        "",
    )
    left_out = LeftOut()
    read = load_documents("articles", path, left_out=left_out)
    assert [next(read).extra["pageid"], next(read).extra["pageid"]] == [1, 4]
    with pytest.raises(BadData, match="5 lines are no articles"):
        next(read)
    assert left_out.counts == {"defects": 5}
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0] for line in lines] == [f"{path} line {number}" for number in (2, 3, 4, 5, 7)]
    assert "content.0.content" in lines[1] or "content" in lines[1]
    assert "unknown language code 'xx'" in lines[2]
    assert all("\n" not in line for line in lines)


def test_an_article_that_comes_again_is_kept_once_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = jsonl(tmp_path / "cvqa.jsonl", article(1), article(2))
    two = jsonl(tmp_path / "wc.jsonl", article(3), article(2), article(1, title="ሌላ"))
    done = ingest_documents("articles", [one, two], tmp_path / "home", "wiki")
    assert done.rows == 3
    assert done.left_out == {"articles that came again": 2}
    assert [document.title for document in read_folder(done.folder, Document)] == ["እንጀራ"] * 3
    same, other = (record.getMessage() for record in caplog.records)
    assert same.startswith(f"{two} line 2: ")
    assert same.endswith("unchanged")
    assert other.startswith(f"{two} line 3: ")
    assert "with other content; the first is kept" in other


def test_m4rag_fault_16_an_article_that_was_not_fetched_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The published crawler writes an empty string where a request failed."""
    path = jsonl(tmp_path / "a.jsonl", article(1), article(2, content=""), article(3, content=[]))
    done = ingest_documents("articles", [path], tmp_path / "home", "wiki")
    assert (done.rows, done.without_text) == (3, 2)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"{path} line 2",
        f"{path} line 3",
    ]


def test_the_same_files_give_the_same_digest_and_are_read_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = jsonl(tmp_path / "a.jsonl", *(article(number) for number in range(20)))
    first = ingest_documents("articles", [path], tmp_path / "one", "wiki")
    second = ingest_documents("articles", [path], tmp_path / "two", "wiki")
    assert first.digest == second.digest
    assert not second.unchanged
    assert ingest_documents("articles", [path], tmp_path / "one", "wiki").unchanged
    manifest = Manifest.read(first.folder)
    assert manifest.inputs == {"a.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert manifest.counts["licenses"] == {"CC-BY-SA-4.0": 20}
    assert caplog.records == []


def test_large_documents_make_more_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m4rag.datasets.ingest.PART_CHARACTERS", 1000)
    long = [{"id": str(number), "text": "word " * 100, "lang": "en"} for number in range(10)]
    done = ingest_documents("articles", [jsonl(tmp_path / "a.jsonl", *long)], tmp_path / "home", "wiki")
    assert [file.rows for file in Manifest.read(done.folder).files] == [3, 3, 3, 1]


def test_m4rag_fault_12_addresses_of_pictures_stay_as_they_are(tmp_path: Path) -> None:
    """The published crawler put every relative one on English Wikipedia."""
    picture = {"src": "/static/x.png", "alt": "", "caption": ""}
    section = {"heading": "Introduction", "content": ["x"], "images": [picture], "access_time": None}
    (document,) = load_documents("articles", jsonl(tmp_path / "a.jsonl", article(content=[section])))
    assert document.extra["images"] == [picture]


def test_m4rag_fault_29_every_document_has_its_licence_and_the_manifest_counts_them(tmp_path: Path) -> None:
    records = [
        article(1),
        article(2, license="GFDL-1.3-or-later"),
        article(3, url="https://example.org/x", lang="am"),
    ]
    done = ingest_documents("articles", [jsonl(tmp_path / "a.jsonl", *records)], tmp_path / "home", "wiki")
    licenses = [document.license for document in read_folder(done.folder, Document)]
    assert licenses == ["CC-BY-SA-4.0", "GFDL-1.3-or-later", None]
    assert done.licenses == {"CC-BY-SA-4.0": 1, "GFDL-1.3-or-later": 1, "": 1}
