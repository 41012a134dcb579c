"""The stages of a build on their own: shards, their vectors, and what does not belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
from milvus_fixtures import WordEncoder, corpus, documents

from m4rag.corpus.chunker import PORTABLE
from m4rag.datasets.ingest import identity
from m4rag.errors import BadData, UsageError
from m4rag.index import vectors
from m4rag.index.build import cut, embed
from m4rag.index.steps import Shard
from m4rag.manifests import Manifest
from m4rag.progress import silent
from m4rag.schema import Document
from m4rag.shards import read_folder

COUNT = 1300
"""Three parts of passages."""


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    rows = corpus(home / "documents", documents(COUNT))
    return cut(rows, home, PORTABLE, 256, 50, silent)


def test_shards_share_all_parts_and_none_twice(chunks: Path) -> None:
    every = [part for number in range(2) for part in Shard(number, 2).parts(chunks)]
    assert sorted(part.name for part in every) == [part.name for part in Manifest.read(chunks).files]
    with pytest.raises(UsageError, match="no shard 2 of 2"):
        Shard(2, 2)


def test_a_shard_that_is_there_is_not_embedded_again_and_one_of_other_passages_is(chunks: Path, tmp_path: Path) -> None:
    encoder = WordEncoder()
    parts = Shard(0, 2).parts(chunks)
    folder, made = embed(chunks, parts, tmp_path, encoder, silent)
    assert made == sum(part.rows for part in parts) == encoder.encoded
    assert embed(chunks, parts, tmp_path, encoder, silent) == (folder, 0)
    other, _ = embed(chunks, Shard(1, 2).parts(chunks), tmp_path, encoder, silent)
    assert other != folder


def test_all_vectors_are_found_and_a_shard_that_is_missing_or_strange_is_named(chunks: Path, tmp_path: Path) -> None:
    encoder = WordEncoder()
    folders = [embed(chunks, Shard(number, 3).parts(chunks), tmp_path, encoder, silent)[0] for number in range(3)]
    found = vectors.locate(chunks, folders, encoder)
    assert sorted(found) == [part.name for part in Manifest.read(chunks).files]
    with pytest.raises(BadData, match=r"1 parts have no vectors, first part-"):
        vectors.locate(chunks, folders[:2], encoder)
    with pytest.raises(BadData, match="of other passages, or of another encoder"):
        vectors.locate(chunks, folders, WordEncoder(32))


def test_a_corpus_is_known_by_what_is_in_its_file(tmp_path: Path) -> None:
    rows = tmp_path / "corpus.jsonl"
    rows.write_text("\n".join(row.model_dump_json() for row in documents(3)))
    before = identity("jsonl", [rows])
    assert identity("jsonl", [rows]) == before
    rows.write_text("\n".join(row.model_dump_json() for row in documents(4)))
    assert identity("jsonl", [rows]) != before
    with pytest.raises(UsageError, match="fetches and reads no files"):
        identity("mediawiki-api", [rows])


def test_the_ingesting_step_refuses_a_file_that_changed_after_it_was_fingerprinted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import dsl

    from components.corpus.fingerprint import fingerprint
    from components.corpus.ingest import ingest
    from m4rag.settings import settings

    monkeypatch.setenv("M4RAG_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    rows = tmp_path / "corpus.jsonl"
    rows.write_text("\n".join(row.model_dump_json() for row in documents(3)))
    given = {"source": "jsonl", "path": str(rows), "name": "mine"}
    known = fingerprint.python_func(source="jsonl", path=str(rows))
    made = dsl.Dataset(uri=str(tmp_path / "documents"))
    ingest.python_func(documents=made, fingerprint=known, **given)
    assert len(list(read_folder(Path(made.path), Document))) == made.metadata["rows"] == 3
    rows.write_text("\n".join(row.model_dump_json() for row in documents(4)))
    with pytest.raises(BadData, match="the corpus changed since the pipeline began"):
        ingest.python_func(documents=dsl.Dataset(uri=str(tmp_path / "again")), fingerprint=known, **given)
    settings.cache_clear()
