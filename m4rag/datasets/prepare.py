"""A dataset's questions as a folder that can be moved: Parquet, a manifest, and the images that were in the table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from m4rag.datasets import IMAGES, load_questions
from m4rag.datasets.sources import hub_address
from m4rag.manifests import Manifest, rows_digest
from m4rag.schema import Question
from m4rag.shards import write_folder

COUNTED = ("pair", "license")
"""Which of a question's `extra` the manifest counts."""


def prepare_questions(dataset: str, items: Path | None, folder: Path, limit: int | None = None) -> Manifest:
    """Write a dataset's questions, checked; killed, the same call continues.

    Args:
        dataset: A name in `m4rag.datasets.DATASETS`.
        items: As for `m4rag.datasets.load_questions`.
        folder: Target. Images that were inside the table stand in its folder `images`, named by their content; images
            that are files stay where they are.
        limit: At most this many questions; None for all.

    Returns:
        The manifest. It names the commit if the data came from the hub, and counts varieties, images, categories and,
        where the dataset has them, pairs and licences.

    Raises:
        UsageError: As for `load_questions`.
        BadData: The data breaks its contract; names the row.
        Unavailable: The data is on the hub and can't be fetched.
    """
    images = folder / IMAGES
    questions = load_questions(dataset, items, limit, images)
    config: dict[str, Any] = {"dataset": dataset, "limit": limit, "images": IMAGES}
    address = hub_address(items) if items is not None else None
    if address is not None:
        config["source"] = {"repository": address.repository, "revision": address.revision, "path": address.path}
    made_by = Manifest(
        kind="questions", command="data prepare", config=config, inputs={"questions": rows_digest(questions)}
    )
    rows = (_movable(question, folder.absolute()) for question in questions)
    return write_folder(folder, Question, rows, made_by, counts=lambda: _counts(questions))


def _movable(question: Question, folder: Path) -> Question:
    """The question with an image inside the folder named from there."""
    if question.image is None or not Path(question.image).is_relative_to(folder):
        return question
    return question.model_copy(update={"image": str(Path(question.image).relative_to(folder))})


def _counts(questions: list[Question]) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "varieties": Counter(question.language for question in questions),
        "images": len({question.image for question in questions} - {None}),
        "categories": Counter(question.category for question in questions),
    }
    for name in COUNTED:
        found = Counter(str(question.extra[name]) for question in questions if question.extra.get(name) is not None)
        if found:
            counts[name] = found
    return counts
