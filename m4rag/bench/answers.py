"""The answer log: an answer is on the disk before it is counted.

While a run goes on, answers are appended to `answers/log.jsonl` and synced; a line torn by a crash is dropped
on resume. When every question has its answer the log becomes Parquet shards in a fixed order with a manifest, so
the digest of a run does not depend on the order in which answers came or on how often it was killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from m4rag.errors import BadData, Unavailable
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Answer
from m4rag.shards import read_folder, write_folder

LOG = "log.jsonl"

Key = tuple[str, str]
"""(setting, question id): what may be answered only once."""


class AnswerLog:
    """Append-only log of one run's answers.

    Args:
        folder: The run's `answers` folder; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG
        self._descriptor: int | None = None

    def __enter__(self) -> AnswerLog:
        """Open for appending, after cutting off a line that a crash left half-written."""
        whole = self._whole_lines()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, len(whole))
        os.lseek(self._descriptor, 0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log; what was appended is already on the disk."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, answers: Sequence[Answer]) -> None:
        """Write answers and wait until the disk has them.

        Raises:
            Unavailable: The disk does not take them; what it took before is kept.
        """
        if self._descriptor is None:
            raise RuntimeError("the log is not open")
        data = b"".join(answer.model_dump_json().encode() + b"\n" for answer in answers)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise Unavailable(
                f"can't be written: {error.strerror}",
                where=str(self._path),
                remedy="Free some space and repeat the command: it continues.",
            ) from None

    def read(self) -> dict[Key, Answer]:
        """Every answer so far, from the finished shards or from the log.

        Raises:
            BadData: A whole line is not an answer, or a question was answered twice in one setting.
        """
        if (self.folder / MANIFEST).exists():
            rows: Iterable[Answer] = read_folder(self.folder, Answer)
        else:
            rows = self._logged()
        answers: dict[Key, Answer] = {}
        for answer in rows:
            key = (answer.setting, answer.question_id)
            if key in answers:
                raise BadData(f"{answer.question_id} answered twice in {answer.setting}", where=str(self.folder))
            answers[key] = answer
        return answers

    def finish(self, order: Sequence[Key], made_by: Manifest) -> Manifest:
        """Turn the log into shards.

        Args:
            order: Every (setting, question id) of the run, in the order of the tables.
            made_by: Identity of the run.

        Returns:
            The manifest of the answers.

        Raises:
            BadData: An answer is missing.
        """
        answers = self.read()
        missing = [key for key in order if key not in answers]
        if missing:
            raise BadData(f"{len(missing)} answers missing, first {missing[0]}", where=str(self.folder))
        manifest = write_folder(self.folder, Answer, (answers[key] for key in order), made_by)
        self._path.unlink(missing_ok=True)
        return manifest

    def _whole_lines(self) -> bytes:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _logged(self) -> Iterable[Answer]:
        for number, line in enumerate(self._whole_lines().splitlines()):
            try:
                yield Answer.model_validate_json(line)
            except ValidationError as error:
                raise BadData(
                    f"not an answer ({error.error_count()} errors)", where=f"{self._path} line {number + 1}"
                ) from None
