"""What every step of every pipeline promises about caching, retries, time, resources and where it keeps its work."""

import os

from kfp import dsl, kubernetes

HOUR = 3600
HOME = "/m4rag"
"""Where M4RAG_HOME is in a step (the config map says so to the step)."""

CLAIM = os.environ.get("M4RAG_HOME_CLAIM", "")
"""PersistentVolumeClaim behind HOME, named when compiling; without one a step's work is lost with its pod. Steps run
at the same time, so a cluster of several nodes needs one that many nodes may write."""

CONFIGURED = (
    "MILVUS_URI",
    "MLFLOW_TRACKING_URI",
    "M4RAG_EMBEDDING_URL",
    "M4RAG_HOME",
    "M4RAG_JUDGE_URL",
    "M4RAG_VLLM_IMAGE",
    "M4RAG_VLM_URL",
)
SECRETS = ("MILVUS_TOKEN", "M4RAG_VLM_API_KEY", "M4RAG_EMBEDDING_API_KEY")


def pure(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step whose output depends on its inputs alone: cached, and repeated where a pod is lost."""
    return _kept(_step(task)).set_caching_options(True).set_retry(2, backoff_duration="60s")


def effect(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step that reaches Milvus, MLflow or a model: never cached, since the cache can't see them change.

    It may be repeated without harm, so a lost pod is retried.
    """
    return _kept(_step(task)).set_caching_options(False).set_retry(2, backoff_duration="60s")


def costly(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """An effect that takes GPU hours, retried only if what it did so far is kept."""
    task = _kept(_step(task)).set_caching_options(False)
    return task.set_retry(2, backoff_duration="60s") if CLAIM else task


def waiting(task: dsl.PipelineTask, *, retries: int) -> dsl.PipelineTask:
    """An effect that asks the cluster for something and waits for it: a small pod."""
    task = _step(task, seconds=2 * HOUR).set_caching_options(False)
    task.set_cpu_request("50m").set_cpu_limit("500m").set_memory_request("256Mi").set_memory_limit("512Mi")
    return task.set_retry(retries, backoff_duration="30s") if retries else task


def placed(task: dsl.PipelineTask, node_selector: object, tolerations: object) -> dsl.PipelineTask:
    """Where a step's pod runs, or, for a step that hands it on (`dsl.TaskConfig`), the pods of what it deploys.

    Args:
        task: The step.
        node_selector: Labels of the nodes, or the pipeline parameter that holds them.
        tolerations: Taints that they may have, or the pipeline parameter that holds them.
    """
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    return task


def _step(task: dsl.PipelineTask, seconds: int = 6 * HOUR) -> dsl.PipelineTask:
    kubernetes.set_timeout(task, seconds)
    kubernetes.use_config_map_as_env(task, "m4rag", {name: name for name in CONFIGURED}, optional=True)
    kubernetes.use_secret_as_env(task, "m4rag", {name: name for name in SECRETS}, optional=True)
    kubernetes.set_security_context(task, run_as_user=1000, run_as_non_root=True)
    return task.set_cpu_request("1").set_cpu_limit("4").set_memory_request("2Gi").set_memory_limit("8Gi")


def _kept(task: dsl.PipelineTask) -> dsl.PipelineTask:
    if CLAIM:
        return kubernetes.mount_pvc(task, CLAIM, HOME)
    return kubernetes.empty_dir_mount(task, "m4rag-home", HOME)
