"""Put a dataset's questions to the model under test."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def run_benchmark(
    documents: dsl.Input[dsl.Dataset],
    index: dsl.Input[dsl.Artifact],
    vision_index: dsl.Input[dsl.Artifact],
    run: dsl.Output[dsl.Artifact],
    dataset: str,
    items: str,
    limit: int,
    settings: list,
    images: str,
    k: int,
    prompt_language: str,
    context_language: str,
    option_order: int,
) -> None:
    """Answer every question in every setting, score, and write the report.

    Reads M4RAG_VLM_URL (the model), MILVUS_URI and MILVUS_TOKEN (the index).

    Args:
        documents: Folder of `ingest_corpus`, for the gold passages.
        index: Artifact of `build_index`; its metadata names the collection of the text index.
        vision_index: The same of the index that `multimodal:<encoder>` searches; it may name none.
        run: Run folder: plan, answers, scores, report. Metadata: digest of the plan, number of questions.
        dataset: Dataset name.
        items: File of questions; empty for datasets inside the package.
        limit: At most this many questions; 0 for all.
        settings: Settings in the order of the table.
        images: `all` or `none`.
        k: Passages shown to the model.
        prompt_language: `en`, or `native` for that of each question.
        context_language: `en`, or `native` for gold documents in that of each question.
        option_order: Seed of the order that options are shown in; -1 for the dataset's.
    """
    from contextlib import nullcontext
    from pathlib import Path

    from m4rag.bench.benchmark import Request
    from m4rag.bench.benchmark import run as run_to_end
    from m4rag.bench.runs import RunPlan
    from m4rag.errors import UsageError
    from m4rag.progress import silent
    from m4rag.settings import settings as read_settings

    url = read_settings().vlm_url
    if url is None:
        raise UsageError("no model to measure", remedy="Set M4RAG_VLM_URL to its OpenAI-compatible address.")

    vision = vision_index.metadata
    request = Request(
        dataset=dataset,
        items=Path(items) if items else None,
        limit=int(limit) or None,
        settings=tuple(settings),
        images=images,
        documents=Path(documents.path),
        index=index.metadata["collection"],
        multimodal={vision["encoder"]: vision["collection"]} if "collection" in vision else {},
        k=int(k),
        prompt_language=prompt_language,
        context_language=context_language,
        option_order=None if int(option_order) < 0 else int(option_order),
        output=Path(run.path),
        command="m4rag pipeline launch benchmark",
    )
    run_to_end(request, read_settings(), nullcontext(url), silent)
    plan = RunPlan.read(Path(run.path))
    run.metadata.update({"digest": plan.digest, "questions": plan.n_questions})
