"""corpus -> documents -> chunks, vectors, Milvus collection."""

from kfp import dsl

from components.corpus.ingest import ingest_corpus
from components.index.build import build_index as build_index_step
from pipelines.policy import effect, pure


@dsl.pipeline(
    name="m4rag-build-index",
    description="Read a corpus and build its Milvus index; an unchanged corpus writes nothing.",
)
def build_index(
    source: str = "sample", path: str = "", corpus: str = "sample", base: str = "sample", encoder: str = "minilm"
):
    """Read a corpus and build its index.

    Args:
        source: Reader of the corpus: `sample`, `worldcuisines-kb`, `jsonl`.
        path: File to read, on a volume that the steps mount; empty for sources inside the package.
        corpus: Name of the corpus.
        base: Base name of the collection and alias in Milvus.
        encoder: Encoder spec: `minilm`, `st:<path>`, `vllm`.
    """
    documents = pure(ingest_corpus(source=source, path=path, name=corpus))
    effect(build_index_step(documents=documents.outputs["documents"], base=base, encoder=encoder))
