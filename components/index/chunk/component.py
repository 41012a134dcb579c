"""Cut documents into passages."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def chunk(
    documents: dsl.Input[dsl.Dataset],
    chunks: dsl.Output[dsl.Dataset],
    encoder: str,
    encoder_digest: str,
    dim: int,
    shards: int,
) -> list:
    """Cut documents into the passages that an encoder reads.

    Args:
        documents: Folder of `ingest`.
        chunks: Folder of passages with a manifest. Metadata: rows, digest, encoder.
        encoder: Encoder spec, whose tokenizer counts.
        encoder_digest: What `plan_index` returned.
        dim: Numbers to keep of each vector; 0 for all.
        shards: Most shards; small corpora have fewer.

    Returns:
        The shards for `embed_shard`: `{"number": 0-based, "of": count}`.
    """
    import shutil
    from dataclasses import asdict
    from pathlib import Path

    from m4rag.cli.output import progress
    from m4rag.index.steps import PlannedEncoder, cut_corpus
    from m4rag.manifests import Manifest
    from m4rag.settings import settings

    planned = PlannedEncoder(encoder, encoder_digest, int(dim))
    folder, made = cut_corpus(Path(documents.path), settings(), encoder=planned, shards=int(shards), progress=progress)
    shutil.copytree(folder, chunks.path)
    passages = Manifest.read(folder)
    chunks.metadata.update({"rows": passages.rows, "digest": passages.digest, "encoder": asdict(planned)})
    return [asdict(shard) for shard in made]
