"""Write passages and vectors into Milvus."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def load_index(
    chunks: dsl.Input[dsl.Dataset],
    vectors: dsl.Input[list[dsl.Dataset]],
    index: dsl.Output[dsl.Artifact],
    base: str,
    encoder: str,
    encoder_digest: str,
    channels: list,
    dim: int,
) -> None:
    """Write an immutable collection, or the rows that it lacks; a collection that is there is left as it is.

    Reads MILVUS_URI and MILVUS_TOKEN. The first collection of a base is served at once, later ones wait for a promotion.

    Args:
        chunks: Folder of `chunk`.
        vectors: Folders of `embed_shard`, all shards.
        index: Pointer to the collection. Metadata: collection, base, digest, encoder, rows, written and more.
        base: Base name of the collection and alias.
        encoder: Encoder spec.
        encoder_digest: What `plan_index` returned.
        channels: `dense`, or `dense` and `bm25`.
        dim: Numbers to keep of each vector; 0 for all.
    """
    from pathlib import Path

    from m4rag.index.steps import load_index
    from m4rag.settings import settings

    known = {"encoder": encoder, "encoder_digest": encoder_digest, "dim": int(dim) or None}
    folders = [Path(shard.path) for shard in vectors]
    built = load_index(Path(chunks.path), folders, base, settings(), channels=tuple(channels), **known)
    index.metadata.update(built.payload())
