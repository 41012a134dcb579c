"""Sharded tables on disk that a killed step continues from its last finished shard.

A folder holds `part-00000.parquet`, `part-00001.parquet`, ... and, once it is complete, `manifest.json`. While a
step runs, `progress.json` names what is being made; parts of another identity are removed before a new start.
Parts appear by atomic rename after fsync, so a part that exists is whole.
"""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from m4rag.errors import BadData
from m4rag.manifests import MANIFEST, DataFile, Manifest, publish, rows_digest
from m4rag.processes import in_order

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=BaseModel)

PROGRESS = "progress.json"
SHARD_ROWS = 4096
BATCH_ROWS = 256
"""Rows that become Python objects at once: few, so that nobody waits long for the first."""


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """The Arrow schema of a row model; free-form mappings are stored as JSON text."""
    import pyarrow as pa

    hints = typing.get_type_hints(model)
    return pa.schema([pa.field(name, _arrow_type(hints[name])) for name in model.model_fields])


def _arrow_type(annotation: Any) -> pa.DataType:
    import pyarrow as pa

    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
        origin = get_origin(annotation)
    if origin is tuple:
        return pa.list_(_arrow_type(get_args(annotation)[0]))
    if origin is dict:
        return pa.string()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(arrow_schema(annotation)))
    for python, arrow in ((bool, pa.bool_()), (str, pa.string()), (int, pa.int64()), (float, pa.float64())):
        if isinstance(annotation, type) and issubclass(annotation, python):
            return arrow
    raise TypeError(f"no Arrow type for {annotation!r}")


def _json_columns(model: type[BaseModel]) -> list[str]:
    hints = typing.get_type_hints(model)
    return [name for name in model.model_fields if get_origin(hints[name]) is dict]


def write_rows(path: Path, rows: Sequence[BaseModel], model: type[BaseModel]) -> DataFile:
    """Write rows of one model as one Parquet file (zstd), atomically.

    Returns:
        The file's entry for a manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    json_columns = _json_columns(model)
    records = []
    for row in rows:
        record = row.model_dump(mode="json")
        for column in json_columns:
            record[column] = json.dumps(record[column], ensure_ascii=False, sort_keys=True)
        records.append(record)
    table = pa.Table.from_pylist(records, schema=arrow_schema(model))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    publish(temporary, path)
    return DataFile(name=path.name, rows=len(rows), digest=rows_digest(rows))


def later_columns(model: type[BaseModel]) -> dict[str, pa.Scalar]:
    """What a row model's `later` fields are in files from before them: their defaults."""
    import pyarrow as pa

    schema = arrow_schema(model)
    return {
        name: pa.scalar(model.model_fields[name].default, schema.field(name).type)
        for name in getattr(model, "later", ())
    }


