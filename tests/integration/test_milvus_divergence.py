"""Where the embedded Milvus does not do what a server does, and our code makes up for it.

Each test pins one divergence by the raw client. When one fails after an upgrade, the guard named in its docstring has
lost its reason: look at it.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from milvus_fixtures import MilvusServer, free_port
from pymilvus import DataType, Function, FunctionType, MilvusClient, MilvusException

from m4rag.errors import Unavailable
from m4rag.index.lexical import code
from m4rag.index.store import Store, connect
from m4rag.settings import Settings

DIM = 4
ROWS = [
    {"pk": "a", "text": "hello world", "v": [1.0, 0.0, 0.0, 0.0]},
    {"pk": "b", "text": "hello", "v": [0.0, 1.0, 0.0, 0.0]},
    {"pk": "c", "text": "इसमें पुस्तक है", "v": [0.0, 0.0, 1.0, 0.0]},
]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MilvusClient]:
    with Store(str(tmp_path / "raw.db")) as store:
        yield store._client


@pytest.fixture
def server_client(server: Store) -> MilvusClient:
    return server._client


def make(client: MilvusClient, name: str = "raw", *, bm25: bool = True) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description="described")
    schema.add_field("pk", DataType.VARCHAR, max_length=32, is_primary=True)
    analysed: dict[str, Any] = {"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard"}} if bm25 else {}
    schema.add_field("text", DataType.VARCHAR, max_length=1000, **analysed)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=DIM)
    if bm25:
        schema.add_field("s", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(name="bm25", function_type=FunctionType.BM25, input_field_names=["text"], output_field_names=["s"])
        )
    client.create_collection(name, schema=schema, timeout=20)
    client.upsert(name, ROWS, timeout=20)


def index(client: MilvusClient, name: str = "raw", *, bm25: bool = True) -> None:
    params = client.prepare_index_params()
    params.add_index("v", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 64})
    if bm25:
        params.add_index("s", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.flush(name, timeout=60)
    client.create_index(name, params, timeout=60)
    client.load_collection(name, timeout=60)


def count(client: MilvusClient, name: str = "raw") -> int:
    return int(
        client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=20)[0]["count(*)"]
    )


def words_search(client: MilvusClient, text: str) -> list[dict[str, Any]]:
    return list(client.search("raw", data=[text], anns_field="s", limit=3, output_fields=["pk"], timeout=20)[0])


def test_bm25_scores_are_negative(client: MilvusClient) -> None:
    """`store._hit` takes the absolute value."""
    make(client)
    index(client)
    first, second = words_search(client, "hello world")
    assert first["pk"] == "a"
    assert first["distance"] < second["distance"] < 0


def test_a_query_without_words_finds_nothing(client: MilvusClient) -> None:
    """`lexical.NOTHING` gets the same from every Milvus."""
    make(client)
    index(client)
    assert words_search(client, "") == words_search(client, "00") == []


def test_the_standard_analyzer_shreds_scripts_with_combining_marks(client: MilvusClient) -> None:
    """`lexical.code` segments before Milvus sees the text."""
    make(client)
    index(client)
    assert [hit["pk"] for hit in words_search(client, "ह")] == ["c"], "half a syllable finds the text: shredded"
    client.upsert("raw", [{"pk": "d", "text": code("इसमें पुस्तक है"), "v": ROWS[0]["v"]}], timeout=20)
    assert [hit["pk"] for hit in words_search(client, code("पुस्तक"))] == ["d"]
    assert words_search(client, code("ह")) == []


def test_not_a_number_is_accepted(client: MilvusClient) -> None:
    """`store._check_rows` and `_check_search` refuse it."""
    make(client)
    client.upsert("raw", [{"pk": "x", "text": "", "v": [float("nan")] * DIM}], timeout=20)
    assert count(client) == 4


def test_an_insert_of_an_existing_id_replaces(client: MilvusClient) -> None:
    """Only `upsert` is used: a server's `insert` doubles."""
    make(client)
    client.insert("raw", [{**ROWS[0], "text": "again"}], timeout=20)
    assert count(client) == 3


def test_more_than_16384_results_may_be_asked_for(client: MilvusClient) -> None:
    """`store.MAX_LIMIT`: servers refuse."""
    make(client)
    index(client)
    assert len(client.search("raw", data=[ROWS[0]["v"]], anns_field="v", limit=20_000, timeout=20)[0]) == 3


def test_dropping_an_alias_as_a_collection_drops_its_target(client: MilvusClient) -> None:
    """`Store.drop` refuses."""
    make(client)
    client.create_alias("raw", "live", timeout=20)
    client.drop_collection("live", timeout=20)
    assert client.list_collections(timeout=20) == []


def test_the_description_is_lost_but_properties_are_kept(client: MilvusClient) -> None:
    """`collection.Description` travels in the properties."""
    make(client)
    assert client.describe_collection("raw", timeout=20)["description"] == ""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=32, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection("kept", schema=schema, properties={"m4rag": "{}"}, timeout=20)
    assert client.describe_collection("kept", timeout=20)["properties"]["m4rag"] == "{}"


def test_an_index_is_not_created_twice(client: MilvusClient) -> None:
    """`Store._index` asks first; a server takes the same index again."""
    make(client)
    index(client)
    with pytest.raises(MilvusException, match="index already exists"):
        index(client)


def test_an_alias_is_not_created_twice(client: MilvusClient) -> None:
    """`Store.point` asks first; a server takes the same alias again."""
    make(client)
    client.create_alias("raw", "live", timeout=20)
    with pytest.raises(MilvusException, match="already exists"):
        client.create_alias("raw", "live", timeout=20)


