"""Read a corpus into documents."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest_corpus(documents: dsl.Output[dsl.Dataset], source: str, path: str, name: str) -> None:
    """Read a corpus into document shards.

    Args:
        documents: Folder of document shards with a manifest. Metadata: rows, digest, name.
        source: Reader: a name in `m4rag.datasets.SOURCES`, but not `mediawiki-api`.
        path: File to read; empty for sources inside the package.
        name: Name of the corpus.
    """
    import shutil
    from pathlib import Path

    from m4rag.datasets.ingest import ingest_documents
    from m4rag.settings import settings

    done = ingest_documents(source, [Path(path)] if path else [], settings().home, name)
    shutil.copytree(done.folder, documents.path)
    documents.metadata.update({"rows": done.rows, "digest": done.digest, "name": name})
