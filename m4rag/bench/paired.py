"""Statistics of two sets of answers to the same questions, pair by pair.

What is resampled, and what the test may swap, is the image with all its questions: questions about one image are not
independent. The value is always B minus A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.statistics import ALL, RESAMPLES, Partition, Sums, Z, everything, group_sums, interval, resampled_means

if TYPE_CHECKING:
    import numpy as np

Z_POWER = 0.8416212335729143
"""Standard normal quantile of 80 % power."""


class Difference(BaseModel):
    """B's accuracy minus A's over the questions that both have.

    Attributes:
        a: Accuracy of A in percent.
        b: Accuracy of B in percent.
        value: B minus A in points.
        low: Lower end of its 95 % interval, by bootstrap over images.
        high: Upper end.
        n: Questions.
        groups: Images.
        a_only: Questions that only A has right.
        b_only: Questions that only B has right.
        mcnemar: p value of the exact McNemar test, which takes questions to be independent.
        p: p value of the same test with images as its units (`sign_flip`); equal to `mcnemar` where no image has two
            questions on which A and B differ.
        p_holm: `p` adjusted by Holm over the rows of its breakdown, None where there is one row only by nature.
        detectable: The smallest true difference in points that these questions would show with 80 % probability at the
            5 % level, two-sided; None where A and B never differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: float
    b: float
    value: float
    low: float
    high: float
    n: int
    groups: int
    a_only: int
    b_only: int
    mcnemar: float
    p: float
    p_holm: float | None
    detectable: float | None

    @property
    def clear(self) -> bool:
        """Whether chance alone is unlikely to give this difference.

        Both have to say so: the test (5 % level, adjusted where there are many rows) and the interval, which are
        made differently and may disagree near the line.
        """
        return (self.p if self.p_holm is None else self.p_holm) < 0.05 and not self.low <= 0 <= self.high

    @property
    def words(self) -> str:
        """The difference with its interval: `+4.1 [+2.0, +6.3] points`."""
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}] points"


class Paired:
    """Right and wrong answers of two sides to the same questions, in one breakdown.

    Args:
        a: Whether A is right, shape (rows,).
        b: Whether B is right, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        cells: The breakdown.

    Attributes:
        net: Sums of b - a, image by image.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, groups: np.ndarray, cells: Partition) -> None:
        self.net: Sums = group_sums(b.astype(float) - a.astype(float), groups, cells)
        self._a = _count(cells, a)
        self._b = _count(cells, b)
        self._both = _count(cells, a & b)

    def differences(self, draws: np.ndarray, *, adjusted: bool) -> dict[str, Difference]:
        """Difference of each cell that has rows.

        Args:
            draws: Means of `net` in each resample, shape (resamples, cells).
            adjusted: Whether the cells are a family of rows, whose p values are to be adjusted.
        """
        present = [cell for cell, rows in enumerate(self.net.rows.sum(axis=0)) if rows]
        tests = [sign_flip(self.net.right[:, cell]) for cell in present]
        corrected = holm(tests) if adjusted else [None] * len(tests)
        return {
            self.net.labels[cell]: self._difference(cell, draws[:, cell], p, p_holm)
            for cell, p, p_holm in zip(present, tests, corrected, strict=True)
        }

    def _difference(self, cell: int, draws: np.ndarray, p: float, p_holm: float | None) -> Difference:
        net, rows = self.net.right[:, cell], self.net.rows[:, cell]
        n, groups = int(rows.sum()), int((rows > 0).sum())
        a, b, both = int(self._a[cell]), int(self._b[cell]), int(self._both[cell])
        low, high = interval_of_difference(draws, n, groups)
        return Difference(
            a=100 * a / n,
            b=100 * b / n,
            value=100 * (b - a) / n,
            low=min(100 * low, 100 * (b - a) / n),
            high=max(100 * high, 100 * (b - a) / n),
            n=n,
            groups=groups,
            a_only=a - both,
            b_only=b - both,
            mcnemar=mcnemar(a - both, b - both),
            p=p,
            p_holm=p_holm,
            detectable=detectable(net, rows),
        )


def paired_differences(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray,
    parts: Mapping[str, Partition],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, dict[str, Difference]], dict[str, np.ndarray]]:
    """Differences in every cell of several breakdowns, all from the same draws of images.

    Args:
        a: Whether A is right, shape (rows,).
        b: Whether B is right, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        parts: Breakdowns by name; p values are adjusted in those with more than one cell.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        Name to cell to difference, and name to the resampled differences, shape (resamples, cells).
    """
    pairs = {name: Paired(a, b, groups, cells) for name, cells in parts.items()}
    draws = resampled_means({name: pair.net for name, pair in pairs.items()}, resamples=resamples, seed=seed)
    found = {name: pair.differences(draws[name], adjusted=len(parts[name].labels) > 1) for name, pair in pairs.items()}
    return found, draws


def against(
    a: np.ndarray,
    bs: Mapping[str, np.ndarray],
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences of several sides from one baseline, over all rows.

    Args:
        a: Whether the baseline is right, shape (rows,).
        bs: Name to whether that side is right, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        Name to difference; p values are adjusted over the sides where there are several.
    """
    found = {}
    for name, b in bs.items():
        cells, _ = paired_differences(a, b, groups, {ALL: everything(len(a))}, resamples=resamples, seed=seed)
        found[name] = cells[ALL][ALL]
    if len(found) > 1:
        adjusted = holm([cell.p for cell in found.values()])
        return {
            name: cell.model_copy(update={"p_holm": p}) for (name, cell), p in zip(found.items(), adjusted, strict=True)
        }
    return found


