"""Score a run and write its report."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def score(run: dsl.Input[dsl.Artifact], scored: dsl.Output[dsl.Artifact]) -> None:
    """Score the answers of a run, and its judgements where it has any, and write its report.

    Args:
        run: Run folder of `judge` or `run_benchmark`.
        scored: The same folder with scores and report. Metadata: that of the run; accuracy, setting to percent.
    """
    import shutil
    from pathlib import Path

    from m4rag.bench.benchmark import finish

    folder = Path(shutil.copytree(run.path, scored.path, dirs_exist_ok=True))
    accuracy = {setting.setting: setting.accuracy.value for setting in finish(folder).settings}
    scored.metadata.update({**run.metadata, "accuracy": accuracy})
