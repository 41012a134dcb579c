"""Put a dataset's questions to a model."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def run_benchmark(
    documents: dsl.Input[dsl.Dataset],
    endpoint: dsl.Input[dsl.Artifact],
    run: dsl.Output[dsl.Artifact],
    dataset: str,
    items: str,
    limit: int,
    settings: list,
    images: str,
    index: str,
    multimodal: dict,
    k: int,
    prompt_language: str,
    context_language: str,
    option_order: int,
) -> None:
    """Answer every question in every setting; what M4RAG_HOME holds of the same run is not asked again.

    Reads MILVUS_URI and MILVUS_TOKEN (the index) and M4RAG_VLM_API_KEY.

    Args:
        documents: Folder of `ingest`, for the gold passages.
        endpoint: Artifact of `deploy_vlm`: the model.
        run: Run folder: plan, answers. Metadata: digest of the plan, number of questions, model.
        dataset: Dataset name.
        items: File of questions, on a volume that the steps mount; empty for datasets inside the package.
        limit: At most this many questions; 0 for all.
        settings: Settings in the order of the table.
        images: `all` or `none`.
        index: Base (alias) of the text index.
        multimodal: Encoder name to index base for `multimodal:<encoder>`, where several served ones have that encoder.
        k: Passages shown to the model.
        prompt_language: `en`, or `native` for that of each question.
        context_language: `en`, or `native` for gold documents in that of each question.
        option_order: Seed of the order that options are shown in; -1 for the dataset's.
    """
    import shutil
    from contextlib import nullcontext

    from m4rag.bench.benchmark import Request, ask
    from m4rag.bench.runs import RunPlan
    from m4rag.cli.output import progress
    from m4rag.parameters import from_params
    from m4rag.settings import settings as read_settings

    given = {"dataset": dataset, "items": items or None, "limit": limit or None, "settings": settings, "images": images}
    given |= {"index": index, "multimodal": multimodal, "k": k, "documents": documents.path}
    given |= {"prompt_language": prompt_language, "context_language": context_language}
    given |= {"option_order": None if option_order < 0 else option_order, "command": "m4rag pipeline launch benchmark"}
    request = from_params(Request, **given)
    folder = ask(request, read_settings(), nullcontext(endpoint.metadata["url"]), progress)
    shutil.copytree(folder, run.path)
    plan = RunPlan.read(folder)
    run.metadata.update({"digest": plan.digest, "questions": plan.n_questions, "model": plan.model.name})
