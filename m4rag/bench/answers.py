"""The log of a run's answers, and that of the captions which some of its settings search with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from m4rag.bench.runs import Caption
from m4rag.durable import Key, ResultLog
from m4rag.manifests import Manifest
from m4rag.schema import Answer, Status

LOG = "log.jsonl"


class AnswerLog(ResultLog[Answer]):
    """One run's answers by setting and question id; one of status `error` is a failure, whatever a model says is not.

    Args:
        folder: The run's `answers` folder; made if absent.
        made_by: Identity of the run.
    """

    def __init__(self, folder: Path, made_by: Manifest) -> None:
        super().__init__(folder, LOG, Answer, made_by)

    def key(self, row: Answer) -> Key:
        """(setting, question id)."""
        return row.setting, row.question_id

    def failed(self, row: Answer) -> bool:
        """Whether the server would not take the question."""
        return row.status is Status.ERROR

    def complete(self, order: Sequence[Key]) -> Manifest:
        """Turn the log into shards.

        Args:
            order: Every (setting, question id) of the run, in the order of the tables.

        Returns:
            The manifest of the answers.

        Raises:
            BadData: An answer is missing.
        """
        return self.finish(order, lambda row: map(row, order), _finished)


class CaptionLog(ResultLog[Caption]):
    """One run's captions by image; one that the server refused is a failure.

    Args:
        folder: The run's `captions` folder; made if absent.
        made_by: Identity of the run.
    """

    def __init__(self, folder: Path, made_by: Manifest) -> None:
        super().__init__(folder, LOG, Caption, made_by)

    def key(self, row: Caption) -> Key:
        """The image."""
        return (row.image,)

    def failed(self, row: Caption) -> bool:
        """Whether the server would not caption the image."""
        return row.refused != ""

    def complete(self, images: Sequence[str]) -> Manifest:
        """Turn the log into shards, in the order of these images.

        Raises:
            BadData: A caption is missing.
        """
        return self.finish([(image,) for image in images], lambda row: (row((image,)) for image in images))


def _finished() -> dict[str, str]:
    """When the last answer was there, for a reader: the files' own times change when a run is copied."""
    return {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
