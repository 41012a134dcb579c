"""Searches the index that the policy names: many requests in one call, in a thread, with a time limit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m4rag.encoders import Encoder, Query
from m4rag.errors import M4ragError, UsageError
from m4rag.index.search import BATCH, Hit, SearchChannel, check, encoder_of, search_encoded
from m4rag.index.store import Store
from m4rag.settings import Settings
from serving.rag.breaker import Breaker
from serving.rag.chat_request import Filters
from serving.rag.micro_batches import MicroBatches

if TYPE_CHECKING:
    from m4rag.index.collection import Description


@dataclass(frozen=True)
class Search:
    """What is searched for.

    Attributes:
        query: The words and, for an encoder that reads images, the image.
        k: Passages.
        filters: Which passages may be found.
    """

    query: Query
    k: int
    filters: Filters


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        collection: The collection that the alias pointed to.
        hits: Passages, best first.
    """

    collection: str
    hits: tuple[Hit, ...]


class SearchFailed(Exception):
    """The index or its encoder did not answer in time, or is left alone because it just failed. The request goes on."""


class Retriever:
    """Searches one alias.

    Args:
        settings: Where Milvus and the encoder are.
        alias: What is searched; whoever moves it is followed with the next search.
        channel: `dense`, `bm25` or `hybrid`.
        timeout_s: Seconds for one search, embedding included.
    """

    def __init__(self, settings: Settings, alias: str, channel: SearchChannel, timeout_s: float) -> None:
        self.alias = alias
        self.channel = channel
        self.breaker = Breaker()
        self._settings = settings
        self._timeout_s = timeout_s
        self._batches: MicroBatches[Search, Found] = MicroBatches(self._in_thread, BATCH)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")
        self._store: Store | None = None
        self._described: dict[str, tuple[Description, Encoder | None]] = {}

    async def search(self, search: Search) -> Found:
        """Find passages.

        Raises:
            SearchFailed: It took too long, failed, or has just failed several times in a row.
        """
        if not self.breaker.allows():
            raise SearchFailed("the index is left alone for some seconds after it failed")
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._batches(search)
        except TimeoutError:
            self.breaker.failed()
            raise SearchFailed(f"no answer within {self._timeout_s:g} s") from None
        except M4ragError as error:
            self.breaker.failed()
            raise SearchFailed(str(error)) from error
        self.breaker.succeeded()
        return found

    async def check(self) -> Description:
        """The description of the index that the alias points to now.

        Raises:
            M4ragError: There is none, or it can't be searched in this way.
        """
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(self._thread, self._current))[0]

    def close(self) -> None:
        """Leave Milvus; a search that still runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._store is not None:
            self._store.close()

    async def _in_thread(self, searches: Sequence[Search]) -> list[Found]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._search, searches)

    def _current(self) -> tuple[Description, Encoder | None]:
        """Index and encoder behind the alias; an encoder is made once for each collection."""
        if self._store is None:
            token = self._settings.milvus_token
            secret = token.get_secret_value() if token else ""
            self._store = Store(self._settings.milvus, token=secret, timeout_s=self._timeout_s)
        collection = self._store.resolve(self.alias)
        if collection not in self._described:
            description = self._store.describe(collection)
            encoder = encoder_of(description, self._settings) if self.channel != "bm25" else None
            check(description, encoder, self.channel)
            self._described = {collection: (description, encoder)}
        return self._described[collection]

    def _search(self, searches: Sequence[Search]) -> list[Found]:
        description, encoder = self._current()
        if self._store is None:
            raise UsageError("the endpoint is closing")
        queries = [search.query for search in searches]
        vectors = encoder.encode_queries(queries) if encoder is not None else None
        # One call to Milvus for all that ask alike; each place of `searches` gets its own hits back.
        alike: defaultdict[tuple[int, Filters], list[int]] = defaultdict(list)
        for place, search in enumerate(searches):
            alike[search.k, search.filters].append(place)
        hits: dict[int, tuple[Hit, ...]] = {}
        for (k, filters), places in alike.items():
            found = search_encoded(
                self._store,
                description.name,
                [queries[place].text for place in places],
                vectors[places] if vectors is not None else None,
                k,
                self.channel,
                languages=filters.languages,
                sources=filters.sources,
            )
            hits.update((place, tuple(passages)) for place, passages in zip(places, found, strict=True))
        return [Found(description.name, hits[place]) for place in range(len(searches))]
