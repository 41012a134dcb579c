"""What a corpus is read from, as a digest."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fingerprint(source: str, path: str) -> str:
    """Digest of what a corpus is read from, so that the steps after it are cached by content and not by file name.

    Args:
        source: Reader: a name in `m4rag.datasets.SOURCES`, but not `mediawiki-api`.
        path: File to read, on a volume that the steps mount; empty for sources inside the package.

    Returns:
        The digest.
    """
    from pathlib import Path

    from m4rag.datasets.ingest import identity

    return identity(source, [Path(path)] if path else [])
