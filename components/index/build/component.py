"""Build a Milvus index from documents."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_index(documents: dsl.Input[dsl.Dataset], index: dsl.Output[dsl.Artifact], base: str, encoder: str) -> None:
    """Cut documents into chunks, embed them and write an immutable collection; an unchanged rebuild writes nothing.

    Reads MILVUS_URI and MILVUS_TOKEN. The first build of a base is served at once, later ones wait for a promotion.

    Args:
        documents: Folder of `ingest_corpus`.
        index: Pointer to the collection. Metadata: collection, base, digest, encoder and more; none without an encoder.
        base: Base name of the collection and alias.
        encoder: Encoder spec; empty builds nothing.
    """
    from pathlib import Path

    from m4rag.index.build import build_index as build
    from m4rag.settings import settings

    if not encoder:
        return
    index.metadata.update(build(Path(documents.path), base, settings(), encoder=encoder).payload())
