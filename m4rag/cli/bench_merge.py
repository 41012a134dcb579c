"""`m4rag bench merge`: runs of parts of a benchmark become one run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from m4rag.cli.output import Json


def merge_command(
    runs: Annotated[list[Path], typer.Argument(help="Two run folders or more, in the order of their questions.")],
    output: Annotated[Path, typer.Option(help="Folder of the merged run, a new one.")],
    json: Json = False,
) -> None:
    """Make one run of several that asked the same model parts of a benchmark; score, report and record it.

    Parts may have other questions or other settings, and may overlap: an answer wins over an error, two different
    answers to one question are refused. No model is asked. To ask again what its server refused, run the part again
    and merge into another folder.
    """
    from m4rag.bench.merge import merge
    from m4rag.cli.record import record_run
    from m4rag.cli.results import show
    from m4rag.settings import settings

    run = merge(runs, output, shlex.join(["m4rag", *sys.argv[1:]]))
    recorded = record_run(run, settings())
    show(run, json, recorded)
