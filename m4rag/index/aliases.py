"""What production reads: the alias `<base>`, moved after checks, and moved back.

The alias `<base>__previous` remembers what was served before, in Milvus itself: whoever can reach the index can roll
it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m4rag.errors import BadData, UsageError
from m4rag.index.collection import Description, check_base
from m4rag.index.store import Store
from m4rag.index.verify import verify

PREVIOUS = "__previous"


@dataclass(frozen=True)
class Version:
    """One collection of a base.

    Attributes:
        description: What it is.
        finished: Whether all its rows and indexes are there, by Milvus's statistics.
        role: `served`, `previous` or "".
    """

    description: Description
    finished: bool
    role: str

    def payload(self) -> dict[str, Any]:
        """The version as JSON."""
        kept = self.description.model_dump(mode="json", exclude={"encoder_identity"})
        state = {"finished": self.finished, "role": self.role}
        return {"collection": self.description.name, "digest": self.description.digest, **state, **kept}


@dataclass(frozen=True)
class Moved:
    """What an alias pointed to (None if it is new) and points to now."""

    base: str
    before: str | None
    served: str


def versions(store: Store, base: str | None = None) -> list[Version]:
    """All collections that m4rag made, of one base or of all, newest first within a base."""
    aliases = store.aliases()
    found = []
    for name in store.collections():
        try:
            description = store.describe(name)
        except BadData:
            continue  # another program's collection in the same Milvus
        if base is not None and description.base != base:
            continue
        roles = {aliases.get(description.base + PREVIOUS): "previous", aliases.get(description.base): "served"}
        finished = store.looks_finished(description)
        found.append(Version(description=description, finished=finished, role=roles.get(name, "")))
    return sorted(found, key=lambda version: (version.description.base, -version.description.created))


def promote(store: Store, base: str, collection: str | None = None) -> Moved:
    """Let production read a collection, after verifying it.

    Args:
        store: Where the index is.
        base: The alias to move.
        collection: What it shall point to; None takes the newest of this base.

    Raises:
        UsageError: There is no such collection, or it belongs to another base.
        CheckFailed: It is not what it says or does not find what it holds; the alias has not moved.
    """
    check_base(base)
    target = collection or _newest(store, base)
    if target not in store.collections():
        raise UsageError(f"no collection {target!r}", where=store.uri, remedy="See m4rag index list.")
    if (owner := store.describe(target).base) != base:
        raise UsageError(f"{target} belongs to {owner!r}, not to {base!r}")
    verify(store, target).require()
    before = store.aliases().get(base)
    if before is not None and before != target:
        store.point(base + PREVIOUS, before)
    store.point(base, target)
    return Moved(base=base, before=before, served=target)


def rollback(store: Store, base: str) -> Moved:
    """Let production read what it read before the last promotion; doing it twice is going forward again.

    Raises:
        UsageError: Nothing was promoted over anything.
        CheckFailed: The previous collection is not whole any more.
    """
    aliases = store.aliases()
    current, previous = aliases.get(check_base(base)), aliases.get(base + PREVIOUS)
    if current is None:
        raise UsageError(f"nothing is served as {base!r}", where=store.uri, remedy="See m4rag index list.")
    if previous is None or previous == current:
        raise UsageError(f"nothing was served as {base!r} before {current}", remedy="See m4rag index list.")
    verify(store, previous).require()
    store.point(base, previous)
    store.point(base + PREVIOUS, current)
    return Moved(base=base, before=current, served=previous)


def _newest(store: Store, base: str) -> str:
    there = versions(store, base)
    if not there:
        raise UsageError(f"no collection of {base!r}", where=store.uri, remedy="Build it: m4rag index build.")
    return there[0].description.name
