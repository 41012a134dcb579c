"""A corpus knows its pictures by what they show, so that an index is named after them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from m4rag.datasets.ingest import Ingested, ingest_documents
from m4rag.manifests import file_digest
from m4rag.schema import Document
from m4rag.shards import read_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    images = {
        "a": str(tmp_path / "red.png"),
        "b": str(tmp_path / "blue.png"),
        "c": "https://example.org/c.png",
        "d": None,
    }
    rows = [
        {"document_id": name, "title": name, "text": "text", "language": "en", "source": "test", "image": image}
        for name, image in images.items()
    ]
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ingest(source: Path) -> tuple[Ingested, dict[str, str | None]]:
    done = ingest_documents("jsonl", [source], source.parent / "home", "corpus")
    return done, {row.document_id: row.image_digest for row in read_folder(done.folder, Document)}


def test_files_have_digests_and_web_addresses_have_none(source: Path) -> None:
    _, digests = ingest(source)
    red, blue = (file_digest(source.parent / f"{colour}.png") for colour in ("red", "blue"))
    assert digests == {"a": red, "b": blue, "c": None, "d": None}


def test_pictures_that_changed_places_make_another_corpus(source: Path) -> None:
    first, before = ingest(source)
    assert ingest(source)[0].unchanged
    red, blue = source.parent / "red.png", source.parent / "blue.png"
    shown = red.read_bytes()
    red.write_bytes(blue.read_bytes())
    blue.write_bytes(shown)
    second, after = ingest(source)
    assert not second.unchanged
    assert second.digest != first.digest
    assert (after["a"], after["b"]) == (before["b"], before["a"])
