"""Keep a benchmark run in MLflow."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(run: dsl.Input[dsl.Artifact], metrics: dsl.Output[dsl.Metrics], html: dsl.Output[dsl.HTML]) -> str:
    """Log a benchmark run to MLflow and show its scores and report in the Kubeflow UI.

    Reads MLFLOW_TRACKING_URI and, where Kubeflow's MLflow plugin set it, MLFLOW_RUN_ID.

    Args:
        run: Run folder of `fit_policy`, or of `score`, which has no policies.
        metrics: Accuracy of every setting, in percent.
        html: The report.

    Returns:
        The MLflow run id.
    """
    import shutil
    from pathlib import Path

    from m4rag.bench.joined import read_scores
    from m4rag.registry.record import record
    from m4rag.settings import settings

    folder = Path(run.path)
    for setting in read_scores(folder).settings:
        metrics.log_metric(f"accuracy.{setting.setting}", setting.accuracy.value)
    shutil.copyfile(folder / "report.html", html.path)
    return record(folder, tracking_uri=settings().mlflow, experiment=settings().mlflow_experiment).run_id
