"""The answer log: an answer is on the disk before it is counted.

While a run goes on, answers are appended to `answers/log.jsonl` and synced; a line torn by a crash is dropped
on resume. When every question has its answer the log becomes Parquet shards in a fixed order with a manifest, so
the digest of a run does not depend on the order in which answers came or on how often it was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from m4rag.durable import RowLog
from m4rag.errors import BadData
from m4rag.manifests import MANIFEST, Manifest
from m4rag.schema import Answer
from m4rag.shards import read_folder, write_folder

LOG = "log.jsonl"

Key = tuple[str, str]
"""(setting, question id): what may be answered only once."""


class AnswerLog(RowLog[Answer]):
    """Append-only log of one run's answers.

    Args:
        folder: The run's `answers` folder; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG, Answer)
        self.folder = folder

    def read(self) -> dict[Key, Answer]:
        """Every answer so far, from the finished shards or from the log.

        Raises:
            BadData: A whole line is not an answer, or a question was answered twice in one setting.
        """
        if (self.folder / MANIFEST).exists():
            rows: Iterable[Answer] = read_folder(self.folder, Answer)
        else:
            rows = self.logged()
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
        self.path.unlink(missing_ok=True)
        return manifest
