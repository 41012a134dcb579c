"""Accuracy of several rules on the same questions, with differences from the same resamples of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m4rag.bench.paired import interval_of_difference
from m4rag.bench.statistics import RESAMPLES, Estimate, Partition, Sums, group_sums, resampled_means

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
        """`rule` minus `other` over the only cell, in points, paired."""
        value = float(self.sums[rule].means()[0] - self.sums[other].means()[0])
        rows = self.sums[rule].rows
        n, groups = int(rows.sum()), len(rows)
        low, high = interval_of_difference(self.draws[rule][:, 0] - self.draws[other][:, 0], n, groups)
        low, high = min(low, value), max(high, value)
        return Estimate(value=100 * value, low=100 * low, high=100 * high, n=n, groups=groups)


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
