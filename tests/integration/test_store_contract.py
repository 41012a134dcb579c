"""What code may rely on, asked of the embedded Milvus and of a real server alike."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from milvus_fixtures import unused_name

from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.index.collection import DENSE, Description, row
from m4rag.index.store import MAX_LIMIT, Store
from m4rag.schema import Chunk

DIM = 16
Stored = tuple[Description, np.ndarray]

COLUMNS = ("chunk_id", "title", "language", "text", "image")


def description(base: str, rows: int, *, chunks: str = "c") -> Description:
    return Description(
        base=base, chunks=chunks, rows=rows, channels=("dense",), dim=DIM, encoder="e", encoder_identity={"é": "ሀ"}
    )


def vectors(count: int) -> np.ndarray:
    made = np.random.default_rng(1).normal(size=(count, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def chunk(number: int, **changes: Any) -> Chunk:
    fields = {
        "chunk_id": f"{number:032x}",
        "document_id": f"d{number}",
        "index": 0,
        "title": f"ርዕስ {number}",
        "text": f'ข้อความ "{number}"\n\\ 🍜',
        "language": "አማ'\"" if number % 2 else "nan",
        "source": "s",
        "tokens": 3,
        "image": None if number % 3 else f"images/{number}.png",
    }
    return Chunk(**{**fields, **changes})


def filled(store: Store, base: str, count: int = 60) -> Stored:
    made, dense = description(base, count), vectors(count)
    store.create(made)
    store.upsert(made, [row(chunk(number), None, dense[number]) for number in range(count)])
    store.finish(made)
    return made, dense


@pytest.fixture(scope="module")
def stored(store: Store) -> Stored:
    """Sixty rows that no test changes: flushing and loading takes a server seven seconds."""
    return filled(store, unused_name())


def test_rows_come_back_as_they_were_written_in_every_script(store: Store, stored: Stored) -> None:
    made, dense = stored
    hits = store.search(made.name, DENSE, dense[:3], 1, columns=COLUMNS)
    for number, (hit,) in enumerate(hits):
        wanted = chunk(number)
        assert hit["score"] == pytest.approx(1.0, abs=1e-5)
        assert (hit["chunk_id"], hit["title"], hit["text"]) == (wanted.chunk_id, wanted.title, wanted.text)
        assert (hit["language"], hit["image"]) == (wanted.language, wanted.image or "")


def test_scores_fall_and_are_cosines(store: Store, stored: Stored) -> None:
    made, dense = stored
    query = vectors(61)[-1:]
    hits = store.search(made.name, DENSE, query, 60)[0]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(hits) == 60
    np.testing.assert_allclose(scores, np.sort(dense @ query[0])[::-1], atol=1e-5)


def test_a_query_batch_answers_each_query_by_itself(store: Store, stored: Stored) -> None:
    made, dense = stored
    together = store.search(made.name, DENSE, dense, 5)
    alone = [store.search(made.name, DENSE, dense[number : number + 1], 5)[0] for number in (0, 31, 59)]
    assert [[hit["chunk_id"] for hit in hits] for hits in alone] == [
        [hit["chunk_id"] for hit in together[number]] for number in (0, 31, 59)
    ]


def test_the_description_survives_and_counts_are_exact(store: Store, stored: Stored) -> None:
    made, _ = stored
    assert store.describe(made.name) == made
    assert store.count(made.name) == 60
    assert store.finished(made)


def test_writing_again_replaces_and_never_doubles(store: Store, base: str) -> None:
    made, dense = filled(store, base)
    store.upsert(made, [row(chunk(0, title="new"), None, dense[0])])
    assert store.count(made.name) == 60
    store.finish(made)
    assert store.search(made.name, DENSE, dense[:1], 1, columns=COLUMNS)[0][0]["title"] == "new"


def test_a_half_written_collection_tells_which_rows_it_has(store: Store, base: str) -> None:
    made, dense = description(base, 60), vectors(60)
    store.create(made)
    store.upsert(made, [row(chunk(number), None, dense[number]) for number in range(20)])
    ids = [chunk(number).chunk_id for number in range(60)]
    assert store.present(made, ids) == set(ids[:20])
    assert not store.finished(made)
    store.upsert(made, [row(chunk(number), None, dense[number]) for number in range(20, 60)])
    store.finish(made)
    assert store.finished(made)
    hits = store.search(made.name, DENSE, dense, 1)
    assert [hit["chunk_id"] for (hit,) in hits] == ids


def test_filters_take_any_letters_and_no_orders(store: Store, stored: Stored) -> None:
    from m4rag.index.store import literal

    made, dense = stored
    for wanted, count in (("አማ'\"", 30), ("nan", 30), ('nan"] or chunk_id != "', 0), ("x\\", 0)):
        hits = store.search(made.name, DENSE, dense[:1], 60, filter=f"language in {literal([wanted])}")[0]
        assert len(hits) == count


def test_vectors_that_are_not_finite_or_of_another_length_are_refused(store: Store, stored: Stored) -> None:
    made, dense = stored
    broken = dense[0].copy()
    broken[3] = np.nan
    with pytest.raises(BadData, match=f"not finite|passage {chunk(0).chunk_id}"):
        store.upsert(made, [row(chunk(0), None, broken)])
    with pytest.raises(BadData, match=r"shape \(8,\), not \(16,\)"):
        store.upsert(made, [row(chunk(0), None, dense[0][:8])])
    with pytest.raises(BadData, match="not finite"):
        store.search(made.name, DENSE, [broken], 1)
    assert store.count(made.name) == 60


def test_an_id_that_comes_twice_in_a_batch_is_refused(store: Store, stored: Stored) -> None:
    made, dense = stored
    with pytest.raises(BadData, match="comes twice in a batch"):
        store.upsert(made, [row(chunk(1), None, dense[1]), row(chunk(1, title="other"), None, dense[2])])


@pytest.mark.parametrize("limit", [0, MAX_LIMIT + 1])
def test_more_results_than_a_server_gives_are_refused_everywhere(store: Store, stored: Stored, limit: int) -> None:
    made, dense = stored
    with pytest.raises(UsageError, match="Ask for 1 to 16384"):
        store.search(made.name, DENSE, dense[:1], limit)


def test_a_collection_is_not_dropped_through_its_alias_nor_under_it(store: Store, stored: Stored, base: str) -> None:
    made, _ = stored
    store.point(base, made.name)
    with pytest.raises(UsageError, match="is an alias of"):
        store.drop(base)
    with pytest.raises(UsageError, match=f"in use by {base}"):
        store.drop(made.name)
    assert store.count(base) == 60


def test_an_alias_is_made_and_moved_and_readers_see_old_or_new(store: Store, base: str) -> None:
    old, dense = filled(store, base)
    new = description(base, 60, chunks="other")
    store.create(new)
    store.upsert(new, [row(chunk(number, title="new"), None, dense[number]) for number in range(60)])
    store.finish(new)
    store.point(base, old.name)
    stop, problems, seen = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(store.search(store.resolve(base), DENSE, dense[:1], 1, columns=COLUMNS)[0][0]["title"])
            except Exception as error:  # whatever a reader would have met
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(10):
        store.point(base, new.name)
        store.point(base, old.name)
    store.point(base, new.name)
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert set(seen) <= {"new", chunk(0).title}
    assert store.search(store.resolve(base), DENSE, dense[:1], 1, columns=COLUMNS)[0][0]["title"] == "new"
    assert store.resolve(base) == new.name


def test_names_are_resolved_and_unknown_ones_listed(store: Store, stored: Stored, base: str) -> None:
    made, _ = stored
    store.point(f"{base}_kb", made.name)
    assert store.resolve(f"{base}-kb") == store.resolve(made.name) == made.name
    with pytest.raises(UsageError, match=f"no index 'nope'.*There is: .*{base}_kb"):
        store.resolve("nope")
    with pytest.raises(UsageError, match="is a collection"):
        store.point(made.name, made.name)


def test_another_programs_collection_is_not_taken_for_ours(store: Store, base: str) -> None:
    store._client.create_collection(base, dimension=4, timeout=20)
    with pytest.raises(BadData, match="not a collection that this version of m4rag made"):
        store.describe(base)


def test_a_released_collection_is_loaded_when_it_is_read(store: Store, stored: Stored) -> None:
    made, dense = stored
    store._client.release_collection(made.name, timeout=20)
    assert store.search(made.name, DENSE, dense[:1], 1)[0][0]["chunk_id"] == chunk(0).chunk_id


@pytest.mark.milvus_server
def test_what_this_milvus_lacks_is_refused_before_anything_is_made(server: Store, base: str) -> None:
    words = Description(base=base, chunks="c", rows=1, channels=("dense", "bm25"), dim=DIM, lexical=1)
    with pytest.raises(Unavailable, match=r"Milvus v2\.3\.5-lite: no BM25.*--channels dense"):
        server.create(words)
    assert words.name not in server.collections()
