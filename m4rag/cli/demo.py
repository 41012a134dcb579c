"""`m4rag demo`."""

from __future__ import annotations

from m4rag.cli.output import Json, progress, say


def demo(json: Json = False) -> None:
    """Run the whole loop on the embedded museum benchmark and print where everything is."""
    from m4rag.cli.record import record_run
    from m4rag.cli.results import show
    from m4rag.demo import SERVED, run_demo
    from m4rag.policy.fit import fit
    from m4rag.policy.words import sentence
    from m4rag.settings import settings

    run = run_demo(settings(), progress, say)
    say("6/7 policy: when should this model retrieve?")
    policy = fit(run, SERVED)
    policy.write(policy.file_in(run))
    say("7/7 record: MLflow")
    recorded = record_run(run, settings())
    show(run, json, recorded)
    if not json:
        say(f"policy  {policy.file_in(run)}")
        say(f"index   {settings().milvus}   (m4rag index list)")
        say(f"{SERVED}: {sentence(policy)}")
