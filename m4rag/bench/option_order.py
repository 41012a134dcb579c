"""The order in which a question's options are shown: the dataset's, or one drawn for each question.

Models lean to positions. A run with drawn orders, beside one with the dataset's, shows how much of a score is that.
"""

from __future__ import annotations

import hashlib


def shown_order(seed: int | None, question_id: str, n_options: int) -> tuple[int, ...]:
    """Which of the dataset's options stands at each position that is shown.

    The order depends on the seed, the question and the number of its options only, on any machine.

    Args:
        seed: Seed of the draw; None for the dataset's order.
        question_id: The question.
        n_options: How many options it has.

    Returns:
        0-based places in the dataset, a permutation; `order[position]` is the option shown at `position`.
    """
    places = range(n_options)
    if seed is None:
        return tuple(places)
    return tuple(sorted(places, key=lambda place: hashlib.sha256(f"{seed}:{question_id}:{place}".encode()).digest()))
