"""Accuracy of several rules on the same questions, with differences from the same resamples of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m4rag.bench.statistics import LEVEL, RESAMPLES, Estimate, Partition, Sums, group_sums, resampled_means

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Estimates:
    """Rules by name, each with its sums (one cell a breakdown's value) and its resampled means."""

    sums: Mapping[str, Sums]
    draws: Mapping[str, np.ndarray]

    def cells(self, rule: str) -> dict[str, Estimate]:
        """Accuracy of a rule in each cell, percent."""
        return self.sums[rule].estimates(self.draws[rule])

    def whole(self, rule: str) -> Estimate:
        """Accuracy of a rule over the only cell, percent."""
        (found,) = self.cells(rule).values()
        return found

    def difference(self, rule: str, other: str) -> Estimate:
        """`rule` minus `other` over the only cell, in points; where no resample tells them apart both ends are it."""
        import numpy as np

        value = float(self.sums[rule].means()[0] - self.sums[other].means()[0])
        draws = self.draws[rule][:, 0] - self.draws[other][:, 0]
        low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        rows = self.sums[rule].rows
        return Estimate(
            value=100 * value, low=100 * float(low), high=100 * float(high), n=int(rows.sum()), groups=len(rows)
        )


def estimates(
    rules: Mapping[str, np.ndarray],
    groups: np.ndarray,
    cells: Partition,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimates:
    """Average every rule in every cell, and again in resamples of the images that all rules share.

    Args:
        rules: Rule to whether its answer is right, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        cells: The breakdown.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    sums = {name: group_sums(values.astype(float), groups, cells) for name, values in rules.items()}
    return Estimates(sums, resampled_means(sums, resamples=resamples, seed=seed))