def read_table(
    path: Path, columns: Sequence[str] | None = None, absent: Mapping[str, pa.Scalar] | None = None
) -> pa.Table:
    """Read a Parquet file as an Arrow table.

    Args:
        path: The file.
        columns: Columns to read, None for all.
        absent: What a column is where the file does not have it; columns that are not named here must be there.

    Raises:
        BadData: Missing, not Parquet, or without one of `columns`; names the file and the column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        present = set(file.schema_arrow.names)
        constant = {name: value for name, value in (absent or {}).items() if name not in present}
        missing = [column for column in columns or () if column not in present | constant.keys()]
        if missing:
            raise BadData(
                f"no column {', '.join(repr(column) for column in missing)}",
                where=str(path),
                remedy=f"It has: {', '.join(sorted(present))}.",
            )
        table = file.read(columns=None if columns is None else [name for name in columns if name in present])
        for name, value in constant.items():
            table = table.append_column(name, pa.repeat(value, table.num_rows))
        return table
    except FileNotFoundError:
        raise BadData("no such file", where=str(path)) from None
    except (pa.ArrowInvalid, IsADirectoryError) as error:
        raise BadData(f"not a Parquet file ({str(error).splitlines()[0]})", where=str(path)) from None


def read_rows(path: Path, model: type[R], places: Sequence[int] | None = None) -> Iterator[R]:
    """Rows of one Parquet file, validated.

    Args:
        path: The file.
        model: Row model.
        places: 0-based positions of the rows to read, in the order wanted; None for all in theirs.

    Raises:
        BadData: The file is unreadable, or a row breaks the model; names the file, the row and the field.
    """
    table = read_table(path, list(model.model_fields), later_columns(model))
    if places is not None:
        table = table.take(_positions(places))
    json_columns = _json_columns(model)
    position = 0
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        for record in batch.to_pylist():
            for column in json_columns:
                record[column] = json.loads(record[column])
            try:
                yield model.model_validate(record)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                row = position if places is None else places[position]
                raise BadData(f"{field}: {first['msg']}", where=f"{path} row {row}") from None
            position += 1


def _positions(places: Sequence[int]) -> pa.Array:
    """Row numbers, out of their bytes: from a list pyarrow would first import pandas, which takes a second."""
    import numpy as np
    import pyarrow as pa

    numbers = np.asarray(places, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def read_folder(folder: Path, model: type[R]) -> Iterator[R]:
    """Rows of a complete folder, in order, one shard in memory at a time.

    Raises:
        BadData: The folder has no manifest, or a file it names is missing or short.
    """
    for file in Manifest.read(folder).files:
        path = folder / file.name
        count = 0
        for row in read_rows(path, model):
            count += 1
            yield row
        if count != file.rows:
            raise BadData(f"{count} rows where the manifest says {file.rows}", where=str(path))


def write_folder(
    folder: Path,
    model: type[R],
    rows: Iterable[R],
    made_by: Manifest,
    *,
    shard_rows: int = SHARD_ROWS,
    shard_size: int | None = None,
    size: Callable[[R], int] = lambda _: 0,
    counts: Callable[[], dict[str, Any]] | None = None,
) -> Manifest:
    """Write rows as shards, continuing after the parts that an earlier, killed call finished.

    The rows are generated again from the start (readers are cheap) but finished parts are not rewritten.

    Args:
        folder: Target; made if absent.
        model: Row model.
        rows: The rows in a fixed order.
        made_by: Identity of the step (`files` empty).
        shard_rows: Most rows a part.
        shard_size: A part ends with the row that brings it to this size, None for no such limit: what bounds memory
            where rows can be large.
        size: Size of a row, in any unit.
        counts: Called after the last row for the manifest's `counts`.

    Returns:
        The manifest, also written to the folder. A folder that already holds this identity is left alone.
    """
    finished = start(folder, made_by)
    if finished is not None:
        return finished
    done = _finished_parts(folder)
    files: list[DataFile] = []
    for number, shard in enumerate(_shards(rows, shard_rows, shard_size, size)):
        name = f"part-{number:05d}.parquet"
        if name not in done:
            done[name] = write_rows(folder / name, shard, model)
            _record_progress(folder, made_by, done)
        files.append(done[name])
    return finish(folder, made_by.model_copy(update={"files": tuple(files), "counts": counts() if counts else {}}))


def _shards(
    rows: Iterable[R], shard_rows: int, shard_size: int | None, size: Callable[[R], int]
) -> Iterator[Sequence[R]]:
    shard: list[R] = []
    total = 0
    for row in rows:
        shard.append(row)
        total += size(row)
        if len(shard) == shard_rows or (shard_size is not None and total >= shard_size):
            yield shard
            shard, total = [], 0
    if shard:
        yield shard


def map_folder(
    source: Path,
    source_model: type[Any],
    folder: Path,
    model: type[R],
    function: Callable[[list[Any]], Sequence[R]],
    made_by: Manifest,
    *,
    files: Sequence[DataFile] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Make one output part of every input part; parts that a killed call finished are not computed again.

    Args:
        source: A complete folder.
        source_model: Its row model.
        folder: Target.
        model: Row model of the target.
        function: Input rows of one part to output rows.
        made_by: Identity of the step; must name the digest of the parts among its inputs.
        files: The parts of the source to read; None for all.
        progress: Called with the number of input rows after each part.

    Returns:
        The target's manifest.
    """
    finished = start(folder, made_by)
    if finished is not None:
        return finished
    done = _finished_parts(folder)
    files = Manifest.read(source).files if files is None else files
    for file in files:
        if file.name not in done:
            done[file.name] = write_rows(
                folder / file.name, function(list(read_rows(source / file.name, source_model))), model
            )
            _record_progress(folder, made_by, done)
        if progress is not None:
            progress(file.rows)
    return finish(folder, made_by.model_copy(update={"files": tuple(done[file.name] for file in files)}))


