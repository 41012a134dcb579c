"""Measure how well an index finds documents."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_retrieval(
    documents: dsl.Input[dsl.Dataset],
    index: dsl.Input[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.Artifact],
    queries: str,
    items: str,
) -> None:
    """Recall, MRR and NDCG of every channel of an index, over queries and over languages.

    Reads MILVUS_URI, MILVUS_TOKEN and M4RAG_EMBEDDING_URL.

    Args:
        documents: Folder of `ingest` that the index was built from.
        index: Pointer of `load_index`.
        metrics: Each measure of each channel, mean over all queries.
        report: The same by set of queries and language, JSON.
        queries: Dataset whose questions must find their gold documents; `names` for the names that documents have in
            other languages; empty measures nothing.
        items: File of questions; empty for datasets inside the package.
    """
    import json
    from pathlib import Path

    from m4rag.cli.output import progress
    from m4rag.index.evaluation import evaluate_index, means
    from m4rag.settings import settings

    if not queries:
        return
    dataset = None if queries == "names" else queries
    searched = {"dataset": dataset, "items": Path(items) if items else None}
    found = evaluate_index(index.metadata["collection"], Path(documents.path), settings(), progress, **searched)
    Path(report.path).write_text(json.dumps(found, indent=2), encoding="utf-8")
    for name, value in means(found).items():
        metrics.log_metric(name, value)
