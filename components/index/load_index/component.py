"""Write passages and vectors into Milvus."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def load_index(
    chunks: dsl.Input[dsl.Dataset],
    vectors: dsl.Input[list[dsl.Dataset]],
    index: dsl.Output[dsl.Artifact],
    base: str,
    channels: list,
) -> None:
    """Write an immutable collection, or the rows that it lacks; a collection that is there is left as it is.

    Reads MILVUS_URI and MILVUS_TOKEN. The first collection of a base is served at once, later ones wait to be promoted.

    Args:
        chunks: Folder of `chunk`.
        vectors: Folders of `embed_shard`, all shards.
        index: Pointer to the collection. Metadata: collection, base, digest, encoder, rows, written and more.
        base: Base name of the collection and alias.
        channels: `dense`, or `dense` and `bm25`.
    """
    from pathlib import Path

    from m4rag.cli.output import progress
    from m4rag.index.steps import PlannedEncoder, load_index
    from m4rag.parameters import from_params
    from m4rag.settings import settings

    how = {"encoder": from_params(PlannedEncoder, **chunks.metadata["encoder"]), "channels": tuple(channels)}
    folders = [Path(shard.path) for shard in vectors]
    built = load_index(Path(chunks.path), folders, base, settings(), progress=progress, **how)
    index.metadata.update(built.payload())