def spread_folder(
    source: Path,
    source_model: type[Any],
    folder: Path,
    model: type[R],
    function: Callable[[Any], Sequence[R]],
    made_by: Manifest,
    *,
    shard_rows: int,
    parallel: bool,
    counts: Callable[[Sequence[Path]], dict[str, Any]],
    progress: Callable[[int], None],
) -> Manifest:
    """Make many rows of each input row, every input part by itself; what a killed call finished is not computed again.

    Args:
        source: A complete folder.
        source_model: Its row model.
        folder: Target; the output of one input part is one or more parts named after it.
        model: Row model of the target.
        function: An input row to its output rows.
        made_by: Identity of the step; must name the source's digest among its inputs.
        shard_rows: Most rows a part.
        parallel: Use all cores, a process and an input part each; `function` must be one that can be pickled.
        counts: Called with the finished parts for the manifest's `counts`.
        progress: Called with the number of input rows after each input part.

    Returns:
        The target's manifest.
    """
    finished = start(folder, made_by)
    if finished is not None:
        return finished
    done = _finished_parts(folder)
    inputs = Manifest.read(source).files
    parts = {file.name: [part for name, part in done.items() if _made_of(name) == file.name] for file in inputs}
    missing = [file for file in inputs if not parts[file.name]]
    progress(sum(file.rows for file in inputs) - sum(file.rows for file in missing))
    spread = partial(_spread, source, source_model, folder, model, function, shard_rows)
    made = in_order(spread, missing) if parallel else map(spread, missing)
    for file, written in zip(missing, made, strict=True):
        parts[file.name] = written
        done |= {part.name: part for part in written}
        _record_progress(folder, made_by, done)
        progress(file.rows)
    files = tuple(part for file in inputs for part in parts[file.name])
    return finish(
        folder, made_by.model_copy(update={"files": files, "counts": counts([folder / file.name for file in files])})
    )


def _spread(
    source: Path,
    source_model: type[Any],
    folder: Path,
    model: type[R],
    function: Callable[[Any], Sequence[R]],
    shard_rows: int,
    file: DataFile,
) -> list[DataFile]:
    rows = (made for row in read_rows(source / file.name, source_model) for made in function(row))
    shards = _shards(rows, shard_rows, None, lambda _: 0)
    stem = file.name.removesuffix(".parquet")
    return [write_rows(folder / f"{stem}-{number:05d}.parquet", shard, model) for number, shard in enumerate(shards)]


def _made_of(name: str) -> str:
    """The input part whose output a part of `spread_folder` is."""
    return f"{name.removesuffix('.parquet').rpartition('-')[0]}.parquet"


def start(folder: Path, made_by: Manifest) -> Manifest | None:
    """Prepare a folder for a step.

    Returns:
        The manifest if the folder already holds this identity, complete; None if there is work to do, in
        which case parts of the same identity are kept and parts of another one are gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        manifest = Manifest.read(folder)
        if manifest.identity == made_by.identity and all((folder / file.name).exists() for file in manifest.files):
            return manifest
    try:
        same = json.loads((folder / PROGRESS).read_bytes())["identity"] == made_by.identity
    except (FileNotFoundError, ValueError, KeyError):
        same = False
    if not same:
        for path in [folder / MANIFEST, folder / PROGRESS, *folder.glob("part-*.parquet")]:
            path.unlink(missing_ok=True)
        _record_progress(folder, made_by, {})
    for path in folder.glob(".part-*.tmp"):
        path.unlink(missing_ok=True)
    return None


def finish(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest: from now on the folder is complete."""
    manifest.write(folder)
    (folder / PROGRESS).unlink(missing_ok=True)
    return manifest


def _record_progress(folder: Path, made_by: Manifest, done: dict[str, DataFile]) -> None:
    """Note the finished parts, which are on the disk; the note is not synced: without it they are made again."""
    files = [file.model_dump() for file in done.values()]
    temporary = folder / f".{PROGRESS}.{os.getpid()}.tmp"
    temporary.write_bytes(json.dumps({"identity": made_by.identity, "files": files}).encode())
    temporary.replace(folder / PROGRESS)


def _finished_parts(folder: Path) -> dict[str, DataFile]:
    # A part that exists but was killed before it was recorded is written again: same rows, same digest.
    recorded = json.loads((folder / PROGRESS).read_bytes())["files"]
    return {file["name"]: DataFile(**file) for file in recorded if (folder / file["name"]).exists()}
