"""Manifests and content digests: what a folder of data is, what made it, and whether it is whole.

A digest is over content (rows in canonical JSON), never over file bytes, so the same rows give the same
digest on any machine, with any Parquet writer, in any order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m4rag import __version__
from m4rag.errors import BadData

MANIFEST = "manifest.json"


CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> bytes:
    """JSON bytes that are equal for equal values: sorted keys, no spaces, UTF-8, NaN refused."""
    return CANONICAL.encode(value).encode()


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON-serialisable value."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def rows_digest(rows: Iterable[BaseModel]) -> str:
    """SHA-256 over a set of rows, whatever their order: the hash of their sorted hashes.

    Fields that a row declares as `incidental` (see `m4rag.schema.Row`) do not count.
    """
    hashes = sorted(
        hashlib.sha256(canonical(row.model_dump(mode="json", exclude=getattr(row, "incidental", None)))).digest()
        for row in rows
    )
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def short(hex_digest: str) -> str:
    """The twelve digits of a digest that names and tables show."""
    return hex_digest[:12]


class DataFile(BaseModel):
    """One data file of a folder: name, rows, and the digest of those rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    digest: str


class Manifest(BaseModel):
    """What stands beside every data folder.

    Attributes:
        kind: What the rows are: `documents`, `chunks`, `vectors`, `questions`, `answers`.
        command: The step that made it, e.g. `corpus ingest`.
        package: Version of m4rag that ran it. Not part of the identity.
        config: Every choice that changes the output.
        inputs: Name to digest of everything that went in.
        files: The data files in order.
        counts: Further numbers a reader wants (languages, skipped rows by reason).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    kind: str
    command: str
    package: str = __version__
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    files: tuple[DataFile, ...] = ()
    counts: dict[str, Any] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def identity(self) -> str:
        """Digest of what determines the output: kind, command, config, inputs. Equal identity, equal data."""
        return digest({"kind": self.kind, "command": self.command, "config": self.config, "inputs": self.inputs})

    @property
    def digest(self) -> str:
        """Digest of the data: of its files' digests in order, so another cut gives another digest."""
        return digest([file.digest for file in self.files])

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest.

        Raises:
            BadData: There is none, or it is not one.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise BadData(
                "no manifest: the step that writes this folder has not finished",
                where=str(folder),
                remedy="Run that step again; it continues where it stopped.",
            ) from None
        except ValidationError as error:
            raise BadData(f"not a manifest ({error.error_count()} errors)", where=str(path)) from None

    def write(self, folder: Path) -> None:
        """Write atomically: a manifest that exists is complete, and so is its data."""
        write_atomic(folder / MANIFEST, self.model_dump_json(indent=2).encode() + b"\n")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new, and the new is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, synced temporary file its name, and sync the folder that now holds it."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
