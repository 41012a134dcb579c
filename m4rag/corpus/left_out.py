"""What a source holds that does not become a document: told on the log or counted, never dropped in silence."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger(__name__)


class LeftOut:
    """Counts what a reader leaves out, by kind.

    Attributes:
        counts: Kind, as a plural noun phrase, to how many.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, kind: str) -> None:
        """One more of a kind that a source has many of by its nature, such as redirects."""
        self.counts[kind] += 1

    def tell(self, kind: str, what: str, *, where: str) -> None:
        """One more of a kind that somebody should look at: a line on the log says what and where."""
        self.counts[kind] += 1
        log.warning("%s: %s", where, " ".join(what.split()))