def interval_of_difference(draws: np.ndarray, n: int, groups: int) -> tuple[float, float]:
    """The 95 % interval of a difference, -1 to 1, from its resamples.

    Where few pairs differ, resamples of them vary too little or not at all. So each resample gets, on average, half a
    question more that only A has right and half a one that only B has right, much as Bonett and Price (2012) add to the
    two cells of a paired table. With hundreds of questions that changes nothing to speak of;
    `benchmarks/bootstrap_coverage.py` shows what it does with 20.

    Args:
        draws: The difference in each resample, shape (resamples,); NaN is left out.
        n: Questions.
        groups: Images.

    Returns:
        Lower and upper end; (-1, 1) for one image, from which nothing can be told.
    """
    if groups < 2:
        return -1.0, 1.0
    low, high = interval(smoothed(draws, n), groups) or (-1.0, 1.0)
    return max(-1.0, low), min(1.0, high)


def smoothed(draws: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Resampled differences with, on average, half a question more each way (see `interval_of_difference`).

    Args:
        draws: The difference in each resample, shape (resamples,).
        n: Questions.
        seed: Seed of what is added.
    """
    import numpy as np

    a_only, b_only = np.random.default_rng(seed).poisson(0.5, (2, len(draws)))
    more: np.ndarray = (n * draws + b_only - a_only) / (n + 1)
    return more


def mcnemar(a_only: int, b_only: int) -> float:
    """Two-sided p value of the exact McNemar test: are the pairs that differ split as a fair coin would?

    Args:
        a_only: Questions that only A has right.
        b_only: Questions that only B has right.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(a_only, b_only), a_only + b_only, 0.5)))


def sign_flip(net: np.ndarray) -> float:
    """Two-sided p value of the exact McNemar test with images as its units.

    If A and B are equally good, then swapping their answers to all questions about an image changes nothing: each
    image's net gain is as likely to be positive as negative. The p value is the share of all these swaps that give a
    total at least as far from 0. It is computed exactly: images with equal gains give a binomial, their sum a
    convolution.

    Args:
        net: Questions that only B has right minus those that only A has right, for each image, shape (images,).
    """
    import numpy as np
    from scipy.special import gammaln

    gains = np.abs(net[net != 0]).astype(np.int64)
    chances: np.ndarray = np.ones(1)  # of the sum of the gains that go to B, from 0 up
    for gain, images in zip(*np.unique(gains, return_counts=True), strict=True):
        ways = np.arange(images + 1)
        step = np.zeros(gain * images + 1)
        step[::gain] = np.exp(
            gammaln(images + 1) - gammaln(ways + 1) - gammaln(images - ways + 1) - images * np.log(2.0)
        )
        chances = np.convolve(chances, step)
    totals = np.abs(2 * np.arange(len(chances)) - gains.sum())
    return min(1.0, float(chances[totals >= abs(round(float(net.sum())))].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method, so that 5 % bounds the chance of any false alarm in the family.

    Args:
        p: The p values of one family.

    Returns:
        The adjusted ones in the same order.
    """
    import numpy as np

    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def detectable(net: np.ndarray, rows: np.ndarray) -> float | None:
    """Smallest true difference, in points, that a test at 5 % (two-sided) finds with 80 % probability.

    Its standard error is that of a ratio over images, the variance of pairs that share an image included.

    Args:
        net: Sum of b - a of each image, shape (images,).
        rows: Questions of each image, shape (images,); images without any do not count.

    Returns:
        Points; None with one image or where A and B never differ, for then nothing is known of the variance.
    """
    import numpy as np

    net, rows = net[rows > 0], rows[rows > 0]
    images, n = len(rows), rows.sum()
    if images < 2 or not net.any():
        return None
    residuals = net - net.sum() / n * rows
    error = (images / (images - 1) * np.square(residuals).sum()) ** 0.5 / n
    return 100 * (Z + Z_POWER) * float(error) or None


def _count(cells: Partition, right: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.bincount(cells.codes[right], minlength=len(cells.labels))
