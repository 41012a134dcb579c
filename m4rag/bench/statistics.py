"""Intervals for benchmark scores: a bootstrap that resamples images, and Wilson's interval for rates.

Questions about one image are not independent (a WorldCuisines image is asked about in 30 varieties), so what is drawn
with replacement is the image, with all its questions. Every cell of a breakdown is computed from the same draws, so
means over cells and differences between cells are resampled consistently.

Plain percentile intervals are too narrow where images are few: they hold the truth 92 or 93 times of 100 with 20
images. The percentiles taken here lie further out the fewer the images are (the expanded percentile interval of
Hesterberg 2015, "What Teachers Should Know About the Bootstrap"); `benchmarks/bootstrap_coverage.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np

ALL = "all"
RESAMPLES = 2000
LEVEL = 0.95
Z = 1.959963984540054
"""Standard normal quantile of the 95 % level."""

CHUNK_DRAWS = 2_000_000
"""Image draws held in memory at once (three arrays of 16 MB)."""

SPARSE = 0.1
"""Below this share of filled image-and-cell pairs a sparse product is faster than a dense one."""


class Estimate(BaseModel):
    """A percentage with its 95 % interval.

    Attributes:
        value: Percent.
        low: Lower end in percent.
        high: Upper end in percent.
        n: Questions it is over.
        groups: Images they are about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    n: int
    groups: int


@dataclass(frozen=True)
class Partition:
    """A breakdown of the rows into cells.

    Attributes:
        labels: Name of each cell.
        codes: For each row the position of its cell in `labels`, shape (rows,).
    """

    labels: tuple[str, ...]
    codes: np.ndarray


@dataclass(frozen=True)
class Sums:
    """Right answers and questions of every image in every cell of a partition.

    Attributes:
        labels: Name of each cell.
        right: Sum of the values, shape (images, cells).
        rows: Number of rows, same shape.
    """

    labels: tuple[str, ...]
    right: np.ndarray
    rows: np.ndarray

    def means(self) -> np.ndarray:
        """Mean of each cell, shape (cells,); NaN for a cell without rows."""
        return _ratio(self.right.sum(axis=0), self.rows.sum(axis=0))

    def estimates(self, draws: np.ndarray) -> dict[str, Estimate]:
        """Estimate of each cell that has rows, in percent.

        Args:
            draws: Means of each cell in each resample, shape (resamples, cells).
        """
        import numpy as np

        values, rows, groups = self.means(), self.rows.sum(axis=0), (self.rows > 0).sum(axis=0)
        by_cell = np.ascontiguousarray(draws.T)
        return {
            label: estimate(values[cell], by_cell[cell], int(rows[cell]), int(groups[cell]))
            for cell, label in enumerate(self.labels)
            if rows[cell]
        }


def partition(names: np.ndarray | list[str]) -> Partition:
    """Cells by the distinct names of the rows, in sorted order."""
    import numpy as np

    labels, codes = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
    return Partition(tuple(str(label) for label in labels), codes)


def everything(rows: int) -> Partition:
    """The breakdown into one cell."""
    import numpy as np

    return Partition((ALL,), np.zeros(rows, dtype=np.int64))


