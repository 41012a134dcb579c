"""`m4rag deploy cost`: what a benchmark costs in GPU hours, model by model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m4rag.cli.output import Json, emit
from m4rag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from m4rag.bench.runs import RunPlan
    from m4rag.bench.usage import Usage
    from m4rag.deploy.catalog import ServedModel
    from m4rag.deploy.cost import Cost, Work


def cost_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models of the table, or YAML files. Default: all that answer.", metavar="[MODEL]..."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run: its requests, tokens and times are taken.")] = None,
    in_flight: Annotated[
        float | None,
        typer.Option(help="Requests that were in flight in that run on average: gives its model's measured speed."),
    ] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Questions. With a run: as many instead of its own.")
    ] = None,
    settings: Annotated[int | None, typer.Option(min=1, help="Settings that each question is asked in.")] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Tokens in of a request on average, with its image.")
    ] = None,
    completion_tokens: Annotated[float | None, typer.Option(min=1, help="Tokens out on average.")] = None,
    tokens_per_second: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=NUMBER", help="Measured: tokens in and out that one replica handles a second; repeat it."
        ),
    ] = None,
    startup_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="From taking the GPUs to the first answer. Default: 11, as published.")
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0.0, help="Price of a GPU hour, in any currency.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how many GPU hours a benchmark takes with each model. No cluster and no model is asked.

    The work is that of a run, or --questions, --settings, --prompt-tokens and --completion-tokens. A speed that nobody
    measured is not made up.
    """
    from m4rag.deploy import catalog
    from m4rag.deploy.cost import STARTUP_S, assumptions, cost

    startup_s = STARTUP_S if startup_minutes is None else startup_minutes * 60
    chosen = [catalog.model(name) for name in models or _answering()]
    speeds = _speeds(tokens_per_second or [], chosen)
    if run is None:
        _refuse(in_flight is not None, "--in-flight", "it is about a run", "Name it with --run.")
        asked = _told(questions, settings, prompt_tokens, completion_tokens)
        usage: tuple[Usage, ...] = ()
    else:
        given = any(value is not None for value in (settings, prompt_tokens, completion_tokens))
        _refuse(given, "--run", "the run says its settings and tokens itself", "Leave them out.")
        plan, usage, asked = _measured(run, questions)
        if in_flight is not None:
            speeds = _speed_of_run(plan, usage, in_flight, chosen) | speeds
    costs = [
        cost(one, asked, speeds.get(one.name), startup_s=startup_s, price_per_gpu_hour=price_per_gpu_hour)
        for one in chosen
    ]
    said = assumptions(costs, startup_s)
    uncounted = sum(one.uncounted for one in usage)
    if uncounted:
        said.append(f"{uncounted:,} answers of the run have no tokens; they are taken to cost what the others did.")
    payload = {
        "work": asdict(asked),
        "settings": [asdict(one) for one in usage],
        "models": [asdict(one) for one in costs],
        "assumptions": said,
    }
    emit(payload, json, lambda console: _print(console, asked, usage, costs, said))


def _answering() -> list[str]:
    from m4rag.deploy import catalog

    return [name for name, one in catalog.catalog().models.items() if one.task == "generate"]


def _refuse(wrong: bool, where: str, what: str, remedy: str) -> None:
    if wrong:
        raise UsageError(what, where=where, remedy=remedy)


def _told(
    questions: int | None, settings: int | None, prompt_tokens: float | None, completion_tokens: float | None
) -> Work:
    from m4rag.deploy.cost import work

    if questions is None or settings is None or prompt_tokens is None or completion_tokens is None:
        raise UsageError(
            "the work is not known",
            remedy="Name a --run, or all of --questions, --settings, --prompt-tokens and --completion-tokens.",
        )
    return work(questions, settings, prompt_tokens, completion_tokens)


def _measured(run: Path, questions: int | None) -> tuple[RunPlan, tuple[Usage, ...], Work]:
    """The run's plan, what it used, and the work of as many questions as are asked about."""
    from m4rag.bench.usage import read_usage
    from m4rag.deploy.cost import Work

    plan, usage = read_usage(run)
    asked = Work(0, 0, 0)
    for one in usage:
        if not one.requests:
            raise UsageError(f"no answer in {one.setting} has its tokens", where=str(run), remedy="Repeat the run.")
        requests = questions or one.requests + one.uncounted
        each = requests / one.requests
        asked = Work(
            asked.requests + requests,
            asked.prompt_tokens + one.prompt_tokens * each,
            asked.completion_tokens + one.completion_tokens * each,
        )
    return plan, usage, asked


def _speed_of_run(
    plan: RunPlan, usage: tuple[Usage, ...], in_flight: float, chosen: Sequence[ServedModel]
) -> dict[str, float]:
    from m4rag.deploy.cost import Work, tokens_per_second

    names = [one.name for one in chosen if one.served_name == plan.model.name]
    if len(names) != 1:
        raise UsageError(
            f"the run's model {plan.model.name!r} is none of these",
            where="--in-flight",
            remedy="Say its speed with --tokens-per-second MODEL=NUMBER.",
        )
    answered = Work(
        sum(one.requests for one in usage),
        sum(one.prompt_tokens for one in usage),
        sum(one.completion_tokens for one in usage),
    )
    return {names[0]: tokens_per_second(answered, sum(one.seconds for one in usage), in_flight)}


def _speeds(told: Sequence[str], chosen: Sequence[ServedModel]) -> dict[str, float]:
    names = {one.name for one in chosen}
    speeds = {}
    for text in told:
        name, _, number = text.partition("=")
        try:
            speed = float(number)
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            raise UsageError(f"{text!r} is not MODEL=NUMBER with a number above 0", where="--tokens-per-second")
        if name not in names:
            raise UsageError(
                f"{name!r} is none of the models", where="--tokens-per-second", remedy=f"They are: {', '.join(names)}."
            )
        speeds[name] = speed
    return speeds


def _print(
    console: Console, asked: Work, usage: tuple[Usage, ...], costs: Sequence[Cost], assumptions: Sequence[str]
) -> None:
    from rich.table import Table

    console.print(
        f"{asked.requests:,} requests, {asked.prompt_tokens:,.0f} tokens in, {asked.completion_tokens:,.0f} tokens out"
    )
    for one in usage:
        console.print(
            f"  {one.setting}: {one.prompt_tokens / one.requests:,.0f} in, "
            f"{one.completion_tokens / one.requests:,.0f} out a request",
            highlight=False,
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    priced = any(one.money is not None for one in costs)
    table.add_column("model", no_wrap=True)
    for column in ("GPUs", "hours", "GPU hours", *(["price"] if priced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("speed", no_wrap=True)
    for row in costs:
        cells = [row.model, str(row.gpus), _range(row.hours), _range(row.gpu_hours)]
        table.add_row(*cells, *([_range(row.money)] if priced else []), row.basis or "measure it")
    console.print(table)
    for line in assumptions:
        console.print(f"- {line}", highlight=False)


def _range(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return ""
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in pair)
    return low if low == high else f"{low} - {high}"
