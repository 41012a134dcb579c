"""Images are checked by content, sent as they are, and never fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from m4rag.errors import BadData, UsageError
from m4rag.vlm import images
from m4rag.vlm.images import read_image


def encoded(kind: str, size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
def test_m4rag_fault_33_the_file_travels_byte_for_byte_under_its_true_type(
    kind: str, mime: str, tmp_path: Path
) -> None:
    data = encoded(kind)
    path = tmp_path / "named.wrongly"
    path.write_bytes(data)
    image = read_image(path)
    assert (image.mime, image.width, image.height) == (mime, 30, 20)
    assert image.digest == hashlib.sha256(data).hexdigest()
    scheme, _, payload = image.data_url.partition(",")
    assert scheme == f"data:{mime};base64"
    assert base64.b64decode(payload) == data


def test_paths_data_urls_and_bytes_give_the_same_image(tmp_path: Path) -> None:
    data = encoded("PNG")
    (tmp_path / "a.png").write_bytes(data)
    from_path = read_image("a.png", root=tmp_path)
    assert read_image(data) == read_image(from_path.data_url) == from_path


def test_m4rag_fault_24_a_file_is_read_and_encoded_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    first = read_image(path)
    assert read_image(str(path)) is first
    path.write_bytes(encoded("PNG", (31, 20)))
    assert read_image(path).width == 31


def truncated_png() -> bytes:
    return encoded("PNG")[:60]


def damaged_png() -> bytes:
    data = bytearray(encoded("PNG"))
    data[45] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    "make",
    [lambda: b"", lambda: b"<html>404</html>", lambda: b"%PDF-1.7", truncated_png, damaged_png, lambda: encoded("BMP")],
    ids=["empty", "html", "pdf", "truncated", "damaged", "other format"],
)
def test_what_is_no_image_is_named(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "dish.png"
    path.write_bytes(make())
    with pytest.raises(BadData, match=r"dish\.png: not an image"):
        read_image(path)


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(BadData, match=r"huge\.png: .*megapixels"):
        read_image(path)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gif"
    data = bytearray(encoded("GIF"))
    data[6:10] = b"\xff\xff\xff\xff"  # the header claims 65535 x 65535
    path.write_bytes(bytes(data))
    with pytest.raises(BadData, match=r"bomb\.gif: .*megapixels"):
        read_image(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    with pytest.raises(BadData, match="more than"):
        read_image(path)


@pytest.mark.parametrize("url", ["http://localhost/a.png", "https://example.org/a.png", "HTTPS://example.org/a.png"])
def test_web_addresses_are_not_fetched(url: str) -> None:
    with pytest.raises(UsageError, match="--images none"):
        read_image(url)


def test_m4rag_fault_13_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"gone\.png: no such image"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(BadData, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../secret.png"])
def test_a_path_stays_inside_its_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="leaves its folder"):
        read_image(name, root=tmp_path / "images")


def test_a_data_url_that_is_not_base64_is_named() -> None:
    with pytest.raises(BadData, match="not base64"):
        read_image("data:image/png;base64,???")
