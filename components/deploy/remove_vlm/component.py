"""Take a model off the cluster."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def remove_vlm(wanted: dict, run: str) -> None:
    """Remove what `deploy_vlm` deployed for a run, and wait until its GPUs are free. Nothing there is fine.

    Args:
        wanted: What `deploy_vlm` was given; empty removes nothing.
        run: What `deploy_vlm` was given.
    """
    from functools import partial

    from m4rag.deploy.measured import take_away

    take_away(wanted, run, partial(print, flush=True))
