"""Read and check images once; what the model gets are the original bytes, never a re-encoded copy."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import pybase64
from cachetools import LRUCache, cached

from m4rag.errors import BadData, UsageError

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
MAX_PIXELS = 64_000_000
MAX_BYTES = 64 * 2**20
CACHED_BYTES = 256 * 2**20

DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
WEB_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class ImageData:
    """An image that was checked.

    Attributes:
        encoded: The file's bytes as they were found, in base64: encoded once, since a benchmark shows each image many
            times.
        mime: Media type by content, whatever the file was called.
        width: Pixels.
        height: Pixels.
    """

    encoded: bytes
    mime: str
    width: int
    height: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, 64 hex digits."""
        return hashlib.sha256(pybase64.b64decode(self.encoded)).hexdigest()

    @property
    def data_url(self) -> str:
        """The image as an address that holds all of it."""
        return f"data:{self.mime};base64,{self.encoded.decode('ascii')}"


def read_image(source: str | Path | bytes, root: Path | None = None) -> ImageData:
    """Read an image from a file, a `data:` URL or bytes, and check that it is one.

    The files read last are kept, up to 256 MiB encoded, as long as they do not change.

    Args:
        source: Path, `data:image/...;base64,` URL, or the bytes themselves.
        root: Folder that a path is relative to and must stay inside; None takes the path as it is.

    Raises:
        UsageError: A web address: nothing is fetched.
        BadData: There is no such file, or it is not a whole PNG, JPEG, WebP or GIF of at most 64 megapixels.
    """
    if isinstance(source, bytes):
        if len(source) > MAX_BYTES:
            raise BadData(f"the image has {len(source) / 2**20:.0f} MiB, more than 64")
        return _check(source, f"{len(source)} bytes of image data")
    text = str(source)
    if WEB_URL.match(text):
        raise UsageError(
            "the image is a web address, and nothing is fetched from the web",
            where=text,
            remedy="Run with `--images none`, or download the images and name the local files.",
        )
    if data_url := DATA_URL.match(text):
        return _from_data_url(text[data_url.end() :], data_url[0])
    path = text if root is None else str(_inside(root, text))
    try:
        found = os.stat(path)  # noqa: PTH116 - a `Path` for each question costs more than all else here
        if found.st_size > MAX_BYTES:
            raise BadData(f"the image has {found.st_size / 2**20:.0f} MiB, more than 64", where=path)
        return _read(path, found.st_mtime_ns, found.st_size)
    except FileNotFoundError:
        raise BadData("no such image", where=path) from None
    except OSError as error:
        raise BadData(f"the image cannot be read ({error.strerror})", where=path) from None


def _inside(root: Path, name: str) -> Path:
    """The path below the root; a symbolic link may point out of it, a `..` or an absolute path may not."""
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(os.path.normpath(root)):
        raise BadData(f"the image path leaves its folder {root}", where=name)
    return path


def _from_data_url(encoded: str, where: str) -> ImageData:
    try:
        data = pybase64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadData("not base64", where=f"{where}...") from None
    return _check(data, f"{where}...")


@cached(LRUCache[object, ImageData](CACHED_BYTES, getsizeof=lambda image: len(image.encoded)), lock=Lock())
def _read(path: str, modified_ns: int, size: int) -> ImageData:
    del modified_ns, size  # part of the key only: a file that changed is read again
    return _check(Path(path).read_bytes(), path)


def _check(data: bytes, where: str) -> ImageData:
    import warnings
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(BytesIO(data), formats=tuple(MIME)) as image:
                width, height = image.size
                kind = str(image.format)
                image.verify()
    except Image.DecompressionBombError:
        raise BadData("the image has far more than 64 megapixels", where=where) from None
    except UnidentifiedImageError:
        raise BadData("not an image (PNG, JPEG, WebP or GIF)", where=where) from None
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for damaged files
        raise BadData(f"not an image: damaged ({error})", where=where) from None
    if width * height > MAX_PIXELS:
        raise BadData(f"the image has {width} x {height} pixels, more than 64 megapixels", where=where)
    return ImageData(pybase64.b64encode(data), MIME[kind], width, height)
