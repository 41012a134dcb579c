"""What a run asked of its model: tokens and wall times of its answers, by setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m4rag.bench.joined import read_folder_table
from m4rag.bench.runs import RunPlan
from m4rag.schema import Answer


@dataclass(frozen=True)
class Usage:
    """One setting's requests.

    Attributes:
        setting: The setting.
        requests: Requests whose tokens the server counted.
        uncounted: Other answers, mostly errors.
        prompt_tokens: Tokens in, summed.
        completion_tokens: Tokens out, summed.
        seconds: Wall times of the counted requests, summed.
    """

    setting: str
    requests: int
    uncounted: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def read_usage(folder: Path) -> tuple[RunPlan, tuple[Usage, ...]]:
    """A run's plan, and what each of its settings asked for, in the plan's order.

    Raises:
        BadData: The folder holds no run, or its answers are not complete.
    """
    import pyarrow.compute as pc

    plan = RunPlan.read(folder)
    answers = read_folder_table(folder / "answers", Answer)
    found = []
    for setting in plan.settings:
        of = answers.filter(pc.equal(answers["setting"], setting))
        counted = of.filter(pc.greater(of["prompt_tokens"], 0))
        found.append(
            Usage(
                setting=setting,
                requests=counted.num_rows,
                uncounted=of.num_rows - counted.num_rows,
                prompt_tokens=pc.sum(counted["prompt_tokens"]).as_py() or 0,
                completion_tokens=pc.sum(counted["completion_tokens"]).as_py() or 0,
                seconds=(pc.sum(counted["latency_ms"]).as_py() or 0.0) / 1000,
            )
        )
    return plan, tuple(found)
