"""corpus -> documents -> passages -> vectors, shard by shard -> Milvus collection -> measured -> served."""

from kfp import dsl

from components.corpus.fingerprint import fingerprint
from components.corpus.ingest import ingest
from components.index.chunk import chunk
from components.index.embed_shard import embed_shard
from components.index.evaluate_retrieval import evaluate_retrieval
from components.index.load_index import load_index
from components.index.plan_index import plan_index
from components.index.promote_index import promote_index
from pipelines.policy import effect, pure

SHARDS_AT_ONCE = 8


@dsl.pipeline(
    name="m4rag-build-index",
    description="Read a corpus and build its Milvus index, shard by shard; what is there is not made again.",
)
def build_index(
    source: str = "sample",
    path: str = "",
    corpus: str = "sample",
    base: str = "sample",
    encoder: str = "minilm",
    channels: list = ["dense", "bm25"],
    dim: int = 0,
    shards: int = 8,
    queries: str = "",
    items: str = "",
    promote: bool = False,
):
    """Read a corpus and build its index.

    Args:
        source: Reader of the corpus: `sample`, `museum`, `worldcuisines-kb`, `jsonl`, `articles`, `mediawiki-dump`.
        path: File to read, on a volume that the steps mount; empty for sources inside the package.
        corpus: Name of the corpus.
        base: Base name of the collection and alias in Milvus.
        encoder: Encoder spec: `minilm`, `st:<path>`, `vllm`.
        channels: `dense`, or `dense` and `bm25`.
        dim: Numbers to keep of each vector; 0 for all.
        shards: Most shards that passages are embedded in, eight at a time.
        queries: Dataset whose questions measure the index, or `names`; empty measures nothing.
        items: File of those questions; empty for datasets inside the package.
        promote: Whether production reads the new collection. The first one of a base is served in any case.
    """
    read = effect(fingerprint(source=source, path=path))
    plan = effect(plan_index(base=base, encoder=encoder, channels=channels, dim=dim))
    corpus_read = pure(ingest(source=source, path=path, fingerprint=read.output, name=corpus))
    documents = corpus_read.outputs["documents"]
    cut = pure(chunk(documents=documents, encoder=encoder, encoder_digest=plan.output, dim=dim, shards=shards))
    with dsl.ParallelFor(cut.outputs["Output"], parallelism=SHARDS_AT_ONCE) as shard:
        embedded = pure(embed_shard(chunks=cut.outputs["chunks"], shard=shard))
    vectors = dsl.Collected(embedded.outputs["vectors"])
    loaded = effect(load_index(chunks=cut.outputs["chunks"], vectors=vectors, base=base, channels=channels))
    index = loaded.outputs["index"]
    measured = effect(evaluate_retrieval(documents=documents, index=index, queries=queries, items=items))
    with dsl.If(promote == True):  # noqa: E712 - compiled, not compared
        effect(promote_index(index=index)).after(measured)
