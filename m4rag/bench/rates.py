"""Retention and correction: what context does to answers that were right without it, and to those that were wrong.

    retention  = P(right with context | right without)
    correction = P(right with context | wrong without)

For any set of questions, exactly,

    accuracy with context = retention x accuracy without + correction x (1 - accuracy without).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from m4rag.bench.statistics import RESAMPLES, Estimate, Partition, group_sums, resampled_means

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rates:
    """Both rates over one set of questions, in percent.

    Attributes:
        retention: Share of those right without context that are right with it, None if none was.
        correction: Share of those wrong without context that are right with it, None if none was.
    """

    retention: Estimate | None
    correction: Estimate | None


def kept_and_mended(
    before: np.ndarray,
    after: np.ndarray,
    groups: np.ndarray,
    cells: Partition,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Rates]:
    """Both rates in every cell of a breakdown, with 95 % intervals over images.

    Args:
        before: Whether each question is answered rightly without context, shape (rows,).
        after: Whether it is with context, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        cells: The breakdown.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        Cell to rates, for the cells that have rows.
    """
    # Twice the cells: those of the answers that were wrong without context, then those of the right ones.
    doubled = Partition(
        (*(f"wrong {label}" for label in cells.labels), *(f"right {label}" for label in cells.labels)),
        cells.codes + before * len(cells.labels),
    )
    sums = group_sums(after.astype(float), groups, doubled)
    found = sums.estimates(resampled_means({"": sums}, resamples=resamples, seed=seed)[""])
    rates = {label: Rates(found.get(f"right {label}"), found.get(f"wrong {label}")) for label in cells.labels}
    return {label: both for label, both in rates.items() if both.retention or both.correction}
