"""One way to talk to Milvus, embedded or served: every call has a timeout, every refusal is one line.

What Milvus Lite accepts without doing, or does differently from a server, is guarded against here, for both alike:
`upsert` only, finite vectors of the right length, no id twice in a batch, no collection dropped through its alias,
at most 16,384 results, no search in a collection that is not loaded.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from m4rag.errors import BadData, M4ragError, Unavailable, UsageError
from m4rag.index.capabilities import Capabilities, capabilities_of
from m4rag.index.collection import DENSE, KEY, PROPERTY, SPARSE, Description, base_name, schema
from m4rag.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymilvus import MilvusClient

MAX_LIMIT = 16_384
"""Most results of a search; servers refuse more, Milvus Lite does not."""

BUILD_TIMEOUT_S = 3600.0
"""For flushing, indexing and loading, which grow with the collection."""

FOREVER_MS = 2**31 - 1
"""An embedded Milvus drops connections that ask every ten seconds whether it is alive, as pymilvus does."""

HNSW = {"M": 16, "efConstruction": 200}
MIN_EF = 128

SETTLING = ("can not find client of node", "failed to get delegator", "no available shard")
"""What a server says for a moment after it has loaded a collection; reading again is safe."""

READ_PAUSES_S = (0.1, 0.3, 1.0, 2.0)
"""Pauses between the attempts of a read."""

NOT_LOADED = 101
NO_SUCH_ALIAS = (100, 1600)  # of Milvus Lite, of servers
RRF_K = 60
"""Rank constant of reciprocal rank fusion (Cormack et al., SIGIR 2009)."""

_opened: Counter[str] = Counter()
_opening = threading.Lock()


def connect(settings: Settings) -> Store:
    """Open the Milvus of the settings: a path ending in `.db` is embedded, anything else an address.

    Raises:
        UsageError: The address is neither.
        Unavailable: It does not answer, or another process holds the embedded one.
    """
    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    return Store(settings.milvus, token=token, timeout_s=settings.milvus_timeout_s)


def literal(values: Sequence[str]) -> str:
    """A list of strings for a filter expression. Milvus Lite reads no escaped non-ASCII letters."""
    return json.dumps(list(values), ensure_ascii=False)


class Store:
    """A connection to one Milvus. Closing it also ends the embedded one, when nothing else in the process uses it.

    Args:
        uri: Path ending in `.db`, or `http(s)://host:port`.
        token: `user:password` or an API key, "" for none.
        timeout_s: Seconds before a call is given up.

    Attributes:
        uri: As given.
        capabilities: What this Milvus can do.

    Raises:
        UsageError: The uri is neither a `.db` path nor an address.
        Unavailable: It does not answer, or another process holds the embedded one.
    """

    def __init__(self, uri: str, *, token: str = "", timeout_s: float = 30.0) -> None:
        self.uri = uri
        self._timeout = timeout_s
        self._writing = threading.Lock()
        self._embedded = uri.endswith(".db") and "://" not in uri
        if not self._embedded and not uri.startswith(("http://", "https://", "tcp://", "unix:")):
            raise UsageError(
                "neither an address nor a path ending in .db", where=uri, remedy="Set MILVUS_URI to one of them."
            )
        self._client = _open(uri, token, timeout_s) if not self._embedded else _open_embedded(uri, timeout_s)
        try:
            self.capabilities: Capabilities = capabilities_of(self._call("get_server_version"))
        except M4ragError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave Milvus."""
        self._client.close()
        if self._embedded:
            _release(self.uri)

    def _call(self, operation: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """A client method with a timeout. pymilvus itself repeats calls that found nobody, until then."""
        with _one_line(operation, self.uri):
            return getattr(self._client, operation)(*args, timeout=timeout or self._timeout, **kwargs)

    # Names

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        return sorted(self._call("list_collections"))

    def aliases(self) -> dict[str, str]:
        """Alias to collection, of all collections."""
        found = {}
        for name in self.collections():
            for alias in self._call("list_aliases", collection_name=name)["aliases"]:
                found[alias] = name
        return found

    def resolve(self, name: str) -> str:
        """The collection behind a name or an alias; hyphens and dots count as underscores.

        Raises:
            UsageError: There is neither; lists what there is.
        """
        wanted = base_name(name)
        names = self.collections()
        if wanted in names:
            return wanted
        if pointed := self._pointed(wanted):
            return pointed
        aliases = self.aliases()
        there = ", ".join(sorted({*names, *aliases})) or "none"
        raise UsageError(
            f"no index {name!r}", where=self.uri, remedy=f"Build it: m4rag index build. There is: {there}."
        )

    def _pointed(self, alias: str) -> str | None:
        """What an alias points to at this moment, asked in one call: it may be moving."""
        from pymilvus import MilvusException

        with _one_line("describe_alias", self.uri):
            try:
                return str(self._client.describe_alias(alias, timeout=self._timeout)["collection_name"])
            except MilvusException as error:
                if error.code in NO_SUCH_ALIAS:
                    return None
                raise

    def point(self, alias: str, collection: str) -> None:
        """Make or move an alias; whoever `resolve`s it gets the old collection or the new one, never none.

        Servers remember for a while what an alias pointed to (2.3.5 until the next change, if a search came in while
        it moved), so searches name the collection that `resolve` gives, not the alias.

        Raises:
            UsageError: A collection has the alias's name.
        """
        if alias in self.collections():
            raise UsageError(f"{alias!r} is a collection, it can't be an alias", where=self.uri)
        current = self.aliases().get(alias)
        if current is None:
            self._call("create_alias", collection_name=collection, alias=alias)
        elif current != collection:
            self._call("alter_alias", collection_name=collection, alias=alias)

    def drop(self, collection: str) -> None:
        """Remove a collection for good.

        Raises:
            UsageError: The name is an alias (Milvus Lite would drop what it points to), or one points to it.
        """
        aliases = self.aliases()
        if collection in aliases:
            raise UsageError(
                f"{collection!r} is an alias of {aliases[collection]}", remedy="Drop a collection by its own name."
            )
        if pointing := sorted(alias for alias, target in aliases.items() if target == collection):
            raise UsageError(f"{collection!r} is in use by {', '.join(pointing)}", remedy="Promote another one first.")
        self._call("drop_collection", collection_name=collection)

    # Collections

    def describe(self, name: str) -> Description:
        """The description of a collection or of what an alias points to.

        Raises:
            UsageError: There is no such name.
            BadData: m4rag did not make it.
        """
        return Description.parse(self._describe(self.resolve(name))["properties"], f"{self.uri} {name}")

    def _describe(self, collection: str) -> dict[str, Any]:
        described: dict[str, Any] = self._call("describe_collection", collection_name=collection)
        return described

    def create(self, description: Description) -> None:
        """Make an empty collection and check that the server keeps what it was asked for.

        Raises:
            Unavailable: This Milvus lacks a channel, or silently dropped a column.
        """
        self.capabilities.require(description.channels)
        wanted = schema(description)
        properties = {PROPERTY: description.model_dump_json()}
        self._call(
            "create_collection",
            collection_name=description.name,
            schema=wanted,
            properties=properties,
            consistency_level="Bounded",
        )
        kept = self._describe(description.name)
        fields = {field["name"] for field in kept["fields"]}
        lost = [field.name for field in wanted.fields if field.name not in fields]
        lost += ["BM25 function"] if wanted.functions and not kept.get("functions") else []
        lost += ["properties"] if kept["properties"].get(PROPERTY) != properties[PROPERTY] else []
        if lost:
            self._call("drop_collection", collection_name=description.name)
            raise Unavailable(
                f"accepted the collection but dropped its {', '.join(lost)}",
                where=f"Milvus {self.capabilities.version}",
                remedy="Use a Milvus that m4rag supports: Lite 3.2, 2.5 or later.",
            )

    def columns(self, collection: str) -> dict[str, dict[str, Any]]:
        """Column name to its parameters as Milvus has them."""
        return {field["name"]: field["params"] for field in self._describe(collection)["fields"]}

    def indexed(self, collection: str) -> set[str]:
        """The vector columns that have an index."""
        return set(self._call("list_indexes", collection_name=collection))

    def upsert(self, description: Description, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows; a row with an id that is there replaces it.

        Raises:
            BadData: A vector is not finite or of the wrong length, or an id comes twice.
        """
        _check_rows(description, rows)
        with self._writing:
            self._call("upsert", collection_name=description.name, data=[dict(row) for row in rows])

    def finish(self, description: Description) -> None:
        """Flush, index, load: in this order searches in Milvus Lite do not wait for an index that is being built."""
        name = description.name
        self._call("flush", collection_name=name, timeout=BUILD_TIMEOUT_S)
        if self.capabilities.synchronous_load:
            self._call("release_collection", collection_name=name)
        self._index(description)
        self._call("load_collection", collection_name=name, timeout=BUILD_TIMEOUT_S)

    def _index(self, description: Description) -> None:
        params = self._client.prepare_index_params()
        missing = _vector_columns(description) - self.indexed(description.name)
        if DENSE in missing:
            params.add_index(DENSE, index_type="HNSW", metric_type="COSINE", params=HNSW)
        if SPARSE in missing:
            params.add_index(SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        if missing:
            self._call("create_index", collection_name=description.name, index_params=params, timeout=BUILD_TIMEOUT_S)

    def finished(self, description: Description) -> bool:
        """Whether a collection is there with all its rows and indexes."""
        name = description.name
        if name not in self.collections() or not _vector_columns(description) <= self.indexed(name):
            return False
        return self.count(name) == description.rows

    def looks_finished(self, description: Description) -> bool:
        """`finished` by statistics, which may count replaced rows twice; loads nothing."""
        name = description.name
        stored = int(self._call("get_collection_stats", collection_name=name)["row_count"])
        return _vector_columns(description) <= self.indexed(name) and stored >= description.rows

    # Reading

    def _read(self, operation: str, collection: str, **kwargs: Any) -> Any:
        """A read; loads the collection if a restart has unloaded it, and waits for a server that is still settling."""
        from pymilvus import MilvusException

        pauses = iter(READ_PAUSES_S)
        while True:
            with _one_line(operation, self.uri):
                try:
                    return getattr(self._client, operation)(collection_name=collection, timeout=self._timeout, **kwargs)
                except MilvusException as error:
                    unloaded = error.code == NOT_LOADED
                    pause = next(pauses, None)
                    if pause is None or not (unloaded or any(text in str(error) for text in SETTLING)):
                        raise
            if unloaded:
                self._call("load_collection", collection_name=collection, timeout=BUILD_TIMEOUT_S)
            else:
                time.sleep(pause)

    def count(self, collection: str) -> int:
        """Rows that a reader sees now."""
        found = self._read("query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def present(self, description: Description, ids: Sequence[str]) -> set[str]:
        """Which of these ids are there, also in a collection that is not finished."""
        if not self.capabilities.loads_before_index:
            self._index(description)
        found = self._read("get", description.name, ids=list(ids), output_fields=[KEY], consistency_level="Strong")
        return {row[KEY] for row in found}

    def sample(self, collection: str, columns: Sequence[str], size: int) -> list[dict[str, Any]]:
        """Some rows. Ids are digests, so any range of them is as good as a random choice."""
        found = self._read("query", collection, filter=f'{KEY} >= "0"', output_fields=[KEY, *columns], limit=size)
        return [dict(row) for row in found]

    def search(
        self,
        collection: str,
        column: str,
        data: Sequence[Any],
        limit: int,
        *,
        filter: str = "",
        columns: Sequence[str] = (KEY,),
    ) -> list[list[dict[str, Any]]]:
        """The nearest rows of each query by one column, best first.

        Args:
            collection: Collection; an alias through `resolve`.
            column: `dense` (data: vectors) or `lex_bm25` (data: coded words).
            data: One entry a query.
            limit: Rows a query, at most 16,384.
            filter: Milvus filter expression.
            columns: What to return.

        Returns:
            For each query a list of `{"score": ..., <column>: ...}`; higher scores are better.
        """
        data = _check_search(column, data, limit)
        found = self._read(
            "search",
            collection,
            data=data,
            anns_field=column,
            limit=limit,
            filter=filter,
            output_fields=list(columns),
            search_params=_search_params(column, limit),
        )
        return [[_hit(hit, column) for hit in hits] for hits in found]

    def fused(
        self,
        collection: str,
        data: Mapping[str, Sequence[Any]],
        limit: int,
        *,
        candidates: int,
        filter: str = "",
        columns: Sequence[str] = (KEY,),
    ) -> list[list[dict[str, Any]]]:
        """The best rows of each query by reciprocal rank fusion over several columns.

        Args:
            collection: Collection; an alias through `resolve`.
            data: Column to its data, one entry a query.
            limit: Rows a query, at most 16,384.
            candidates: Rows that each column contributes.
            filter: Milvus filter expression.
            columns: What to return.

        Raises:
            Unavailable: This Milvus can't search two columns at once.
        """
        from pymilvus import AnnSearchRequest, RRFRanker

        self.capabilities.require(("dense", "bm25"))
        requests = [
            AnnSearchRequest(
                data=_check_search(column, queries, candidates),
                anns_field=column,
                param=_search_params(column, candidates),
                limit=candidates,
                expr=filter or None,
            )
            for column, queries in data.items()
        ]
        found = self._read(
            "hybrid_search",
            collection,
            reqs=requests,
            ranker=RRFRanker(RRF_K),
            limit=limit,
            output_fields=list(columns),
        )
        return [[_hit(hit, "") for hit in hits] for hits in found]


def _vector_columns(description: Description) -> set[str]:
    return {DENSE if channel == "dense" else SPARSE for channel in description.channels}


def _check_rows(description: Description, rows: Sequence[Mapping[str, Any]]) -> None:
    import numpy as np

    twice = [key for key, times in Counter(row[KEY] for row in rows).items() if times > 1]
    if twice:
        raise BadData(f"id {twice[0]} comes twice in a batch", where=description.name)
    if "dense" not in description.channels:
        return
    for each in rows:
        vector = np.asarray(each[DENSE])
        if vector.shape != (description.dim,):
            raise BadData(f"a vector of shape {vector.shape}, not ({description.dim},)", where=f"passage {each[KEY]}")
        if not np.isfinite(vector).all():
            raise BadData("a vector is not finite", where=f"passage {each[KEY]}")


def _check_search(column: str, data: Sequence[Any], limit: int) -> list[Any]:
    import numpy as np

    if not 1 <= limit <= MAX_LIMIT:
        raise UsageError(f"{limit} results asked for", remedy=f"Ask for 1 to {MAX_LIMIT}.")
    if column != DENSE:
        return list(data)
    vectors: NDArray[np.float32] = np.asarray(data, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise BadData("a query's vector is not finite")
    return list(vectors)


def _search_params(column: str, limit: int) -> dict[str, Any]:
    return {"params": {"ef": max(MIN_EF, 2 * limit)}} if column == DENSE else {}


def _hit(hit: Any, column: str) -> dict[str, Any]:
    # Milvus Lite's BM25 scores are the negative of a server's; the order is the same.
    score = float(hit["distance"])
    return {"score": abs(score) if column == SPARSE else score, **hit["entity"]}


def _open(uri: str, token: str, timeout_s: float, **options: Any) -> MilvusClient:
    with _without_path_in_environment():
        from pymilvus import MilvusClient

    # pymilvus logs every failed call with a traceback; the error says it in one line.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    with _one_line("connect", uri):
        return MilvusClient(uri, token=token, timeout=timeout_s, **options)


@contextmanager
def _without_path_in_environment() -> Iterator[None]:
    """For the import of pymilvus: it reads MILVUS_URI and fails where that is the path of an embedded Milvus."""
    named = os.environ.get("MILVUS_URI", "")
    if not named.endswith(".db"):
        yield
        return
    del os.environ["MILVUS_URI"]
    try:
        yield
    finally:
        os.environ["MILVUS_URI"] = named


def _open_embedded(uri: str, timeout_s: float) -> MilvusClient:
    """Start Milvus Lite in this process, or join it."""
    path = Path(uri).resolve()
    if path.is_file():
        raise BadData(
            "a file of Milvus Lite 2, which version 3 can't read", where=uri, remedy="Move it away and build again."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opening:
        causes = _Causes()
        logger = logging.getLogger("milvus_lite.server_manager")
        propagated, logger.propagate = logger.propagate, False
        logger.addHandler(causes)
        try:
            client = _open(str(path), "", timeout_s, grpc_options={"grpc.keepalive_time_ms": FOREVER_MS})
        except Unavailable as error:
            if causes.seen is None:
                raise
            if type(causes.seen).__name__ == "DataDirLockedError":
                raise Unavailable(
                    "another process has the embedded Milvus open",
                    where=uri,
                    remedy="Wait for it to end, or run `milvus-lite server` on that folder and set MILVUS_URI.",
                ) from None
            raise Unavailable(f"the embedded Milvus does not open: {causes.seen}", where=uri) from error
        finally:
            logger.removeHandler(causes)
            logger.propagate = propagated
        _opened[str(path)] += 1
    return client


def _release(uri: str) -> None:
    """End Milvus Lite when its last user in this process leaves; only then can another process open it."""
    from milvus_lite.server_manager import server_manager_instance

    path = str(Path(uri).resolve())
    with _opening:
        _opened[path] -= 1
        if not _opened[path]:
            server_manager_instance.release_server(path)


class _Causes(logging.Handler):
    """Catches why Milvus Lite did not start: it logs the exception and raises another that does not say."""

    seen: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen = record.exc_info[1]


@contextmanager
def _one_line(operation: str, uri: str) -> Iterator[None]:
    """Milvus's two families of exceptions as errors of ours."""
    import grpc  # type: ignore[import-untyped]
    from pymilvus import MilvusException

    try:
        yield
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else "no answer"
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        raise Unavailable(f"{operation}: {code} {details or ''}", where=uri, remedy=REACH) from None
    except MilvusException as error:
        message = str(error.message).split("\n")[0] or "refused without a reason"
        if operation == "upsert" and isinstance(error.code, int) and error.code > 0 and "Retry" not in message:
            raise BadData(f"{operation}: {message}", where=uri) from None
        raise Unavailable(f"{operation}: {message}", where=uri, remedy=REACH) from None


REACH = "Check that Milvus runs there (m4rag doctor) and MILVUS_URI and MILVUS_TOKEN."
