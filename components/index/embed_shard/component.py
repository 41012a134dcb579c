"""Embed one shard of the passages."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def embed_shard(
    chunks: dsl.Input[dsl.Dataset],
    vectors: dsl.Output[dsl.Dataset],
    shard: dict,
) -> None:
    """Embed one shard of the passages; one that M4RAG_HOME holds complete is not embedded again.

    Args:
        chunks: Folder of `chunk`.
        vectors: Folder of vectors with a manifest. Metadata: rows, and embedded, how many of them were made now.
        shard: One of those that `chunk` returned.
    """
    import shutil
    from pathlib import Path

    from m4rag.cli.output import progress
    from m4rag.index.steps import PlannedEncoder, Shard, embed_shard
    from m4rag.manifests import Manifest
    from m4rag.parameters import from_params
    from m4rag.settings import settings

    share = from_params(Shard, **shard)
    encoder = from_params(PlannedEncoder, **chunks.metadata["encoder"])
    folder, embedded = embed_shard(Path(chunks.path), share, settings(), encoder=encoder, progress=progress)
    shutil.copytree(folder, vectors.path)
    vectors.metadata.update({"rows": Manifest.read(folder).rows, "embedded": embedded})