def test_escaped_letters_in_filters_are_not_read(client: MilvusClient) -> None:
    """`store.literal` leaves letters as they are."""
    make(client)
    index(client)
    escaped = json.dumps("इसमें पुस्तक है")
    with pytest.raises(MilvusException, match="unknown escape sequence"):
        client.query("raw", filter=f"text == {escaped}", timeout=20)


def test_a_collection_is_read_before_it_has_an_index(client: MilvusClient) -> None:
    """`Capabilities.loads_before_index`: a server must have the index first."""
    make(client)
    client.flush("raw", timeout=20)
    client.load_collection("raw", timeout=20)
    assert count(client) == 3


def test_a_vector_index_that_does_not_exist_is_accepted(client: MilvusClient) -> None:
    """HNSW is the only vector index that `Store` asks for: it is one that Lite really has."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=32, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=DIM)
    params = client.prepare_index_params()
    params.add_index("v", index_type="DISKANN", metric_type="COSINE")
    client.create_collection("odd", schema=schema, index_params=params, timeout=20)
    client.upsert("odd", [{"pk": row["pk"], "v": row["v"]} for row in ROWS], timeout=20)
    assert client.search("odd", data=[ROWS[0]["v"]], anns_field="v", limit=1, timeout=20)[0][0]["pk"] == "a"


def test_a_call_that_is_missing_ends_in_a_raw_grpc_error(client: MilvusClient) -> None:
    """`store._one_line` catches both families."""
    with pytest.raises(grpc.RpcError) as caught:
        client.run_analyzer(["text"], {"tokenizer": "standard"}, timeout=20)
    assert not isinstance(caught.value, MilvusException)


def test_a_search_with_a_vector_of_another_length_fails_without_a_reason(client: MilvusClient) -> None:
    """Encoders are compared before a search (`search.check`)."""
    make(client)
    index(client)
    with pytest.raises(MilvusException) as caught:
        client.search("raw", data=[[1.0, 0.0]], anns_field="v", limit=1, timeout=20)
    assert caught.value.message == ""


def test_the_cause_of_a_failed_start_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`store._Causes` reads it from there."""
    (tmp_path / "x.db").mkdir()
    (tmp_path / "x.db" / "LOCK").mkdir()
    with caplog.at_level(logging.ERROR), pytest.raises(Exception, match="Open local milvus failed"):
        MilvusClient(str(tmp_path / "x.db"))
    assert any(record.exc_info for record in caplog.records if record.name == "milvus_lite.server_manager")
    with pytest.raises(Unavailable, match=r"the embedded Milvus does not open: .*LOCK"):
        Store(str(tmp_path / "x.db"))


def test_a_second_process_is_told_who_has_the_embedded_milvus(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.db"
    with Store(str(path)):
        other = subprocess.run(
            [sys.executable, "-c", f"from m4rag.index.store import Store; Store({str(path)!r})"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "another process has the embedded Milvus open" in other.stderr.splitlines()[-1]
    assert "DataDirLockedError" not in other.stderr
    again = subprocess.run(
        [sys.executable, "-c", f"from m4rag.index.store import Store; Store({str(path)!r}).close()"], check=False
    )
    assert again.returncode == 0, "closing the last store gives the folder free"


def test_two_stores_in_one_process_share_the_embedded_milvus(tmp_path: Path) -> None:
    path = str(tmp_path / "m.db")
    first, second = Store(path), Store(path)
    make(first._client)
    first.close()
    assert second.collections() == ["raw"]
    second.close()


def test_a_file_of_milvus_lite_2_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0")
    with pytest.raises(Exception, match="a file of Milvus Lite 2"):
        Store(str(tmp_path / "old.db"))


def test_an_unreachable_milvus_is_one_line_within_its_timeout() -> None:
    settings = Settings(milvus_uri=f"http://127.0.0.1:{free_port()}", milvus_timeout_s=2)
    with pytest.raises(Unavailable, match="Check that Milvus runs there") as caught:
        connect(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.milvus_server
def test_the_server_drops_a_bm25_function_silently(server_client: MilvusClient) -> None:
    """`Store.create` refuses by capability first, and reads the schema back."""
    schema = server_client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=32, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=100, enable_analyzer=True)
    schema.add_field("s", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(name="f", function_type=FunctionType.BM25, input_field_names=["text"], output_field_names=["s"])
    )
    server_client.create_collection("lost", schema=schema, timeout=20)
    assert server_client.describe_collection("lost", timeout=20)["functions"] == []


@pytest.mark.milvus_server
def test_the_server_refuses_what_the_embedded_one_accepts(server_client: MilvusClient) -> None:
    make(server_client, bm25=False)
    index(server_client, bm25=False)
    with pytest.raises(MilvusException, match="not a number"):
        server_client.upsert("raw", [{"pk": "x", "text": "", "v": [float("nan")] * DIM}], timeout=20)
    with pytest.raises(MilvusException, match="16384"):
        server_client.search("raw", data=[ROWS[0]["v"]], anns_field="v", limit=20_000, timeout=20)
    server_client.create_alias("raw", "live", timeout=20)
    with pytest.raises(MilvusException, match="cannot drop the collection via alias"):
        server_client.drop_collection("live", timeout=20)
    server_client.insert("raw", [ROWS[0]], timeout=20)
    assert count(server_client) == 4, "insert doubles an id"


@pytest.mark.milvus_server
def test_a_server_that_stops_answering_is_one_line_within_the_timeout(milvus_server: MilvusServer) -> None:
    with Store(milvus_server.uri, timeout_s=2) as store:
        milvus_server.freeze()
        try:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="list_collections: DEADLINE_EXCEEDED") as caught:
                store.collections()
            assert time.monotonic() - begun < 10
            assert "\n" not in str(caught.value)
        finally:
            milvus_server.signal(signal.SIGCONT)
        assert isinstance(store.collections(), list), "the same connection works when the server is back"
