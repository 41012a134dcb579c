"""Images that come with a table, mostly inside it: checked, named by their content, and written as files once.

Nothing of what the table says about an image is believed: not the name it gives it (never used as a path), not the
type that the name ends in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m4rag.errors import BadData
from m4rag.manifests import write_atomic
from m4rag.vlm.images import MAX_BYTES, read_image

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}


@dataclass(frozen=True)
class Checked:
    """What an image turned out to be.

    Attributes:
        digest: SHA-256 of its bytes, None if they are no image.
        name: Where it stands in a folder of images: `ab/abcd....jpg`; None if the bytes are no image.
        problem: Why they are no image, None if they are one.
    """

    digest: str | None
    name: str | None
    problem: str | None


def check(data: bytes | None) -> Checked:
    """Check the bytes of one image.

    Args:
        data: The bytes; None if the table has none.
    """
    if data is None:
        return Checked(None, None, "no image bytes")
    try:
        image = read_image(data)
    except BadData as error:
        return Checked(None, None, error.what)
    return Checked(image.digest, f"{image.digest[:2]}/{image.digest}{SUFFIXES[image.mime]}", None)


def check_file(path: Path) -> Checked:
    """Check an image that is a file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return Checked(None, None, f"the image has {path.stat().st_size / 2**20:.0f} MiB, more than 64")
        return check(path.read_bytes())
    except OSError as error:
        return Checked(None, None, f"the image cannot be read ({error.strerror})")


def keep(data: bytes, name: str, folder: Path) -> None:
    """Write an image, unless the folder has it: one file however many questions show it.

    Args:
        data: Its bytes.
        name: `Checked.name`.
        folder: The folder of images.
    """
    path = folder / name
    if not path.exists():
        write_atomic(path, data)
