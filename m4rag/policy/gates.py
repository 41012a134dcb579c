"""Gates over one signal: the best threshold, the best signal, and decisions that no gate makes about its own images.

What a rule gains is counted against never retrieving: +1 for a question that retrieval mends, -1 for one that it
breaks. A gate is fitted to maximise that sum. Its own gain is then too good, because it was chosen for it; so each
question is decided by a rule fitted on other images, signal and threshold both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from m4rag.policy.model import Signal

if TYPE_CHECKING:
    import numpy as np

FOLDS = 5
SEED = 0


@dataclass(frozen=True)
class Rows:
    """Questions as columns.

    Attributes:
        signals: Signal to its values, shape (rows,); NaN where there is none, and then no gate retrieves.
        gain: Right with retrieval minus right without: -1, 0 or 1, shape (rows,).
        groups: Number of the question's image, shape (rows,).
    """

    signals: Mapping[Signal, np.ndarray]
    gain: np.ndarray
    groups: np.ndarray

    def only(self, mask: np.ndarray) -> Rows:
        """The rows where the mask, shape (rows,), is true."""
        return Rows({name: values[mask] for name, values in self.signals.items()}, self.gain[mask], self.groups[mask])


class Rule(Protocol):
    """Says for which questions to retrieve."""

    def retrieves(self, rows: Rows) -> np.ndarray:
        """Whether it retrieves, shape (rows,)."""


@dataclass(frozen=True)
class Cut:
    """A gate while it is fitted; an infinite threshold never retrieves."""

    signal: Signal
    threshold: float

    def retrieves(self, rows: Rows) -> np.ndarray:
        """Whether it retrieves, shape (rows,)."""
        found: np.ndarray = rows.signals[self.signal] >= self.threshold
        return found


def best_threshold(signal: np.ndarray, gain: np.ndarray) -> float:
    """The threshold with the greatest gain when a question is retrieved for at or above it.

    Args:
        signal: Values, shape (rows,); NaN is never retrieved.
        gain: What retrieving gains, shape (rows,).

    Returns:
        Half-way between two neighbouring values, the least value to retrieve for all, or infinity for none. Of equal
        thresholds the greatest, which retrieves least.
    """
    import numpy as np

    known = np.isfinite(signal)
    values, codes = np.unique(signal[known], return_inverse=True)
    if not len(values):
        return float("inf")
    # Gain of retrieving from each value up, greatest value first, after the gain of retrieving nothing: 0.
    gains = np.concatenate([[0.0], np.cumsum(np.bincount(codes, weights=gain[known])[::-1])])
    taken = int(np.argmax(gains))
    if taken == 0:
        return float("inf")
    lowest = len(values) - taken
    if lowest == 0:
        return float(values[0])
    middle = (values[lowest - 1] + values[lowest]) / 2
    # Between neighbouring floats there is no middle: it rounds to one of them.
    return float(middle if middle > values[lowest - 1] else values[lowest])


def folds(groups: np.ndarray, count: int = FOLDS, seed: int = SEED) -> np.ndarray:
    """Deal the images into folds of equal size, at random; an image's questions stay together.

    Args:
        groups: Image of each row, shape (rows,).
        count: Number of folds.
        seed: Seed of the deal.

    Returns:
        Fold of each row from 0, shape (rows,).
    """
    import numpy as np

    images, codes = np.unique(groups, return_inverse=True)
    dealt: np.ndarray = np.random.default_rng(seed).permutation(len(images)) % count
    return dealt[codes]


def cross_fitted(rows: Rows, fit: Callable[[Rows], Rule], *, seed: int = SEED) -> np.ndarray:
    """Decide about the images of each fold by a rule that was fitted on all the others.

    Args:
        rows: The questions.
        fit: Fits a rule.
        seed: Seed of the folds.

    Returns:
        Whether to retrieve, shape (rows,).
    """
    import numpy as np

    fold = folds(rows.groups, seed=seed)
    retrieve = np.zeros(len(fold), dtype=bool)
    for number in range(int(fold.max()) + 1):
        held_out = fold == number
        retrieve[held_out] = fit(rows.only(~held_out)).retrieves(rows.only(held_out))
    return retrieve


def fit_threshold(rows: Rows, signal: Signal) -> Cut:
    """The best gate over one signal."""
    return Cut(signal, best_threshold(rows.signals[signal], rows.gain))


def fit_gate(rows: Rows, *, seed: int = SEED) -> Cut:
    """The best gate over any signal: the signal by its cross-fitted gain on these rows, its threshold on all of them.

    Args:
        rows: The questions; the first of equally good signals wins.
        seed: Seed of the folds.
    """
    names = list(rows.signals)
    if len(names) == 1:
        return fit_threshold(rows, names[0])

    def gain(signal: Signal) -> float:
        return float(rows.gain[cross_fitted(rows, partial(fit_threshold, signal=signal), seed=seed)].sum())

    return fit_threshold(rows, max(names, key=gain))
