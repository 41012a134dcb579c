"""What every step of every pipeline promises about caching, retries, time and resources."""

from kfp import dsl, kubernetes

STEP_SECONDS = 6 * 3600


def pure(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step whose output depends on its inputs alone: cached."""
    return _limits(task).set_caching_options(True)


def effect(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step that reaches Milvus, MLflow or a model: never cached, since the cache can't see them change.

    All of them are idempotent and resume, so a lost pod is retried.
    """
    return _limits(task).set_caching_options(False).set_retry(2, backoff_duration="60s")


def _limits(task: dsl.PipelineTask) -> dsl.PipelineTask:
    kubernetes.set_timeout(task, STEP_SECONDS)
    kubernetes.use_config_map_as_env(
        task,
        config_map_name="m4rag",
        config_map_key_to_env={
            "MILVUS_URI": "MILVUS_URI",
            "MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI",
            "M4RAG_VLM_URL": "M4RAG_VLM_URL",
            "M4RAG_EMBEDDING_URL": "M4RAG_EMBEDDING_URL",
        },
        optional=True,
    )
    kubernetes.use_secret_as_env(
        task, "m4rag", {"MILVUS_TOKEN": "MILVUS_TOKEN", "M4RAG_VLM_API_KEY": "M4RAG_VLM_API_KEY"}, optional=True
    )
    kubernetes.set_security_context(task, run_as_user=1000, run_as_non_root=True)
    return task.set_cpu_request("1").set_cpu_limit("4").set_memory_request("2Gi").set_memory_limit("8Gi")
