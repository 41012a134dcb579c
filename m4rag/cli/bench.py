"""`m4rag bench`: put questions to a model, score, report, record."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from m4rag.cli.bench_agreement import agreement_command
from m4rag.cli.bench_analyse import analyse_command
from m4rag.cli.bench_compare import compare_command
from m4rag.cli.bench_judge import judge_command
from m4rag.cli.bench_merge import merge_command
from m4rag.cli.bench_report import report_command
from m4rag.cli.bench_score import score_command
from m4rag.cli.output import Json, emit, progress, say
from m4rag.cli.results import show
from m4rag.errors import UsageError

app = typer.Typer(help="Measure whether retrieval helps a model.", no_args_is_help=True)


@app.command("run")
def run_command(
    dataset: Annotated[str, typer.Option(help="Dataset (m4rag data list).")] = "sample",
    items: Annotated[
        Path | None, typer.Option(help="File or folder of questions, or hf://datasets/OWNER/NAME@COMMIT.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many questions, spread over varieties.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting to run; repeat it. Default: all but multimodal and irrelevant; for datasets without gold "
            "documents text_only and no_rag."
        ),
    ] = None,
    images: Annotated[str, typer.Option(help="all, or none for the text-only baseline.")] = "all",
    corpus: Annotated[
        str | None, typer.Option(help="Corpus with the gold documents. Default: the dataset's own.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Text index to search. Default: the one of the corpus.")] = None,
    multimodal_index: Annotated[
        list[str] | None, typer.Option(help="ENCODER=INDEX for setting multimodal:ENCODER; repeat it.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Passages shown to the model.")] = 5,
    max_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 512,
    prompt_language: Annotated[
        str, typer.Option(help="en, or native for instructions in the language of each question.")
    ] = "en",
    context_language: Annotated[
        str, typer.Option(help="en, or native for gold documents in the language of each question.")
    ] = "en",
    option_order: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Show each question's options in an order drawn with this seed."),
    ] = None,
    vlm_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server. Default: M4RAG_VLM_URL, else an embedded one.")
    ] = None,
    json: Json = False,
) -> None:
    """Put a dataset's questions to a model in several settings; score, report and record the run.

    Interrupted, it continues where it stopped when the same command is given again.
    """
    from m4rag.bench.benchmark import Request, check, default_settings
    from m4rag.bench.benchmark import run as run_benchmark
    from m4rag.cli.record import record_run
    from m4rag.datasets import DATASETS
    from m4rag.settings import settings
    from m4rag.vlm.local import served

    if dataset not in DATASETS:
        raise UsageError(f"unknown dataset {dataset!r}", remedy=f"Known: {', '.join(sorted(DATASETS))}.")
    corpus = corpus or DATASETS[dataset].corpus
    defaults = default_settings(images, has_gold=DATASETS[dataset].corpus is not None)
    request = Request(
        dataset=dataset,
        items=items,
        limit=limit,
        settings=tuple(setting or defaults),
        images=images,
        documents=settings().home / "corpus" / corpus / "documents" if corpus else None,
        index=index or corpus,
        multimodal=dict(_pair(text) for text in multimodal_index or []),
        k=k,
        max_tokens=max_tokens,
        prompt_language=prompt_language,
        context_language=context_language,
        option_order=option_order,
        command=shlex.join(["m4rag", *sys.argv[1:]]),
    )
    check(request)
    run = run_benchmark(request, settings(), served(settings(), vlm_url, say), progress)
    recorded = record_run(run, settings())
    show(run, json, recorded)


def _pair(text: str) -> tuple[str, str]:
    encoder, separator, base = text.partition("=")
    if not separator:
        raise UsageError(f"{text!r} is not ENCODER=INDEX", where="--multimodal-index")
    return encoder, base


@app.command("record")
def record_command(
    run: Annotated[Path, typer.Argument(help="Run folder (m4rag bench run prints it).")],
    json: Json = False,
) -> None:
    """Log a finished run to MLflow again: the server may have been away."""
    from m4rag.cli.record import record_run
    from m4rag.settings import settings

    recorded = record_run(run, settings())
    emit(recorded, json, lambda console: console.print(f"MLflow  {recorded['url']}"))


app.command("merge")(merge_command)
app.command("judge")(judge_command)
app.command("agreement")(agreement_command)
app.command("score")(score_command)
app.command("report")(report_command)
app.command("compare")(compare_command)
app.command("analyse")(analyse_command)
