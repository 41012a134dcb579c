"""Deploy a model for the time of a benchmark."""

from kfp import dsl

from components import IMAGE


@dsl.component(
    base_image=IMAGE,
    install_kfp_package=False,
    task_config_passthroughs=[
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        # Kubeflow refuses limits for the waiting pod unless they may be seen here as well; the profile has the model's.
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.RESOURCES, apply_to_task=True),
    ],
)
def deploy_vlm(endpoint: dsl.Output[dsl.Artifact], wanted: dict, run: str, placement: dsl.TaskConfig) -> None:
    """Deploy a model on KServe, wait until it is ready, and prove that it answers about a picture.

    Reads M4RAG_VLLM_IMAGE. The service goes with its workflow, and after 48 hours at the latest.

    Args:
        endpoint: The model. Metadata: url, service, model, uri, images, seconds of waiting by phase.
        wanted: `wanted` of an entry of `plan_benchmark`; empty takes the model that M4RAG_VLM_URL names and deploys
            nothing.
        run: The run that it belongs to: the pipeline job's id.
        placement: Node selector and tolerations of this task are those of the model's pods. Set by Kubeflow.
    """
    from dataclasses import asdict
    from functools import partial

    from m4rag.deploy.measured import Placement, serve
    from m4rag.settings import settings

    site = Placement(placement.node_selector, placement.tolerations)
    served = serve(wanted, run, settings(), partial(print, flush=True), placement=site)
    endpoint.metadata.update(asdict(served))
