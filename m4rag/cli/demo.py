"""`m4rag demo`."""

from __future__ import annotations

from m4rag.cli.output import Json, progress, say


def demo(json: Json = False) -> None:
    """Run the whole loop on the embedded sample and print where everything is."""
    from m4rag.cli.record import record_run
    from m4rag.cli.results import show
    from m4rag.demo import run_demo
    from m4rag.settings import settings

    run = run_demo(settings(), progress, say)
    say("5/5 record: MLflow")
    recorded = record_run(run, settings())
    show(run, json, recorded)
    if not json:
        say(f"index   {settings().milvus}   (m4rag index list)")
