"""Refuse a benchmark that can't be run, before a GPU is taken."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_benchmark(
    models: list,
    dataset: str,
    items: str,
    settings: list,
    images: str,
    k: int,
    prompt_language: str,
    context_language: str,
    judge: str,
    judge_samples: int,
) -> list:
    """Check every parameter of a benchmark and every model of it, and say where each model runs.

    Args:
        models: Models to deploy: `{"model": name in the table or YAML file, "uri": weights by commit or digest}`, and
            optionally "hardware" (profile) and "replicas". None: the model that M4RAG_VLM_URL names.
        dataset: Dataset name.
        items: File of questions; empty for datasets inside the package.
        settings: Settings in the order of the table.
        images: `all` or `none`.
        k: Passages shown to the model.
        prompt_language: `en`, or `native` for that of each question.
        context_language: `en`, or `native` for gold documents in that of each question.
        judge: `shown` or `hidden`; empty judges nothing.
        judge_samples: Judgements of each passage.

    Returns:
        One entry for each model: `wanted`, what `deploy_vlm` takes (empty for the model of M4RAG_VLM_URL), and
        `node_selector` and `tolerations` of its hardware.
    """
    from pathlib import Path

    from m4rag.bench.benchmark import Request, check
    from m4rag.bench.judgements import check_judging
    from m4rag.datasets import check_items
    from m4rag.deploy.measured import placed
    from m4rag.parameters import from_params

    languages = {"prompt_language": prompt_language, "context_language": context_language}
    request = from_params(Request, dataset=dataset, settings=settings, images=images, k=k, **languages)
    check(request)
    check_items(dataset, Path(items) if items else None)
    check_judging(judge, int(judge_samples), request.settings)
    return placed(models)