def group_sums(values: np.ndarray, groups: np.ndarray, cells: Partition) -> Sums:
    """Add up the rows of every image in every cell.

    Args:
        values: What is averaged (1 right, 0 wrong), shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        cells: The breakdown.
    """
    import numpy as np

    shape = (int(groups.max()) + 1, len(cells.labels))
    flat = groups.astype(np.int64) * shape[1] + cells.codes
    right = np.bincount(flat, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
    rows = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    return Sums(cells.labels, right, rows)


def resampled_means(
    sums: Mapping[str, Sums], *, resamples: int = RESAMPLES, seed: int = 0, chunk_draws: int = CHUNK_DRAWS
) -> dict[str, np.ndarray]:
    """Draw as many images as there are, with replacement, again and again, and average every cell each time.

    Args:
        sums: Breakdown name to sums; all over the same images.
        resamples: How often.
        seed: Seed of the draws; the same seed gives the same draws for every breakdown and every setting.
        chunk_draws: Bounds the memory; does not change the result.

    Returns:
        Breakdown name to means, shape (resamples, cells); NaN where a cell has no row in a resample.
    """
    import numpy as np

    totals = np.concatenate([part.right for part in sums.values()] + [part.rows for part in sums.values()], axis=1)
    images, cells = len(totals), totals.shape[1] // 2
    added = _product(totals.astype(float))
    random = np.random.default_rng(seed)
    means = np.empty((resamples, cells))
    step = max(1, chunk_draws // images)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(0, images, size=(count, images)) + images * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(float)
        drawn_totals = added(weights)
        means[start : start + count] = _ratio(drawn_totals[:, :cells], drawn_totals[:, cells:])
    ends = np.cumsum([part.right.shape[1] for part in sums.values()])
    return dict(zip(sums, np.split(means, ends[:-1], axis=1), strict=True))


def estimate(value: float, draws: np.ndarray, n: int, groups: int) -> Estimate:
    """A value in percent with the interval that its draws give.

    Where the draws give none (everything right, everything wrong, or one image) Wilson's interval stands in, as if each
    image were asked about once.

    Args:
        value: The mean, 0 to 1.
        draws: The same mean in each resample, shape (resamples,); NaN is left out.
        n: Questions.
        groups: Images.
    """
    low, high = interval(draws, groups) or wilson(value, groups)
    return Estimate(value=100 * float(value), low=100 * low, high=100 * high, n=n, groups=groups)


def interval(draws: np.ndarray, groups: int) -> tuple[float, float] | None:
    """The 95 % interval of a statistic from its resamples: their expanded percentiles.

    Args:
        draws: The statistic in each resample, shape (resamples,); NaN is left out.
        groups: Images behind it.

    Returns:
        Lower and upper end; None where all draws are equal, for then they cannot tell how sure the value is.
    """
    import numpy as np

    finite = draws[np.isfinite(draws)]
    if not len(finite) or finite.min() == finite.max():
        return None
    tail = tail_share(groups)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4096)
def tail_share(groups: int) -> float:
    """Share of the draws to leave out on each side for a 95 % interval.

    2.5 % with many images. With few, draws vary too little by the factor sqrt((groups - 1) / groups), and the normal
    quantile that percentiles imply must be Student's; both push the percentile outwards: 1.6 % with 20 images.

    Args:
        groups: Images, at least 2.
    """
    from scipy.special import ndtr, stdtrit

    student = float(stdtrit(groups - 1, (1 + LEVEL) / 2))
    return float(ndtr(-student * (groups / (groups - 1)) ** 0.5))


def macro(means: np.ndarray) -> np.ndarray:
    """Mean over the cells that have rows; works on one row of means or on all resamples, shape (..., cells)."""
    import numpy as np

    present = np.isfinite(means)
    return _ratio(np.where(present, means, 0.0).sum(axis=-1), present.sum(axis=-1))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate.

    Args:
        share: The rate, 0 to 1.
        n: Independent observations it comes from; 0 gives (0, 1).

    Returns:
        Lower and upper end, 0 to 1.
    """
    if n == 0:
        return 0.0, 1.0
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    # Rounding may leave the ends a hair inside a rate of exactly 0 or 1.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def wilson_estimate(count: int, n: int, groups: int) -> Estimate:
    """A rate in percent with Wilson's interval over `n` observations."""
    share = count / n if n else 0.0
    low, high = wilson(share, n)
    return Estimate(value=100 * share, low=100 * low, high=100 * high, n=n, groups=groups)


def gap(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """Difference of two rates over different questions, with the 95 % interval that their own intervals imply.

    Newcombe's (1998) square-and-add rule. Questions that share an image go up and down together, which makes the true
    interval, if anything, narrower.

    Args:
        first: One rate.
        second: The other one.

    Returns:
        Second minus first in points, lower and upper end.
    """
    value = second.value - first.value
    low = value - ((second.value - second.low) ** 2 + (first.high - first.value) ** 2) ** 0.5
    high = value + ((second.high - second.value) ** 2 + (first.value - first.low) ** 2) ** 0.5
    return value, low, high


def exact(value: float, n: int, groups: int) -> Estimate:
    """A value in percent that is known without sampling: both ends are the value."""
    return Estimate(value=100 * value, low=100 * value, high=100 * value, n=n, groups=groups)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    import numpy as np

    ratio: np.ndarray = np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)
    return ratio


def _product(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Multiplication by a matrix from the right. Its entries are counts, so both ways give the same numbers exactly."""
    import numpy as np

    if np.count_nonzero(matrix) >= SPARSE * matrix.size:
        return lambda weights: weights @ matrix
    from scipy.sparse import csr_array

    across = csr_array(matrix.T)
    return lambda weights: (across @ np.ascontiguousarray(weights.T)).T
