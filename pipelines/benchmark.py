"""The whole job: corpus -> index -> answers -> scores, report, MLflow record."""

from kfp import dsl

from components.benchmark.run import run_benchmark
from components.corpus.ingest import ingest_corpus
from components.index.build import build_index
from components.registry.record import record_run
from pipelines.policy import effect, pure


@dsl.pipeline(
    name="m4rag-benchmark", description="Measure whether retrieval helps a model, and keep the record in MLflow."
)
def benchmark(
    dataset: str = "sample",
    items: str = "",
    limit: int = 0,
    settings: list = ["text_only", "no_rag", "oracle", "oracle_query", "caption_query"],
    images: str = "all",
    k: int = 5,
    source: str = "sample",
    path: str = "",
    corpus: str = "sample",
    encoder: str = "minilm",
):
    """Run the benchmark against the model that M4RAG_VLM_URL names.

    Args:
        dataset: Dataset name.
        items: File of questions, on a volume that the steps mount; empty for datasets inside the package.
        limit: At most this many questions; 0 for all.
        settings: Settings in the order of the table.
        images: `all` or `none`; `none` is the text-only baseline.
        k: Passages shown to the model.
        source: Reader of the corpus.
        path: File of the corpus; empty for sources inside the package.
        corpus: Name of the corpus and base name of its index.
        encoder: Encoder of the index.
    """
    documents = pure(ingest_corpus(source=source, path=path, name=corpus))
    index = effect(build_index(documents=documents.outputs["documents"], base=corpus, encoder=encoder))
    run = effect(
        run_benchmark(
            documents=documents.outputs["documents"],
            index=index.outputs["index"],
            dataset=dataset,
            items=items,
            limit=limit,
            settings=settings,
            images=images,
            k=k,
        )
    )
    effect(record_run(run=run.outputs["run"]))
