"""Pictures as data URLs: small enough to travel inside a report, and kept so that it can be written again elsewhere."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from m4rag.manifests import digest, short, write_atomic

SIDE_PX = 560
QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """A picture for a page.

    Attributes:
        source: `data:` URL, None if the picture could not be embedded.
        width: Pixels.
        height: Pixels.
        problem: Why it could not be embedded, "" if it could.
    """

    source: str | None
    width: int = 0
    height: int = 0
    problem: str = ""


def embed(image: str, kept: Path) -> Picture:
    """Read, shrink to at most `SIDE_PX` a side and encode a picture (WebP), or take it as it was kept before.

    A picture that is not a readable file here gives a `Picture` with the problem in place of an error: a report is
    also made where the pictures are not.

    Args:
        image: Path, or a URL, which is never fetched.
        kept: Folder that keeps what was encoded.
    """
    from PIL import Image

    if "://" in image:
        return Picture(None, problem=f"not embedded, it is on the web: {image}")
    file = kept / f"{short(digest(image))}.webp"
    try:
        if not file.exists():
            write_atomic(file, _small(Path(image)))
        with Image.open(file) as small:
            width, height = small.size
    except (OSError, Image.DecompressionBombError) as error:
        return Picture(None, problem=f"not readable here: {image} ({type(error).__name__})")
    return Picture(f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}", width, height)


def _small(image: Path) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(image) as opened:
        picture = ImageOps.exif_transpose(opened)
        picture.thumbnail((SIDE_PX, SIDE_PX))
        mode = "RGBA" if picture.has_transparency_data else "RGB"
        stream = io.BytesIO()
        picture.convert(mode).save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()
