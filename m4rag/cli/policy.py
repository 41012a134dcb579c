"""`m4rag policy`: learn when to retrieve, show what was learned, try it on another run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4rag.cli.output import Json, emit

if TYPE_CHECKING:
    from rich.console import Console

    from m4rag.bench.statistics import Estimate
    from m4rag.policy.apply import Applied
    from m4rag.policy.model import Policy

app = typer.Typer(help="Learn from a run when to retrieve, and serve only that.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="Policy file that `m4rag policy fit` wrote.", metavar="FILE")]
Run = Annotated[Path, typer.Argument(help="Run folder that `m4rag bench run` made.", metavar="RUN")]


@app.command("fit")
def fit_command(
    run: Run,
    setting: Annotated[
        str | None, typer.Option(help="Setting that would be served. Default: the run's only one that can be.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to write. [default: RUN/policy-SETTING.json]")
    ] = None,
    json: Json = False,
) -> None:
    """Learn when to retrieve: never, always, or where a signal says so; write the policy and the run's report again.

    The whole choice is cross-fitted over images. A gate must beat the better of never and always beyond noise.
    """
    from m4rag.bench.joined import read_scores
    from m4rag.bench.report import current_report
    from m4rag.policy.fit import fit
    from m4rag.policy.model import payload

    read_scores(run)  # a run that can't be reported is refused before anything is written
    policy = fit(run, setting)
    path = output or policy.file_in(run)
    policy.write(path)
    report = current_report(run)  # it shows the policies in the run's folder

    def render(console: Console) -> None:
        _render(console, policy)
        console.print(f"report  {report}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"policy  {path}", soft_wrap=True, highlight=False, markup=False)

    emit(payload(policy, path), json, render)


@app.command("show")
def show_command(file: File, json: Json = False) -> None:
    """Say in plain words what a policy does and why; a file that was changed is refused."""
    from m4rag.policy.model import Policy, payload

    policy = Policy.read(file)
    emit(payload(policy, file), json, lambda console: _render(console, policy))


@app.command("apply")
def apply_command(file: File, run: Run, json: Json = False) -> None:
    """Score a policy on a run of the same model: what would it have answered right, and how often retrieved?"""
    from m4rag.policy.apply import apply
    from m4rag.policy.model import Policy

    policy = Policy.read(file)
    applied = apply(policy, run)
    emit(applied.model_dump(mode="json"), json, lambda console: _render_applied(console, policy, applied))


def _render(console: Console, policy: Policy) -> None:
    from m4rag.policy.words import GATED, against_the_better, sentence, unavailable, why_no_gate

    evidence = policy.evidence
    console.print(sentence(policy), style="bold", highlight=False, markup=False)
    for line in filter(None, (against_the_better(evidence), why_no_gate(policy), *unavailable(evidence))):
        console.print(line, highlight=False, markup=False)
    if evidence.note is not None:
        console.print(evidence.note, style="yellow", highlight=False, markup=False)
    console.print()
    questions = f"{evidence.never.n} questions, {evidence.never.groups} images"
    _title(console, f"{policy.fitted_on}, {policy.setting}: {questions}")
    table = _table()
    chosen = {policy.retrieve: "bold"}
    table.add_row("never", *_cells(evidence.never), _percent(0), style=chosen.get("never"))
    table.add_row("always", *_cells(evidence.always), _percent(100), style=chosen.get("always"))
    table.add_row(GATED, *_cells(evidence.gated), _percent(evidence.retrieved), style=chosen.get("gated"))
    table.add_row("gate alone", *_cells(evidence.gate_alone), _percent(evidence.alone_retrieved), style="dim")
    for signal, found in evidence.by_signal.items():
        table.add_row(f"  by {signal} alone", *_cells(found), "", style="dim")
    table.add_row("oracle gate", *_cells(evidence.oracle), "", style="dim")
    differences = {
        "always - never": evidence.always_gain,
        "gated - never": evidence.gated_over_never,
        "gated - always": evidence.gated_over_always,
        f"gate alone - {evidence.plain}": evidence.alone_gain,
    }
    _add_differences(table, differences)
    console.print(table)
    console.print()
    console.print(_classes(policy))
    console.print()
    for name, value in _facts(policy).items():
        console.print(f"{name:8}{value}", soft_wrap=True, highlight=False, markup=False)


def _facts(policy: Policy) -> dict[str, str]:
    from m4rag.manifests import short

    return {
        "model": policy.model,
        "index": f"{policy.index_alias} ({policy.encoder}, {policy.channel}), k {policy.k}",
        "prompts": f"in {policy.prompt_language}, passages {policy.context_language}, images {policy.images}",
        "digest": short(policy.digest),
    }


def _render_applied(console: Console, policy: Policy, applied: Applied) -> None:
    from m4rag.policy.words import right

    share = f"retrieves for {applied.retrieved:.1f} % of {applied.accuracy.n} questions"
    console.print(f"{right(applied.accuracy)}; {share}.", style="bold", highlight=False, markup=False)
    for note in applied.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    console.print()
    _title(console, f"policy of {policy.fitted_on} on {applied.run}, {policy.setting}")
    table = _table()
    table.add_row("policy", *_cells(applied.accuracy), _percent(applied.retrieved), style="bold")
    table.add_row("never", *_cells(applied.never), _percent(0))
    table.add_row("always", *_cells(applied.always), _percent(100))
    table.add_row("oracle gate", *_cells(applied.oracle), "", style="dim")
    _add_differences(table, {"policy - never": applied.over_never, "policy - always": applied.over_always})
    console.print(table)


def _title(console: Console, text: str) -> None:
    """A table's title; the table itself would wrap it to its own width."""
    console.print(text, style="italic", highlight=False, markup=False)


def _table() -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule")
    for column in ("accuracy %", "95 % interval", "retrieves %"):
        table.add_column(column, justify="right")
    return table


def _classes(policy: Policy) -> Any:
    """The rules by resource class of the language: what the choice does to whom."""
    from rich.table import Table

    from m4rag.policy.words import interval

    title = "by Joshi class of the language, accuracy %"
    # One space between columns, as in the table of settings: it then fits 80 columns.
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("class", "questions", "never", "always", "gated"):
        table.add_column(column, justify="left" if column == "class" else "right", header_style="bold")
    for label, found in policy.evidence.by_class.items():
        rules = (found.never, found.always, found.gated)
        table.add_row(label, str(found.never.n), *(f"{each.value:.1f} ({interval(each)})" for each in rules))
    return table


def _add_differences(table: Any, differences: dict[str, Estimate]) -> None:
    from m4rag.policy.words import signed_interval

    table.add_section()
    for name, found in differences.items():
        table.add_row(name, f"{found.value:+.1f}", signed_interval(found), "")


def _cells(estimate: Estimate) -> tuple[str, str]:
    from m4rag.policy.words import interval

    return f"{estimate.value:.1f}", interval(estimate)


def _percent(value: float) -> str:
    return f"{value:.1f}"
