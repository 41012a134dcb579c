"""The `m4rag` command. One module per group; nothing but argument handling, heavy imports inside functions."""

from __future__ import annotations

import sys

import typer

from m4rag.cli import bench, corpus, data, deploy, index, pipeline, policy, train, vlm
from m4rag.cli.demo import demo
from m4rag.cli.doctor import doctor
from m4rag.cli.serve import serve
from m4rag.errors import M4ragError

INTERRUPTED = 130

app = typer.Typer(
    name="m4rag",
    help="Multilingual, multimodal RAG that measures whether retrieval helps before it serves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs 0.17 s of imports
)
app.command()(demo)
app.command()(doctor)
app.command()(serve)
for name, group in (
    ("data", data.app),
    ("corpus", corpus.app),
    ("index", index.app),
    ("vlm", vlm.app),
    ("bench", bench.app),
    ("policy", policy.app),
    ("train", train.app),
    ("pipeline", pipeline.app),
    ("deploy", deploy.app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line; errors become one line on stderr and the class's exit code."""
    try:
        app()
    except M4ragError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as leaving:
        # What Typer makes of Ctrl-C, which it names as the cause; a command that does so itself has said its own.
        left = leaving.__context__
        if leaving.code == INTERRUPTED and left is not None and isinstance(left.__cause__, KeyboardInterrupt):
            print("interrupted: the same command continues where this one stopped", file=sys.stderr)
        raise
