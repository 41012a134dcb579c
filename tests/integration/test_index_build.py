"""Building, serving and searching an index, on the embedded Milvus and on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from milvus_fixtures import MilvusServer, WordEncoder, corpus, documents, unused_name

from m4rag.encoders import Query
from m4rag.errors import BadData, CheckFailed, Unavailable, UsageError
from m4rag.index.aliases import promote, rollback, versions
from m4rag.index.build import UPSERT_ROWS, Built, Recipe, build_index, prepare, write
from m4rag.index.collection import CHANNELS, Channel, Description
from m4rag.index.evaluate import EvalQuery, evaluate
from m4rag.index.search import search
from m4rag.index.store import Store
from m4rag.index.verify import verify
from m4rag.progress import silent
from m4rag.schema import Document
from m4rag.settings import Settings

COUNT = 700
"""More than two writes and more than one part."""


def recipe(base: str, encoder: WordEncoder | None, channels: tuple[Channel, ...] = ("dense",)) -> Recipe:
    return Recipe(base=base, channels=channels, encoder=encoder)


def make(store: Store, folder: Path, base: str, *, count: int = 40, seed: int = 0) -> Built:
    rows = corpus(folder / f"documents-{seed}-{count}", documents(count, seed=seed))
    return build(store, rows, folder, recipe(base, WordEncoder()))


def build(store: Any, rows: Path, home: Path, how: Recipe) -> Built:
    return write(store, prepare(rows, home, how, silent), how, silent)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


class Watched:
    """A store that notes what is written, and can be cut off after a number of writes."""

    def __init__(self, store: Store, die_after: int | None = None) -> None:
        self._store = store
        self._left = die_after
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, description: Description, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._left == 0:
            raise KeyboardInterrupt
        self._store.upsert(description, rows)
        self.written += [row["chunk_id"] for row in rows]
        self._left = None if self._left is None else self._left - 1


def test_an_unchanged_rebuild_embeds_and_writes_nothing(store: Store, base: str, tmp_path: Path) -> None:
    rows = corpus(tmp_path / "documents", documents(COUNT))
    encoder = WordEncoder()
    first = build(store, rows, tmp_path, recipe(base, encoder))
    assert (first.embedded, first.written, first.served) == (COUNT, COUNT, first.description.name)
    before = files(tmp_path)
    watched = Watched(store)
    again = build(watched, rows, tmp_path, recipe(base, encoder))
    assert (again.embedded, again.written, encoder.encoded) == (0, 0, COUNT)
    assert again.description.name == first.description.name
    assert watched.written == []
    assert files(tmp_path) == before


def test_a_build_that_was_cut_off_writes_only_what_is_missing(store: Store, base: str, tmp_path: Path) -> None:
    rows = corpus(tmp_path / "documents", documents(COUNT))
    encoder = WordEncoder()
    cut_off, continued = Watched(store, die_after=2), Watched(store)
    with pytest.raises(KeyboardInterrupt):
        build(cut_off, rows, tmp_path, recipe(base, encoder))
    assert len(cut_off.written) == 2 * UPSERT_ROWS
    assert base not in store.aliases(), "what is not finished is not served"
    built = build(continued, rows, tmp_path, recipe(base, encoder))
    assert sorted(cut_off.written + continued.written) == sorted(set(cut_off.written + continued.written))
    assert (built.embedded, built.written) == (0, COUNT - 2 * UPSERT_ROWS)
    assert verify(store, base).ok


def test_m4rag_fault_18_an_encoder_that_dies_is_continued_where_it_stopped(
    lite: Store, base: str, tmp_path: Path
) -> None:
    class Dying(WordEncoder):
        def encode_passages(self, chunks: Sequence[Any]) -> Any:
            if self.encoded:
                raise KeyboardInterrupt
            return super().encode_passages(chunks)

    rows = corpus(tmp_path / "documents", documents(COUNT))
    dying, living = Dying(), WordEncoder()
    with pytest.raises(KeyboardInterrupt):
        build(lite, rows, tmp_path, recipe(base, dying))
    assert lite.aliases().get(base) is None
    assert build(lite, rows, tmp_path, recipe(base, living)).embedded == COUNT - dying.encoded


def test_what_is_served_changes_only_by_promotion_and_goes_back(store: Store, base: str, tmp_path: Path) -> None:
    old = make(store, tmp_path, base)
    new = make(store, tmp_path, base, seed=1)
    assert (new.served, new.description.name) == (old.served, new.description.name)
    assert new.served != new.description.name
    assert promote(store, base).served == new.description.name
    assert promote(store, base).before == new.description.name, "promoting again changes nothing"
    assert [version.role for version in versions(store, base)] == ["served", "previous"]
    assert rollback(store, base).served == old.served
    assert store.resolve(base) == old.served
    assert rollback(store, base).served == new.description.name
    assert promote(store, base, old.served).served == old.served


def test_nothing_to_roll_back_to_is_said(lite: Store, base: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is served"):
        rollback(lite, base)
    make(lite, tmp_path, base)
    with pytest.raises(UsageError, match=r"nothing was served as .* before"):
        rollback(lite, base)


def test_an_unfinished_collection_is_not_promoted(store: Store, base: str, tmp_path: Path) -> None:
    served = make(store, tmp_path, base)
    rows = corpus(tmp_path / "other", documents(COUNT, seed=2))
    with pytest.raises(KeyboardInterrupt):
        build(Watched(store, die_after=1), rows, tmp_path, recipe(base, WordEncoder()))
    with pytest.raises(CheckFailed, match=r"indexes: missing: dense|rows: 256, expected 700"):
        promote(store, base)
    assert store.resolve(base) == served.served
    assert [version.finished for version in versions(store, base)] == [False, True]


def test_a_collection_that_lost_rows_fails_verification(store: Store, base: str, tmp_path: Path) -> None:
    built = make(store, tmp_path, base)
    assert verify(store, base).ok
    victim = store.sample(built.description.name, [], 1)[0]["chunk_id"]
    store._client.delete(built.description.name, ids=[victim], timeout=20)
    result = verify(store, base)
    assert [(check.name, check.detail) for check in result.checks if not check.ok] == [("rows", "39, expected 40")]


def test_a_collection_of_another_base_is_not_promoted(lite: Store, base: str, tmp_path: Path) -> None:
    other = make(lite, tmp_path, unused_name())
    with pytest.raises(UsageError, match="belongs to"):
        promote(lite, base, other.served)
    with pytest.raises(UsageError, match="no collection 'nope'"):
        promote(lite, base, "nope")
    with pytest.raises(UsageError, match="no collection of"):
        promote(lite, base)


@pytest.mark.milvus_server
def test_a_server_without_bm25_refuses_the_build_before_it_costs_anything(
    milvus_server: MilvusServer, base: str, tmp_path: Path
) -> None:
    rows = corpus(tmp_path / "documents", documents(8))
    settings = Settings(milvus_uri=milvus_server.uri, home=tmp_path / "home")
    with pytest.raises(Unavailable, match=r"no BM25.*build with --channels dense"):
        build_index(rows, base, settings, encoder="unknown")
    assert not (tmp_path / "home").exists()


Served = tuple[Store, str, WordEncoder]


@pytest.fixture(scope="module")
def both(lite: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An index with both channels, of documents in eight languages and one without any word."""
    folder, name, encoder = tmp_path_factory.mktemp("both"), unused_name(), WordEncoder()
    rows = [*documents(80), Document(document_id="test:x", title="🍜", text="🍜🍜", language="en", source="even")]
    build(lite, corpus(folder / "documents", rows), folder, recipe(name, encoder, CHANNELS))
    yield lite, name, encoder


