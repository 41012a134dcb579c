"""Passages become vectors on disk first: the costly step survives a kill, and serves any Milvus."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.encoders import Encoder
from m4rag.errors import BadData
from m4rag.manifests import DataFile, Manifest, digest
from m4rag.schema import Chunk, Row
from m4rag.shards import map_folder, read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Vector(Row):
    """A passage's vector.

    Attributes:
        chunk_id: The passage.
        vector: Base64 of little-endian float32, as embedding servers send it.
    """

    chunk_id: str
    vector: str


def plan(parts: Sequence[DataFile], encoder: Encoder) -> Manifest:
    """What `embed` would make of these parts: its manifest without files, whose identity names the work."""
    inputs = {"chunks": digest([part.digest for part in parts])}
    return Manifest(kind="vectors", command="index build", config={"encoder": encoder.identity}, inputs=inputs)


def embed(
    chunks: Path, parts: Sequence[DataFile], vectors: Path, encoder: Encoder, progress: Callable[[int], None]
) -> int:
    """Encode parts of a folder of passages, one by one; those that a killed call finished are not encoded again.

    Args:
        chunks: A complete folder of `Chunk` rows.
        parts: Those of its parts to encode.
        vectors: Target folder of `Vector` rows, the same passages in parts of the same names.
        encoder: Makes the vectors.
        progress: Called with the number of passages after each part.

    Returns:
        How many passages this call encoded.
    """
    encoded = 0

    def encode(part: Sequence[Chunk]) -> list[Vector]:
        nonlocal encoded
        made = encoder.encode_passages(part)
        encoded += len(part)
        return [
            Vector(chunk_id=chunk.chunk_id, vector=base64.b64encode(row.astype("<f4").tobytes()).decode())
            for chunk, row in zip(part, made, strict=True)
        ]

    map_folder(chunks, Chunk, vectors, Vector, encode, plan(parts, encoder), files=parts, progress=progress)
    return encoded


def locate(chunks: Path, folders: Sequence[Path], encoder: Encoder) -> dict[str, Path]:
    """The file with the vectors of each part of a folder of passages.

    Args:
        chunks: A complete folder of `Chunk` rows.
        folders: Complete folders that `embed` made, each of some of its parts.
        encoder: What must have made them.

    Raises:
        BadData: A folder is of other passages or another encoder, or a part has no vectors.
    """
    wanted = {part.name: part for part in Manifest.read(chunks).files}
    found: dict[str, Path] = {}
    for folder in folders:
        made = Manifest.read(folder)
        parts = [wanted[file.name] for file in made.files if file.name in wanted]
        if plan(parts, encoder).identity != made.identity:
            raise BadData("vectors of other passages, or of another encoder", where=str(folder))
        found |= {file.name: folder / file.name for file in made.files}
    if missing := [name for name in wanted if name not in found]:
        raise BadData(f"{len(missing)} parts have no vectors, first {missing[0]}", where=str(chunks))
    return found


def read_vectors(path: Path, dim: int) -> dict[str, NDArray[np.float32]]:
    """One part's vectors by passage id."""
    import numpy as np

    return {
        row.chunk_id: np.frombuffer(base64.b64decode(row.vector), dtype="<f4", count=dim)
        for row in read_rows(path, Vector)
    }
