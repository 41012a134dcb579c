"""What a collection holds: its columns, their limits, and the description that travels with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from m4rag.errors import BadData, UsageError
from m4rag.manifests import digest
from m4rag.schema import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymilvus import CollectionSchema

FORMAT = 1
"""Raised when the columns change; part of every digest."""

Channel = Literal["dense", "bm25"]
CHANNELS: tuple[Channel, ...] = ("dense", "bm25")

KEY = "chunk_id"
DENSE = "dense"
LEXICAL = "lex"
SPARSE = "lex_bm25"

TEXT_BYTES = 65_535
COLUMN_BYTES = {
    KEY: 32,
    "document_id": 512,
    "language": 32,
    "source": 128,
    "title": 4096,
    "image": 1024,
    "text": TEXT_BYTES,
    LEXICAL: TEXT_BYTES,
}
PAYLOAD = ("chunk_id", "document_id", "title", "text", "language", "source", "image")
"""Columns that a hit carries."""

PROPERTY = "m4rag"
BASE = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
DIGITS = 12


class Description(BaseModel):
    """What a collection is, stored in its properties: anyone who can read it can check it.

    Attributes:
        base: Name that production reads; the collection is `<base>__<digest12>`.
        chunks: Digest of the passages.
        rows: Their number; a collection with fewer is not finished.
        channels: `dense`, `bm25` or both.
        dim: Length of the vectors, 0 without `dense`.
        encoder: Name of the encoder for tables, "" without `dense`.
        encoder_spec: What `m4rag.encoders.load` made it from.
        encoder_identity: What a query's encoder must equal.
        lexical: Version of the segmentation, 0 without `bm25`.
        created: Seconds since 1970; not part of the digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    base: str
    chunks: str
    rows: int
    channels: tuple[Channel, ...]
    dim: int = 0
    encoder: str = ""
    encoder_spec: str = ""
    encoder_identity: dict[str, Any] = {}
    lexical: int = 0
    created: float = 0.0

    @property
    def digest(self) -> str:
        """Digest of all that determines what the collection holds; addresses, names and times do not."""
        return digest(self.model_dump(mode="json", exclude={"base", "encoder", "encoder_spec", "created"}))

    @property
    def name(self) -> str:
        """The collection's name."""
        return f"{self.base}__{self.digest[:DIGITS]}"

    @classmethod
    def parse(cls, properties: dict[str, str], where: str) -> Description:
        """Read a collection's properties.

        Raises:
            BadData: The collection was not made by m4rag, or by another version of it.
        """
        try:
            return cls.model_validate_json(properties[PROPERTY])
        except (KeyError, ValidationError):
            raise BadData(
                "not a collection that this version of m4rag made", where=where, remedy="Build it again."
            ) from None


def base_name(corpus: str) -> str:
    """The name of an index for a corpus: Milvus takes no hyphens and dots."""
    return corpus.replace("-", "_").replace(".", "_")


def check_base(base: str) -> str:
    """A name that a collection and its alias can start with.

    Raises:
        UsageError: It is not one.
    """
    if not BASE.fullmatch(base) or len(base) > 200:
        raise UsageError(
            f"{base!r} can't name an index",
            remedy="Use letters, digits and single underscores, starting with a letter.",
        )
    return base


def schema(description: Description) -> CollectionSchema:
    """The Milvus schema: no dynamic fields, so that a misspelt column is an error."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for column, size in COLUMN_BYTES.items():
        options: dict[str, Any] = {"is_primary": True} if column == KEY else {}
        if column == LEXICAL:
            if "bm25" not in description.channels:
                continue
            options = {"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard"}}
        made.add_field(column, DataType.VARCHAR, max_length=size, **options)
    made.add_field("chunk_no", DataType.INT64)
    if "bm25" in description.channels:
        made.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
        made.add_function(
            Function(
                name="bm25", function_type=FunctionType.BM25, input_field_names=[LEXICAL], output_field_names=[SPARSE]
            )
        )
    if "dense" in description.channels:
        made.add_field(DENSE, DataType.FLOAT_VECTOR, dim=description.dim)
    return made


def row(chunk: Chunk, lexical: str | None, vector: NDArray[np.float32] | None) -> dict[str, Any]:
    """A passage as the collection stores it.

    Raises:
        BadData: A text is longer than its column.
    """
    made: dict[str, Any] = {column: getattr(chunk, column) or "" for column in PAYLOAD}
    made["chunk_no"] = chunk.index
    if lexical is not None:
        made[LEXICAL] = lexical
    for column, size in COLUMN_BYTES.items():
        length = len(made.get(column, "").encode())
        if length > size:
            raise BadData(
                f"{column} has {length} bytes, {size} fit", where=f"{chunk.document_id} passage {chunk.index}"
            )
    if vector is not None:
        made[DENSE] = vector
    return made