PHRASES = {
    "en": "roasted chilli",
    "am": "ጣፋጭ ምግብ",
    "hi": "स्वादिष्ट व्यंजन",
    "th": "อาหารไทย",
    "ja": "祭りの日",
    "yo": "oúnjẹ aládùn",
    "te": "రుచికరమైన వంటకం",
    "ar": "يؤكل العيد",
}


@pytest.mark.parametrize("language", sorted(PHRASES))
def test_words_find_passages_in_every_script(both: Served, language: str) -> None:
    store, name, _ = both
    hits = search(store, name, [Query(PHRASES[language])], None, 10, "bm25")[0]
    assert {hit.language for hit in hits} == {language}
    assert len(hits) == 10
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0


@pytest.mark.parametrize("channel", ["dense", "bm25", "hybrid"])
def test_a_passage_finds_itself_in_every_channel(both: Served, channel: Any) -> None:
    store, name, encoder = both
    wanted = documents(80)[17:25]
    queries = [Query(f"{document.title}\n{document.text}") for document in wanted]
    found = search(store, name, queries, encoder, 3, channel)
    assert [hits[0].document_id for hits in found] == [document.document_id for document in wanted]
    hit = found[0][0]
    assert (hit.title, hit.text, hit.language) == (wanted[0].title, wanted[0].text, wanted[0].language)
    assert hit.image is None


@pytest.mark.parametrize("channel", ["dense", "bm25", "hybrid"])
def test_filters_hold_in_every_channel(both: Served, channel: Any) -> None:
    store, name, encoder = both
    queries = [Query("dish"), Query("dish soup")]
    for hits in search(store, name, queries, encoder, 20, channel, languages=("am", "th"), sources=("odd",)):
        assert hits
        assert {(hit.language, hit.source) for hit in hits} <= {("am", "odd"), ("th", "odd")}
    assert search(store, name, queries, encoder, 20, channel, languages=("xx",)) == [[], []]


