"""The whole job: corpus -> indexes -> answers -> scores, policies, report, MLflow record."""

from kfp import dsl

from components.benchmark.run import run_benchmark
from components.corpus.ingest import ingest_corpus
from components.index.build import build_index
from components.policy.fit import fit_policy
from components.registry.record import record_run
from pipelines.policy import effect, pure


@dsl.pipeline(
    name="m4rag-benchmark",
    description="Measure whether retrieval helps a model, learn when, and keep the record in MLflow.",
)
def benchmark(
    dataset: str = "sample",
    items: str = "",
    limit: int = 0,
    settings: list = ["text_only", "no_rag", "oracle", "oracle_query", "caption_query"],
    images: str = "all",
    k: int = 5,
    prompt_language: str = "en",
    context_language: str = "en",
    option_order: int = -1,
    source: str = "sample",
    path: str = "",
    corpus: str = "sample",
    encoder: str = "minilm",
    vision_encoder: str = "",
):
    """Run the benchmark against the model that M4RAG_VLM_URL names.

    Args:
        dataset: Dataset name.
        items: File of questions, on a volume that the steps mount; empty for datasets inside the package.
        limit: At most this many questions; 0 for all.
        settings: Settings in the order of the table. `multimodal:<encoder>` searches the index of `vision_encoder`,
            else the only served one that was built with that encoder.
        images: `all` or `none`; `none` is the text-only baseline.
        k: Passages shown to the model.
        prompt_language: `en`, or `native` for instructions in the language of each question.
        context_language: `en`, or `native` for gold documents in the language of each question.
        option_order: Seed of the order that options are shown in; -1 for the dataset's.
        source: Reader of the corpus.
        path: File of the corpus; empty for sources inside the package.
        corpus: Name of the corpus and base name of its index.
        encoder: Encoder of the text index.
        vision_encoder: Encoder of a second index `<corpus>_vision`, e.g. `vllm`, which reads M4RAG_EMBEDDING_URL; empty
            builds none.
    """
    documents = pure(ingest_corpus(source=source, path=path, name=corpus))
    index = effect(build_index(documents=documents.outputs["documents"], base=corpus, encoder=encoder))
    vision_index = effect(
        build_index(documents=documents.outputs["documents"], base=f"{corpus}_vision", encoder=vision_encoder)
    )
    run = effect(
        run_benchmark(
            documents=documents.outputs["documents"],
            index=index.outputs["index"],
            vision_index=vision_index.outputs["index"],
            dataset=dataset,
            items=items,
            limit=limit,
            settings=settings,
            images=images,
            k=k,
            prompt_language=prompt_language,
            context_language=context_language,
            option_order=option_order,
        )
    )
    policies = pure(fit_policy(run=run.outputs["run"]))
    effect(record_run(run=policies.outputs["fitted"]))
