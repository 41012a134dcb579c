"""Learn from a benchmark run when to retrieve."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fit_policy(run: dsl.Input[dsl.Artifact], fitted: dsl.Output[dsl.Artifact]) -> None:
    """Fit a policy for every setting of a run that can be served, and show them in its report.

    Args:
        run: Run folder of `score`.
        fitted: The same folder with a policy file for each such setting. Metadata: that of the run; policies, setting
            to digest; not_fitted, setting to why the run can't teach one.
    """
    import shutil
    from pathlib import Path

    from m4rag.bench.report import current_report
    from m4rag.policy.fit import fit_run

    folder = Path(shutil.copytree(run.path, fitted.path, dirs_exist_ok=True))
    done = fit_run(folder)
    current_report(folder)
    policies = {setting: policy.digest for setting, policy in done.policies.items()}
    fitted.metadata.update({**run.metadata, "policies": policies, "not_fitted": done.refused})