def test_a_query_without_words_finds_nothing_by_words_and_something_by_meaning(both: Served) -> None:
    store, name, encoder = both
    assert search(store, name, [Query("🍜")], None, 5, "bm25") == [[]]
    dense = search(store, name, [Query("🍜")], encoder, 5, "dense")[0]
    assert [hit.chunk_id for hit in search(store, name, [Query("🍜")], encoder, 5, "hybrid")[0]] == [
        hit.chunk_id for hit in dense
    ]


def test_more_queries_than_a_batch_answer_as_they_would_alone(both: Served) -> None:
    store, name, encoder = both
    queries = [Query(document.title) for document in documents(80)] * 2
    together = search(store, name, queries, encoder, 2, "hybrid")
    assert len(together) == 160
    assert together[100] == search(store, name, queries[100:101], encoder, 2, "hybrid")[0]
    assert search(store, name, [], encoder, 2, "hybrid") == []


@pytest.mark.parametrize("channel", ["dense", "bm25", "hybrid"])
def test_m4rag_fault_10_more_passages_than_there_are_is_all_of_them_and_none_twice(both: Served, channel: Any) -> None:
    store, name, encoder = both
    written = {document.document_id for document in documents(80)} | {"test:x"}
    (hits,) = search(store, name, [Query("dish")], encoder, 1000, channel)
    assert 0 < len(hits) == len({hit.chunk_id for hit in hits})
    assert {hit.document_id for hit in hits} <= written
    if channel != "bm25":
        assert len({hit.document_id for hit in hits}) == len(written)


@pytest.mark.parametrize("channel", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("k", [1, 5])
def test_m4rag_fault_03_no_more_passages_come_back_than_were_asked_for(both: Served, channel: Any, k: int) -> None:
    store, name, encoder = both
    more = search(store, name, [Query("dish")], encoder, 20, channel)[0]
    assert len(more) > 5
    assert len(search(store, name, [Query("dish")], encoder, k, channel)[0]) == k


def test_another_encoder_is_refused(both: Served) -> None:
    store, name, _ = both
    with pytest.raises(UsageError, match=r"built with words \(64 numbers a vector\), searched with words \(32\)"):
        search(store, name, [Query("soup")], WordEncoder(32), 5, "dense")
    with pytest.raises(UsageError, match="needs an encoder"):
        search(store, name, [Query("soup")], None, 5, "hybrid")


def test_a_channel_that_was_not_built_is_refused(lite: Store, base: str, tmp_path: Path) -> None:
    rows = corpus(tmp_path / "documents", documents(8))
    build(lite, rows, tmp_path, recipe(base, None, ("bm25",)))
    assert search(lite, base, [Query("soup")], None, 5, "bm25")[0]
    with pytest.raises(UsageError, match=r"no dense channel.*Search bm25"):
        search(lite, base, [Query("soup")], WordEncoder(), 5, "hybrid")


def test_documents_without_text_are_counted_and_not_indexed(lite: Store, base: str, tmp_path: Path) -> None:
    rows = [*documents(4), Document(document_id="e", title="empty", text=" \n", language="en", source="s")]
    built = build(lite, corpus(tmp_path / "documents", rows), tmp_path, recipe(base, WordEncoder()))
    assert (built.documents, built.empty, built.description.rows) == (5, 1, 4)


def test_a_text_that_does_not_fit_its_column_is_refused(lite: Store, base: str, tmp_path: Path) -> None:
    rows = [Document(document_id="d" * 513, title="t", text="x", language="en", source="s")]
    with pytest.raises(BadData, match="document_id has 513 bytes, 512 fit"):
        build(lite, corpus(tmp_path / "documents", rows), tmp_path, recipe(base, WordEncoder()))
    assert base not in lite.aliases()


def test_evaluation_counts_documents_by_their_best_passage(both: Served) -> None:
    store, name, encoder = both
    queries = [
        EvalQuery(
            query_id=document.document_id,
            text=f"{document.title}\n{document.text}",
            language=document.language,
            relevant={document.document_id: 1},
        )
        for document in documents(80)
    ]
    lost = EvalQuery(query_id="lost", text="dish", language="en", relevant={"not there": 1})
    report = evaluate(store, name, [*queries, lost], encoder, ("dense", "bm25", "hybrid"), lambda _: None)
    for channel in ("dense", "bm25", "hybrid"):
        summary = report["channels"][channel]["all"]
        assert summary["languages"]["am"]["recall@1"] == 1.0
        assert summary["languages"]["en"]["mrr"] == pytest.approx(10 / 11, abs=1e-4)
        assert summary["macro"] is None, "no language has twenty queries"
