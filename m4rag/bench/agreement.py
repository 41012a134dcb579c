"""How well raters agree who score the same passages 1 to 5: weighted kappa and Krippendorff's alpha.

Both are 1 for perfect agreement and 0 for what chance alone gives. Kappa compares two raters and weighs a disagreement
by its square (Cohen 1968). Alpha takes any number of raters, lets each skip passages, and needs scores to be ordered
only, not evenly spaced (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

Intervals are 95 %, by bootstrap over images: passages shown with questions about one image are not independent. Both
coefficients are functions of a 5 x 5 table of counts, so every resample is a sum of the tables of the images drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.statistics import ALL, RESAMPLES, Sums, interval, resampled_means
from m4rag.vlm.prompts import BEST_SCORE

if TYPE_CHECKING:
    import numpy as np


class Coefficient(BaseModel):
    """A coefficient of agreement with its 95 % interval.

    Attributes:
        value: At most 1, and 0 for chance; None where it is not defined, because all scores are the same one.
        low: Lower end, by bootstrap over images; None where resamples never differ, as with one image.
        high: Upper end.
        groups: Images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float | None
    high: float | None
    groups: int

    @property
    def words(self) -> str:
        """The coefficient with its interval: `0.72 [0.65, 0.78]`."""
        if self.value is None:
            return "not defined (one score only)"
        if self.low is None or self.high is None:
            return f"{self.value:.2f} (too little for an interval)"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def weighted_kappa(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Coefficient:
    """Cohen's kappa of two raters with quadratic weights.

    Args:
        first: Scores of one rater, 1 to 5, shape (rows,).
        second: Scores of the other one for the same passages, shape (rows,).
        groups: Image of each passage's question as a number, shape (rows,).
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    return _coefficient(_kappa, confusion(first, second, groups), resamples, seed)


def krippendorff_alpha(
    scores: np.ndarray, passages: np.ndarray, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Coefficient:
    """Krippendorff's alpha for ordinal scores of any number of raters.

    Args:
        scores: One score a rater and passage, 1 to 5, shape (rows,).
        passages: Which passage each score is of, as a number, shape (rows,); one that has a single score does not
            count.
        groups: Image of the passage's question as a number, shape (rows,).
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    return _coefficient(_alpha, coincidences(scores, passages, groups), resamples, seed)


def confusion(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How often the raters gave each pair of scores, image by image.

    Returns:
        Counts, shape (images, 5, 5): rows are scores of the first rater, columns of the second.
    """
    import numpy as np

    images = np.unique(groups, return_inverse=True)[1]
    cells = (images * BEST_SCORE + first - 1) * BEST_SCORE + second - 1
    counts = np.bincount(cells, minlength=len(np.unique(groups)) * BEST_SCORE**2)
    return counts.reshape(-1, BEST_SCORE, BEST_SCORE)


def coincidences(scores: np.ndarray, passages: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Krippendorff's coincidence matrices, image by image.

    Each ordered pair of a passage's scores counts 1 / (their number - 1): a passage weighs as much as it has scores.

    Returns:
        Weights, shape (images, 5, 5), images without a passage that was scored twice left out.
    """
    import numpy as np

    _, first, units = np.unique(passages, return_index=True, return_inverse=True)
    given = np.bincount(units * BEST_SCORE + scores - 1, minlength=len(first) * BEST_SCORE)
    given = given.reshape(-1, BEST_SCORE).astype(float)
    paired = given.sum(axis=1) > 1
    given, images = given[paired], np.unique(groups[first][paired], return_inverse=True)[1]
    pairs = given[:, :, None] * given[:, None, :] - given[:, :, None] * np.eye(BEST_SCORE)
    pairs /= given.sum(axis=1)[:, None, None] - 1
    by_image = np.zeros((int(images.max(initial=-1)) + 1, BEST_SCORE, BEST_SCORE))
    np.add.at(by_image, images, pairs)
    return by_image


def _coefficient(
    statistic: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, resamples: int, seed: int
) -> Coefficient:
    """A function of a table of counts, with the interval that drawing images gives."""
    import numpy as np

    images = len(counts)
    if not images:
        return Coefficient(value=None, low=None, high=None, groups=0)
    flat = counts.reshape(images, -1).astype(float)
    # Over as many rows as images a mean is a total, but for that number.
    sums = Sums(tuple(map(str, range(flat.shape[1]))), flat, np.ones_like(flat))
    draws = resampled_means({ALL: sums}, resamples=resamples, seed=seed)[ALL] * images
    value = float(statistic(counts.sum(axis=0)))
    ends = interval(statistic(draws.reshape(-1, *counts.shape[1:])), images) if np.isfinite(value) else None
    low, high = ends or (None, None)
    return Coefficient(value=value if np.isfinite(value) else None, low=low, high=high, groups=images)


def _kappa(counts: np.ndarray) -> np.ndarray:
    """Quadratic-weighted kappa of tables, shape (..., 5, 5); NaN where no disagreement is to be expected."""
    import numpy as np

    scores = np.arange(BEST_SCORE)
    weights = (scores[:, None] - scores) ** 2
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    expected = (rows[..., :, None] * columns[..., None, :] * weights).sum(axis=(-2, -1))
    observed = (counts * weights).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    return _one_minus(observed, expected)


def _alpha(counts: np.ndarray) -> np.ndarray:
    """Ordinal alpha of coincidence matrices, shape (..., 5, 5); NaN where no disagreement is to be expected."""
    import numpy as np

    totals = counts.sum(axis=-1)
    # Two scores are as far apart as their mid-ranks among all scores given.
    ranks = np.cumsum(totals, axis=-1) - totals / 2
    distances = (ranks[..., :, None] - ranks[..., None, :]) ** 2
    expected = (totals[..., :, None] * totals[..., None, :] * distances).sum(axis=(-2, -1))
    observed = (counts * distances).sum(axis=(-2, -1)) * (totals.sum(axis=-1) - 1)
    return _one_minus(observed, expected)


def _one_minus(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    import numpy as np

    share: np.ndarray = np.divide(
        observed, expected, out=np.full(np.shape(observed), np.nan), where=np.asarray(expected) > 0
    )
    return 1 - share
