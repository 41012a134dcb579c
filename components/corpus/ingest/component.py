"""Read a corpus into documents."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(documents: dsl.Output[dsl.Dataset], source: str, path: str, fingerprint: str, name: str) -> None:
    """Read a corpus into document shards.

    Args:
        documents: Folder of document shards with a manifest. Metadata: rows, digest, name.
        source: Reader: a name in `m4rag.datasets.SOURCES`, but not `mediawiki-api`.
        path: File to read, on a volume that the steps mount; empty for sources inside the package.
        fingerprint: What `fingerprint` returned: another file under the same name is refused.
        name: Name of the corpus.
    """
    import shutil
    from pathlib import Path

    from m4rag.datasets.ingest import identity, ingest_documents
    from m4rag.errors import BadData
    from m4rag.settings import settings

    paths = [Path(path)] if path else []
    if identity(source, paths) != fingerprint:
        raise BadData("the corpus changed since the pipeline began", where=path or source, remedy="Start it again.")
    done = ingest_documents(source, paths, settings().home, name)
    shutil.copytree(done.folder, documents.path)
    documents.metadata.update({"rows": done.rows, "digest": done.digest, "name": name})
