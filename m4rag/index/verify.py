"""Is a collection what its description says, and does it find what it holds?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m4rag.errors import CheckFailed
from m4rag.index.collection import DENSE, KEY, LEXICAL, SPARSE, Description
from m4rag.index.search import BATCH
from m4rag.index.store import Store

SAMPLE = 128
DEPTH = 10
RECALL = 0.95
"""Stored passages that must find themselves among the first ten; the rest are duplicates and graph misses."""


@dataclass(frozen=True)
class Check:
    """One question put to a collection.

    Attributes:
        name: What was asked.
        ok: Whether the answer is as it should be.
        detail: What was found.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of one collection."""

    collection: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def payload(self) -> dict[str, Any]:
        """The result as JSON."""
        return {"collection": self.collection, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def require(self) -> None:
        """Turn a failed check into an error.

        Raises:
            CheckFailed: One did; names the first.
        """
        for check in self.checks:
            if not check.ok:
                raise CheckFailed(f"{check.name}: {check.detail}", where=self.collection, remedy="Build it again.")


def verify(store: Store, name: str) -> Verification:
    """Check row count, dimension, digest, indexes and self-recall of a collection or alias.

    Raises:
        UsageError: There is no such name.
        BadData: m4rag did not make it.
    """
    collection = store.resolve(name)
    description = store.describe(collection)
    checks = [_digest(collection, description), *_columns(store, collection, description)]
    if all(check.ok for check in checks):
        checks.append(_rows(store, collection, description))
    if all(check.ok for check in checks):
        checks += [_recall(store, collection, column) for column in _vector_columns(description)]
    return Verification(collection=collection, checks=tuple(checks))


def _vector_columns(description: Description) -> list[str]:
    return [DENSE if channel == "dense" else SPARSE for channel in description.channels]


def _digest(collection: str, description: Description) -> Check:
    return Check("digest", description.name == collection, f"description says {description.name}")


def _columns(store: Store, collection: str, description: Description) -> list[Check]:
    indexed = store.indexed(collection)
    missing = [column for column in _vector_columns(description) if column not in indexed]
    checks = [
        Check("indexes", not missing, f"missing: {', '.join(missing)}" if missing else ", ".join(sorted(indexed)))
    ]
    if "dense" in description.channels:
        dim = int(store.columns(collection).get(DENSE, {}).get("dim", 0))
        checks.append(Check("dimension", dim == description.dim, f"{dim}, expected {description.dim}"))
    return checks


def _rows(store: Store, collection: str, description: Description) -> Check:
    rows = store.count(collection)
    return Check("rows", rows == description.rows, f"{rows}, expected {description.rows}")


def _recall(store: Store, collection: str, column: str) -> Check:
    stored = DENSE if column == DENSE else LEXICAL
    sample = [row for row in store.sample(collection, [stored], SAMPLE) if len(row[stored])]
    found = 0
    for start in range(0, len(sample), BATCH):
        part = sample[start : start + BATCH]
        hits = store.search(collection, column, [row[stored] for row in part], DEPTH)
        found += sum(_itself(row, own) for row, own in zip(part, hits, strict=True))
    recall = found / len(sample) if sample else 0.0
    return Check(f"self-recall {column}", recall >= RECALL, f"{found} of {len(sample)} find themselves in {DEPTH}")


def _itself(row: dict[str, Any], hits: Sequence[dict[str, Any]]) -> bool:
    """Whether a passage is among its hits, or crowded out by ten that equal it."""
    if any(hit[KEY] == row[KEY] for hit in hits):
        return True
    return len(hits) == DEPTH and hits[-1]["score"] >= hits[0]["score"] * (1 - 1e-5)
