"""What a judge said about the passages of a run: the pairs to judge, the log that survives a crash, the aggregates.

`judgements/` of a run folder holds one row for each question and passage, whatever the settings in which the passage
was shown. While a judge works, rows are in a log that is named by who judges and how, so another judge neither
continues nor spoils it; when every pair was asked, the log becomes Parquet shards with a manifest and replaces those
of an earlier judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m4rag.bench.joined import answers_by_setting, read_folder_table, shown_ids, shown_passages
from m4rag.bench.runs import Judgement, RunPlan
from m4rag.durable import Key, ResultLog
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest, short
from m4rag.schema import Question, Status
from m4rag.shards import read_folder

JUDGEMENTS = "judgements"


@dataclass(frozen=True)
class Pair:
    """A question and a passage that was shown with it.

    Attributes:
        question: The question.
        passage: The passage's text, as it was shown.
        chunk_ids: The passages of the question that have this text: several settings may show it under several ids.
    """

    question: Question
    passage: str
    chunk_ids: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What the log knows the pair by."""
        return self.question.question_id, self.chunk_ids[0]


@dataclass(frozen=True)
class Aggregate:
    """Judged relevance of what one question was shown in one setting.

    Attributes:
        mean: Mean score of its passages, 1 to 5; passages without a score do not count.
        max: The best score.
        first: Score of the passage ranked first, None if that one has none.
    """

    mean: float
    max: int
    first: int | None


class JudgementLog(ResultLog[Judgement]):
    """The judgements of one run by one judge; all but those with a score are failures.

    Args:
        folder: The run's `judgements` folder; made if absent.
        made_by: Who judges and how; another identity has another log.
    """

    def __init__(self, folder: Path, made_by: Manifest) -> None:
        super().__init__(folder, f"log-{short(made_by.identity)}.jsonl", Judgement, made_by)

    def key(self, row: Judgement) -> Key:
        """(question id, chunk id)."""
        return row.question_id, row.chunk_id

    def failed(self, row: Judgement) -> bool:
        """Whether there is no score."""
        return row.status is not Status.OK

    def complete(self, pairs: Sequence[Pair]) -> Manifest:
        """Turn the log into shards, one row for each question and passage.

        Returns:
            The manifest of the judgements.

        Raises:
            BadData: A pair was not judged.
        """

        def arrange(row: Callable[[Key], Judgement]) -> Iterator[Judgement]:
            for pair in pairs:
                judged = row(pair.key)
                yield from (judged.model_copy(update={"chunk_id": chunk}) for chunk in pair.chunk_ids)

        return self.finish([pair.key for pair in pairs], arrange)


def pairs(folder: Path, plan: RunPlan) -> list[Pair]:
    """Every question with every passage that any setting showed with it, the same text once, question by question.

    Raises:
        UsageError: No setting shows a passage: there is nothing to judge.
        BadData: The run is incomplete, or an answer names a passage that the run does not hold.
    """
    answers = answers_by_setting(folder, plan, read_folder_table(folder / "questions", Question))
    passages = shown_passages(folder, answers.values())
    texts = dict(zip(passages["chunk_id"].to_pylist(), passages["text"].to_pylist(), strict=True))
    shown = [shown_ids(rows) for rows in answers.values()]
    made = []
    for position, question in enumerate(read_folder(folder / "questions", Question)):
        by_text: dict[str, list[str]] = {}
        for chunk in dict.fromkeys(chunk for setting in shown for chunk in setting[position]):
            if chunk not in texts:
                raise BadData(f"passage {chunk} was shown but is not kept", where=question.question_id)
            by_text.setdefault(texts[chunk], []).append(chunk)
        made += [Pair(question, text, tuple(chunks)) for text, chunks in by_text.items()]
    if not made:
        raise UsageError(
            "no setting of this run shows passages: there is nothing to judge",
            where=str(folder),
            remedy="Run a setting with context, e.g. --setting caption_query.",
        )
    return made


def read_scores(folder: Path) -> dict[tuple[str, str], int]:
    """The judge's score of every question and passage that has one, from a run folder that was judged.

    Raises:
        BadData: The run folder holds no complete judgements.
    """
    return {
        (row.question_id, row.chunk_id): row.score
        for row in read_folder(folder / JUDGEMENTS, Judgement)
        if row.status is Status.OK and row.score is not None
    }


def aggregate(question_id: str, shown: Sequence[str], scores: Mapping[tuple[str, str], int]) -> Aggregate | None:
    """Judged relevance of the passages shown with a question in one setting.

    Args:
        question_id: The question.
        shown: Chunk ids, best first.
        scores: Score by question and passage.

    Returns:
        The aggregate; None if nothing was shown or no passage has a score.
    """
    given = [scores.get((question_id, chunk)) for chunk in shown]
    known = [score for score in given if score is not None]
    if not known:
        return None
    return Aggregate(mean=sum(known) / len(known), max=max(known), first=given[0])
