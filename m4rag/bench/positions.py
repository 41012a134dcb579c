"""Does a model prefer options for where they stand?

Options are shown in a fixed order. A model without a preference chooses each position about as often as the right
option stands there, whatever its accuracy; one that leans to the first or the last option does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np


class Positions(BaseModel):
    """Positions of the chosen and of the right options, over the questions with a valid answer.

    Attributes:
        n: These questions.
        chosen: Percent of them in which each position was chosen, the first position first.
        right: Percent in which the right option stands there.
        p: p value of the test that both shares are the same (`marginal_test`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    chosen: tuple[float, ...]
    right: tuple[float, ...]
    p: float

    @property
    def biased(self) -> bool:
        """Whether chance alone is unlikely to give such shares (5 % level)."""
        return self.p < 0.05

    @property
    def favourite(self) -> int:
        """The position that is chosen most above its share of right options, from 0."""
        return max(range(len(self.chosen)), key=lambda place: self.chosen[place] - self.right[place])


def positions(chosen: np.ndarray, right: np.ndarray, groups: np.ndarray, options: int) -> Positions | None:
    """Compare where the chosen and the right options stand.

    Args:
        chosen: 0-based option chosen, shape (rows,).
        right: 0-based right option, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        options: How many positions there are.

    Returns:
        The shares and their test; None without rows.
    """
    import numpy as np

    if not len(chosen):
        return None
    shares = [100 * np.bincount(places, minlength=options) / len(places) for places in (chosen, right)]
    return Positions(
        n=len(chosen),
        chosen=tuple(map(float, shares[0])),
        right=tuple(map(float, shares[1])),
        p=marginal_test(chosen, right, groups, options),
    )


def marginal_test(chosen: np.ndarray, right: np.ndarray, groups: np.ndarray, options: int) -> float:
    """The chi-square test of Stuart (1955) for equal shares in paired choices, with images as its units.

    Each image gives a vector: how much more often each position was chosen than right in its questions. Under equal
    shares its mean is 0, and the vectors' sum is judged by their own products. With a question an image this is
    Stuart's test, with two options McNemar's. It wants 20 images or more.

    Args:
        chosen: 0-based option chosen, shape (rows,).
        right: 0-based right option, shape (rows,).
        groups: Image of each row as a number from 0, shape (rows,).
        options: How many positions there are.

    Returns:
        The p value; 1 where chosen and right positions balance on every image.
    """
    import numpy as np
    from scipy.special import chdtrc

    shape = (int(groups.max()) + 1, options)
    excess = np.zeros(shape)
    np.add.at(excess, (groups, chosen), 1)
    np.add.at(excess, (groups, right), -1)
    covariance, total = excess.T @ excess, excess.sum(axis=0)
    freedom = int(np.linalg.matrix_rank(covariance))
    if not freedom:
        return 1.0
    return float(chdtrc(freedom, total @ np.linalg.pinv(covariance, hermitian=True) @ total))
