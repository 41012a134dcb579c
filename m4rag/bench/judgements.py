"""What a judge said about the passages of a run: the pairs to judge, the log that survives a crash, the aggregates.

`judgements/` of a run folder holds one row for each question and passage (and sample, where each is judged several
times), whatever the settings in which the passage was shown. While a judge works, rows are in a log that is named by
who judges and how, so another judge neither continues nor spoils it; when every pair was asked, the log becomes Parquet
shards with a manifest and replaces those of an earlier judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from m4rag.bench.contexts import has_context
from m4rag.bench.joined import answers_by_setting, read_folder_table, shown_ids, shown_passages
from m4rag.bench.runs import Judgement, RunPlan
from m4rag.durable import Key, ResultLog
from m4rag.errors import BadData, UsageError
from m4rag.manifests import Manifest, short
from m4rag.schema import Question, Status
from m4rag.shards import read_folder

JUDGEMENTS = "judgements"

PairKey = tuple[str, str]
"""(question id, chunk id)."""

MAX_TOKENS = 512

SEVERAL = 0.7
"""Temperature at which several samples are drawn where none is named, as in the paper on self-consistency."""

SHOWN, HIDDEN = "shown", "hidden"
"""Whether the judge is told the right answer."""


@dataclass(frozen=True)
class Sampling:
    """How often a judge is asked about each passage, and how.

    One greedy judgement, or several drawn ones, whose median is the score (self-consistency, Wang et al. 2023).

    Attributes:
        samples: Requests a passage, an odd number; their seeds are 0, 1, 2, ...
        temperature: 0 for one sample, above 0 for several.

    Raises:
        UsageError: Their number is even or below 1, or the temperature does not go with it.
    """

    samples: int = 1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what gives no median, or the same judgement again and again."""
        if self.samples < 1 or self.samples % 2 == 0:
            raise UsageError(
                f"{self.samples} samples have no middle one", where="--samples", remedy="Use an odd number."
            )
        if self.samples == 1 and self.temperature != 0:
            raise UsageError("a single sample is greedy", where="--temperature", remedy="Add --samples 5, say.")
        if self.samples > 1 and not 0 < self.temperature <= 2:
            raise UsageError(
                f"samples at temperature {self.temperature:g} say nothing",
                where="--temperature",
                remedy="Use 0.7, say.",
            )

    @property
    def decoding(self) -> dict[str, Any]:
        """As it enters the identity of judgements."""
        several = {"samples": self.samples} if self.samples > 1 else {}
        return {"temperature": self.temperature, "max_tokens": MAX_TOKENS, "seed": 0, **several}

    @classmethod
    def times(cls, samples: int) -> Sampling:
        """This many samples at the temperature that goes with it.

        Raises:
            UsageError: Their number is even or below 1.
        """
        return cls(samples, SEVERAL if samples > 1 else 0.0)

    @classmethod
    def of(cls, judgements: Manifest) -> Sampling:
        """How judgements on disk were made."""
        decoding = judgements.config["decoding"]
        return cls(decoding.get("samples", 1), decoding["temperature"])


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
    def key(self) -> PairKey:
        """What its score is known by."""
        return self.question.question_id, self.chunk_ids[0]

    def sample_key(self, sample: int) -> Key:
        """What the log knows a sample of the pair by."""
        return *self.key, str(sample)


@dataclass(frozen=True)
class Verdict:
    """What a judge makes of one question and passage.

    Attributes:
        scores: The scores of the samples that have one, by seed.
        samples: Samples.
        status: `ok` if more than half of them have a score, else what became of the first that has none.
    """

    scores: tuple[int, ...]
    samples: int
    status: Status

    @property
    def score(self) -> int | None:
        """The median of the scores (of two middle ones the lower), None unless the status is `ok`."""
        return median_low(self.scores) if self.status is Status.OK else None


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


def check_judging(answer: str, samples: int, settings: Sequence[str]) -> None:
    """Refuse a judge that can't judge a run, before the run is begun.

    Args:
        answer: `shown`, `hidden`, or "" for no judge.
        samples: Judgements of each passage.
        settings: The settings of the run.

    Raises:
        UsageError: Another value, a number without a middle, or settings that show no passage.
    """
    if answer not in ("", SHOWN, HIDDEN):
        raise UsageError(f"unknown value {answer!r} for the judge", remedy=f"Use {SHOWN} or {HIDDEN}, or none.")
    Sampling.times(samples)
    if answer and not any(has_context(setting) for setting in settings):
        raise UsageError(
            "no setting shows a passage to judge", remedy="Add one, e.g. caption_query, or leave the judge out."
        )


class JudgementLog(ResultLog[Judgement]):
    """The judgements of one run by one judge; all but those with a score are failures.

    Args:
        folder: The run's `judgements` folder; made if absent.
        made_by: Who judges and how; another identity has another log.
    """

    def __init__(self, folder: Path, made_by: Manifest) -> None:
        super().__init__(folder, f"log-{short(made_by.identity)}.jsonl", Judgement, made_by)

    def key(self, row: Judgement) -> Key:
        """(question id, chunk id, sample)."""
        return row.question_id, row.chunk_id, str(row.sample)

    def failed(self, row: Judgement) -> bool:
        """Whether there is no score."""
        return row.status is not Status.OK

    def complete(self, pairs: Sequence[Pair], samples: int = 1) -> Manifest:
        """Turn the log into shards, one row for each question, passage and sample.

        Returns:
            The manifest of the judgements.

        Raises:
            BadData: A pair was not judged, or not as often.
        """

        def arrange(row: Callable[[Key], Judgement]) -> Iterator[Judgement]:
            for pair in pairs:
                judged = [row(pair.sample_key(sample)) for sample in range(samples)]
                yield from (one.model_copy(update={"chunk_id": chunk}) for chunk in pair.chunk_ids for one in judged)

        return self.finish([pair.sample_key(sample) for pair in pairs for sample in range(samples)], arrange)


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


def read_verdicts(folder: Path) -> dict[PairKey, Verdict]:
    """What the judge makes of every question and passage, from a run folder that was judged.

    Raises:
        BadData: The run folder holds no complete judgements.
    """
    samples: dict[PairKey, list[Judgement]] = {}
    for row in read_folder(folder / JUDGEMENTS, Judgement):
        samples.setdefault((row.question_id, row.chunk_id), []).append(row)
    return {key: _verdict(rows) for key, rows in samples.items()}


def read_scores(folder: Path) -> dict[PairKey, int]:
    """The judge's score of every question and passage that has one, from a run folder that was judged.

    Raises:
        BadData: The run folder holds no complete judgements.
    """
    verdicts = read_verdicts(folder)
    return {key: verdict.score for key, verdict in verdicts.items() if verdict.score is not None}


def _verdict(rows: Sequence[Judgement]) -> Verdict:
    scores = tuple(row.score for row in rows if row.status is Status.OK and row.score is not None)
    status = Status.OK if 2 * len(scores) > len(rows) else next(row.status for row in rows if row.score is None)
    return Verdict(scores, len(rows), status)


def aggregate(question_id: str, shown: Sequence[str], scores: Mapping[PairKey, int]) -> Aggregate | None:
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
