"""Does what retrieval gives depend on the size of the model?

The effect of a setting, its accuracy minus that of `no_rag`, is laid over the number of parameters, in doublings. The
slope's interval resamples the images that all models were asked about, the same ones for every model: it says how sure
the slope is for these models, not for models in general.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from m4rag.bench.compare import Answered, need_same_questions
from m4rag.bench.contexts import NO_RAG, has_context
from m4rag.bench.paired import Difference, Paired, smoothed
from m4rag.bench.predictions import group_numbers
from m4rag.bench.statistics import ALL, RESAMPLES, Estimate, everything, interval, resampled_means
from m4rag.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# "7B" as a part of its own: not the "2.5" of Qwen2.5, the "A3B" (active) of a mixture or the "7B" of "8x7B".
SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)


class Point(BaseModel):
    """One model in a trend.

    Attributes:
        run: Its run folder.
        model: Served model name.
        size: Parameters in billions.
        effect: What the setting gives it over `no_rag`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    model: str
    size: float
    effect: Difference


class Trend(BaseModel):
    """What a setting gives, by the size of the model.

    Attributes:
        setting: The setting.
        points: The models, smallest first.
        slope: Points of effect for each doubling of the size, by least squares, with its 95 % interval over images;
            None where the resamples do not vary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    points: tuple[Point, ...]
    slope: Estimate | None


class Scale(BaseModel):
    """What size does.

    Attributes:
        trends: One for each setting with context that all runs have.
        reason: Why there are none, "" where there are some.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trends: tuple[Trend, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Sized:
    """One run for the profile over sizes: its model, and its answers by setting."""

    run: str
    model: str
    size: float
    sides: Mapping[str, Answered]


def parse_size(text: str) -> float | None:
    """The number of parameters that a text names, in billions: `7B` is 7, `256M` is 0.256.

    Returns:
        Billions; None if the text names no size or two different ones.
    """
    found = {float(number) / (1000 if unit in "Mm" else 1) for number, unit in SIZE.findall(text)}
    return found.pop() if len(found) == 1 else None


def profile(runs: Sequence[Sized], *, resamples: int = RESAMPLES, seed: int = 0) -> Scale:
    """Lay the effect of every setting over the size of the model.

    Args:
        runs: One run a model, of one dataset.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        BadData: The runs disagree about what a question is.
    """
    if len({run.size for run in runs}) < 2:
        size = f"{runs[0].size:g}B"
        return Scale(reason=f"Models of one size ({size}) say nothing about scale.")
    lacking = [run.run for run in runs if NO_RAG not in run.sides]
    if lacking:
        return Scale(reason=f"Nothing can be said about scale: {', '.join(lacking)} has no {NO_RAG} to compare with.")
    settings = [name for name in runs[0].sides if has_context(name) and all(name in run.sides for run in runs)]
    if not settings:
        return Scale(reason="The runs have no setting with context in common, so they say nothing about scale.")
    rows = _common_rows(runs)
    if not len(rows[0]):
        return Scale(reason="The runs have no question in common, so they say nothing about scale.")
    ordered = sorted(zip(runs, rows, strict=True), key=lambda pair: pair[0].size)
    return Scale(trends=tuple(_trend(ordered, setting, resamples, seed) for setting in settings))


def _common_rows(runs: Sequence[Sized]) -> list[np.ndarray]:
    """For each run the rows of the questions that all runs asked, in the same order."""
    import numpy as np
    import pyarrow.compute as pc

    tables = [_questions(run) for run in runs]
    common = tables[0]["question_id"].combine_chunks()
    for table in tables[1:]:
        common = common.filter(pc.is_in(common, value_set=table["question_id"].combine_chunks()))
    rows = [np.asarray(pc.index_in(common, value_set=table["question_id"].combine_chunks())) for table in tables]
    for run, table, mine in zip(runs[1:], tables[1:], rows[1:], strict=True):
        need_same_questions(tables[0].take(rows[0]), table.take(mine), f"{runs[0].run}, {run.run}")
    return rows


def _trend(runs: Sequence[tuple[Sized, np.ndarray]], setting: str, resamples: int, seed: int) -> Trend:
    import numpy as np

    first, rows = runs[0]
    groups = group_numbers(_questions(first).take(rows)["group"])
    n, images = len(groups), int(groups.max()) + 1
    pairs = {
        run.run: Paired(run.sides[NO_RAG].right[rows], run.sides[setting].right[rows], groups, everything(n))
        for run, rows in runs
    }
    draws = resampled_means({name: pair.net for name, pair in pairs.items()}, resamples=resamples, seed=seed)
    points = tuple(
        Point(
            run=run.run,
            model=run.model,
            size=run.size,
            effect=pairs[run.run].differences(draws[run.run], adjusted=False)[ALL],
        )
        for run, _ in runs
    )
    doublings = np.log2([point.size for point in points])
    weights = (doublings - doublings.mean()) / np.square(doublings - doublings.mean()).sum()
    value = float(weights @ [point.effect.value for point in points])
    moved = np.stack([smoothed(draws[point.run][:, 0], n, seed=place) for place, point in enumerate(points)], axis=1)
    ends = interval(100 * moved @ weights, images) if images > 1 else None
    slope = None
    if ends is not None:
        slope = Estimate(value=value, low=min(ends[0], value), high=max(ends[1], value), n=n, groups=images)
    return Trend(setting=setting, points=points, slope=slope)


def _questions(run: Sized) -> pa.Table:
    return run.sides[NO_RAG].questions


def sizes_of(models: Mapping[str, str], given: Mapping[str, float]) -> dict[str, float]:
    """The size of every model.

    Args:
        models: Served name to what the server loaded; both are searched for a size.
        given: Served name to billions of parameters, where somebody knows better.

    Raises:
        UsageError: A model's size is neither given nor in its names, or a size is given for a model that is not there.
    """
    unknown = sorted(given.keys() - models.keys())
    if unknown:
        raise UsageError(
            f"no run of a model {unknown[0]!r}", where="--size", remedy=f"The runs are of {', '.join(models)}."
        )
    sizes = {}
    for name, root in models.items():
        size = given.get(name) or parse_size(name) or parse_size(root)
        if size is None:
            raise UsageError(
                f"the size of model {name!r} is not in its name", remedy=f"Give it: --size {name}=7B (or 256M)."
            )
        sizes[name] = size
    return sizes
