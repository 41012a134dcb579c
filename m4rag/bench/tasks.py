"""What a run asks, in the order that costs a model least.

Answers are kept in the order of the tables, whatever the order of asking (see `m4rag.durable`). So what shares
its first tokens is asked together, and the server's prefix cache holds it: all questions about one image, each in all
settings. This is done within each shard of the questions, so that one shard is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from m4rag.bench.contexts import has_context
from m4rag.bench.runs import Context, RunPlan
from m4rag.durable import Key
from m4rag.manifests import Manifest
from m4rag.schema import Question
from m4rag.shards import read_rows, read_table


@dataclass(frozen=True)
class Task:
    """One question in one setting, with what is put before the model."""

    setting: str
    question: Question
    context: Context | None

    @property
    def key(self) -> Key:
        """What the answer is known by."""
        return self.setting, self.question.question_id


def tasks(folder: Path, plan: RunPlan, done: Collection[Key]) -> Iterator[Task]:
    """Every question in every setting that is not `done`, in the order of asking.

    Args:
        folder: The run folder, with its questions and contexts.
        plan: Its plan.
        done: (setting, question id) of what has its answer; rows that have nothing else are not read.
    """
    for file in Manifest.read(folder / "questions").files:
        columns = read_table(folder / "questions" / file.name, ["question_id", "image"])
        ids = columns["question_id"].to_pylist()
        places = [
            place
            for place in by_image(columns["image"].to_pylist())
            if any((setting, ids[place]) not in done for setting in plan.settings)
        ]
        if not places:
            continue
        contexts = (
            read_rows(folder / "contexts" / setting / file.name, Context, places)
            if has_context(setting)
            else repeat(None, len(places))
            for setting in plan.settings
        )
        questions = read_rows(folder / "questions" / file.name, Question, places)
        for question, *shown in zip(questions, *contexts, strict=True):
            for setting, context in zip(plan.settings, shown, strict=True):
                if (setting, question.question_id) not in done:
                    yield Task(setting, question, context)


def by_image(images: Sequence[str | None]) -> list[int]:
    """Positions such that equal images stand together, images and what shares one in their first order."""
    first: dict[str | None, int] = {}
    for place, image in enumerate(images):
        first.setdefault(image, place)
    return sorted(range(len(images)), key=lambda place: first[images[place]])


def keys(folder: Path, plan: RunPlan) -> list[Key]:
    """Every (setting, question id) of the run in the order of the tables."""
    ids = _column(folder, "question_id")
    return [(setting, question) for setting in plan.settings for question in ids]


def pictures(folder: Path) -> list[str]:
    """Every image of the run's questions, once, sorted."""
    return sorted({image for image in _column(folder, "image") if image})


def _column(folder: Path, name: str) -> list[Any]:
    """One column of the run's questions."""
    values: list[Any] = []
    for file in Manifest.read(folder / "questions").files:
        values += read_table(folder / "questions" / file.name, [name])[name].to_pylist()
    return values
