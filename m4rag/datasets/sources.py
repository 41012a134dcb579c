"""Where questions are read from: a file, a folder, or one commit of a dataset on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from m4rag.errors import Unavailable, UsageError

HUB_FORM = "hf://datasets/OWNER/NAME@COMMIT[/PATH]"
DATA_FILES = ("*.parquet", "*.jsonl")
IMAGE_FILES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.gif")

# `Path` runs the two slashes of an address together.
_HUB = re.compile(r"hf:/+(?P<rest>.*)", re.DOTALL)
_ADDRESS = re.compile(r"datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]*))?(/(?P<path>.+?))?/*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """Questions on this machine.

    Attributes:
        path: The file or folder they are in.
        root: The folder that image paths are relative to.
    """

    path: Path
    root: Path


@dataclass(frozen=True)
class HubAddress:
    """One commit of a dataset on the hub.

    Attributes:
        repository: `owner/name`.
        revision: The commit, 40 hex digits.
        path: A file or folder in it, "" for all of it.
    """

    repository: str
    revision: str
    path: str


def find(items: Path) -> Source:
    """The files that `--items` names, fetched first if they are on the hub.

    Args:
        items: A file, a folder, or an address of the form `HUB_FORM`. A commit that was fetched before is not fetched
            again.

    Raises:
        UsageError: The address is not of that form, does not pin a commit, or names nothing that the hub has.
        Unavailable: It must be fetched, and `huggingface_hub` is not installed or the hub does not answer.
    """
    address = hub_address(items)
    if address is None:
        return Source(items, items if items.is_dir() else items.parent)
    root = _fetch(address)
    path = root / address.path
    if not path.exists():
        raise UsageError(f"no {address.path!r} in this commit", where=str(items), remedy="Look at the list on the hub.")
    return Source(path, root)


def hub_address(items: Path) -> HubAddress | None:
    """The hub address that a path spells, None if it is an ordinary path.

    Raises:
        UsageError: It is an address, but not of the form `HUB_FORM`, or it does not pin a commit.
    """
    spelt = _HUB.fullmatch(str(items))
    if spelt is None:
        return None
    found = _ADDRESS.fullmatch(spelt["rest"])
    path = found["path"] or "" if found else ""
    if found is None or ".." in PurePosixPath(path).parts:
        raise UsageError("not an address of a dataset", where=str(items), remedy=f"Use {HUB_FORM}.")
    if not _COMMIT.fullmatch(found["revision"] or ""):
        raise UsageError(
            f"revision {found['revision']!r} is not a commit",
            where=str(items),
            remedy="Pin one: 40 hex digits after '@'. A branch or tag moves, and the numbers with it.",
        )
    return HubAddress(found["repository"], found["revision"], path)


def _fetch(address: HubAddress) -> Path:
    try:
        from httpx import HTTPError
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise Unavailable(
            "huggingface_hub is not installed", remedy="pip install huggingface-hub, or download the files yourself."
        ) from None
    where = f"{address.repository}@{address.revision[:12]}"
    wanted = [address.path, f"{address.path}/*"] if address.path else [*DATA_FILES]
    try:
        folder = snapshot_download(
            address.repository,
            repo_type="dataset",
            revision=address.revision,
            allow_patterns=[*wanted, *IMAGE_FILES],
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(
            f"the hub has no such dataset or commit, or it asks for a login ({type(error).__name__})",
            where=where,
            remedy="Check owner, name and commit; `hf auth login` for datasets that ask for it.",
        ) from None
    except (HTTPError, HfHubHTTPError, OSError) as error:
        # Everything that the network does, and a commit that is not in the cache while offline, is one of these.
        raise Unavailable(
            f"the dataset cannot be fetched ({type(error).__name__})",
            where=where,
            remedy="Check the connection, or download the files yourself and name their folder.",
        ) from None
    return Path(folder)
