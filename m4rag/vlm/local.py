"""A model server for a command that needs one: the configured one, the one that is up, or one of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from m4rag.settings import Settings


@contextmanager
def served(settings: Settings, url: str | None, say: Callable[[str], None]) -> Iterator[str]:
    """The base URL of a vision-language model for the time of the block.

    Args:
        settings: Where the local files are, and the configured server.
        url: A server that the caller named; wins over everything.
        say: Told in one line what is started.

    Yields:
        `url`, else M4RAG_VLM_URL, else the server of `m4rag vlm up`, else one started here with the larger reference
        model and stopped at the end.
    """
    from m4rag import models
    from m4rag.vlm import launcher

    named = url or settings.vlm_url
    if named is None and (up := launcher.status(settings.home)) is not None:
        named = up.url
    if named is not None:
        yield named
        return
    log = settings.home / "logs" / "vlm.log"
    say(f"starting vLLM with {models.VLM} (log: {log})")
    with launcher.start(models.folder(models.VLM), served_name=models.VLM, log=log) as server:
        yield server.url
