"""Choose never, always or a gate by questions that were answered both ways.

Of `never` and `always` the one with more right answers is the plain rule, `never` if they are equal. A gate was fitted,
so it has to prove itself: its cross-fitted decisions (see `m4rag.policy.gates`) have to beat the plain rule beyond
noise, that is, the paired 95 % interval of the difference lies above zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from m4rag.bench.scoring import everything
from m4rag.bench.statistics import RESAMPLES
from m4rag.policy.estimates import estimates
from m4rag.policy.gates import SEED, Cut, Rows, cross_fitted, fit_gate
from m4rag.policy.model import Grounds, Retrieve, better

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Choice:
    """A rule for one model with what speaks for it.

    Attributes:
        retrieve: What was chosen.
        cut: The best gate, fitted on all questions; it decides only if `retrieve` is `gated`.
        alone: What the gate decides out of fold, shape (rows,).
        grounds: The differences that the choice rests on.
    """

    retrieve: Retrieve
    cut: Cut
    alone: np.ndarray
    grounds: Grounds

    def retrieves(self, rows: Rows) -> np.ndarray:
        """Whether it retrieves, shape (rows,)."""
        import numpy as np

        if self.retrieve == "gated":
            return self.cut.retrieves(rows)
        return np.full(len(rows.gain), self.retrieve == "always")


def fit_choice(rows: Rows, *, resamples: int = RESAMPLES, seed: int = SEED) -> Choice:
    """The rule that these questions support.

    Args:
        rows: The questions.
        resamples: Bootstrap resamples.
        seed: Seed of folds and bootstrap.
    """
    import numpy as np

    alone = cross_fitted(rows, partial(fit_gate, seed=seed), seed=seed)
    gains = {"never": np.zeros(len(alone)), "always": rows.gain, "alone": rows.gain * alone}
    images = np.unique(rows.groups, return_inverse=True)[1]
    found = estimates(gains, images, everything(len(alone)), resamples=resamples, seed=seed)
    always_gain = found.difference("always", "never")
    grounds = Grounds(always_gain=always_gain, alone_gain=found.difference("alone", better(always_gain)))
    cut = fit_gate(rows, seed=seed)
    retrieved = cut.retrieves(rows)
    # A gate that retrieves for all or for none of the questions is no gate.
    gated = grounds.alone_gain.low > 0 and retrieved.any() and not retrieved.all()
    return Choice("gated" if gated else grounds.plain, cut, alone, grounds)
