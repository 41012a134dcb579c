"""What people say about the passages of a run, and how far the judge agrees with them.

Labels come as CSV files with the columns `question_id`, `chunk_id`, `score` (1 to 5 by the judge's rubric) and, where
several people share a file, `rater`. They are kept in the run folder: whoever judges the run next is compared with the
same people.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from m4rag.bench.agreement import Coefficient, confusion, krippendorff_alpha, weighted_kappa
from m4rag.bench.joined import read_computed, remedy_for
from m4rag.bench.judgements import JUDGEMENTS, Pair, PairKey, pairs, read_scores
from m4rag.bench.runs import Label, RunPlan
from m4rag.errors import BadData, UsageError
from m4rag.manifests import MANIFEST, Manifest, rows_digest, write_atomic
from m4rag.schema import Question
from m4rag.shards import read_folder, write_folder
from m4rag.vlm.prompts import BEST_SCORE

LABELS = "labels"
AGREEMENT = "agreement.json"
NEEDED = ("question_id", "chunk_id", "score")
DELIMITERS = (",", ";", "\t")
"""What spreadsheets write between cells, by country."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""A cell that opens with one of these may be run by a spreadsheet; an apostrophe before it makes it text."""

GRADES = (
    (0.0, "none"),
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.0, "almost perfect"),
)
"""What values of kappa up to each bound are called (Landis and Koch 1977)."""


class RaterAgreement(BaseModel):
    """How far the judge agrees with one person, or with all of them label by label.

    Attributes:
        rater: The person, or "people".
        labels: Labels of passages that the judge scored.
        kappa: Quadratic-weighted kappa.
        alpha: Ordinal Krippendorff's alpha.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rater: str
    labels: int
    kappa: Coefficient
    alpha: Coefficient


class Agreement(BaseModel):
    """How far a run's judge agrees with people.

    Attributes:
        judge: Name of the judge.
        judgements: Digest of the judgements that this was computed from.
        labels: Digest of the labels.
        passages: Pairs of question and passage that were labelled and judged.
        varieties: Varieties of their questions.
        unjudged: Labels of passages for which the judge gave no score; they count nowhere.
        overall: The judge against every label.
        raters: The judge against each person, where there are several.
        people: Alpha of the people without the judge, None where no passage has two labels.
        confusion: How often the judge gave the score of the row where a person gave that of the column, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    judgements: str
    labels: str
    passages: int
    varieties: tuple[str, ...]
    unjudged: int
    overall: RaterAgreement
    raters: tuple[RaterAgreement, ...]
    people: Coefficient | None
    confusion: tuple[tuple[int, ...], ...]

    @property
    def higher(self) -> float:
        """How much higher the judge scores than people, on average."""
        cells = [(row - column, n) for row, counts in enumerate(self.confusion) for column, n in enumerate(counts)]
        return sum(distance * n for distance, n in cells) / max(self.overall.labels, 1)

    @property
    def words(self) -> str:
        """The finding in plain words, which claim what the interval supports."""
        if not self.overall.labels:
            return f"{self.judge} gave no score to any of the {self.unjudged:,} labelled passages."
        found, people = self.overall, max(len(self.raters), 1)
        who = "one person" if people == 1 else f"{people} people"
        parts = [
            f"{_agrees(self.judge, who, found.kappa)}, Krippendorff's alpha {found.alpha.words}; "
            f"{found.labels:,} labels of {self.passages:,} passages with {found.kappa.groups:,} images in "
            f"{len(self.varieties)} varieties."
        ]
        if self.people is not None:
            parts.append(f"People with each other: alpha {self.people.words}.")
        if abs(self.higher) >= 0.05:
            parts.append(
                f"The judge scores {abs(self.higher):.1f} {'higher' if self.higher > 0 else 'lower'} on average."
            )
        return " ".join(parts)


def _agrees(judge: str, people: str, kappa: Coefficient) -> str:
    """What the interval of kappa supports, and how large agreements of that size are called."""
    measured = f"quadratic-weighted kappa {kappa.words}"
    if kappa.low is None or kappa.high is None:
        return f"How far {judge} agrees with {people} is not known: {measured}"
    if kappa.low <= 0:
        return f"{judge} does not clearly agree with {people}: {measured}"
    low, high = (next(name for bound, name in GRADES if end <= bound) for end in (kappa.low, min(kappa.high, 1.0)))
    return f"{judge} agrees with {people}: {measured} ({low if low == high else f'{low} to {high}'})"


def read_labels(files: Sequence[Path], wanted: Sequence[Pair]) -> list[Label]:
    """Read what people filled in; rows without a score are not labelled yet and are left out.

    Args:
        files: CSV files, separated by commas, semicolons or tabs. Without a column `rater`, and where it is blank, the
            rater is the file's name.
        wanted: The pairs of the run.

    Raises:
        BadData: A file is no such table, a score is not one of the rubric, a passage was not shown with its question,
            somebody labelled a passage twice, or no row has a score; names the file and the line.
    """
    by_id: dict[PairKey, Pair] = {
        (pair.question.question_id, chunk): pair for pair in wanted for chunk in pair.chunk_ids
    }
    found: dict[tuple[PairKey, str], tuple[Label, str]] = {}
    for file in files:
        for line, cells in _rows(file):
            where = f"{file} line {line}"
            if not cells["score"].strip():
                continue
            score = _score(cells["score"], where)
            question, chunk = (_plain(cells[name].strip()) for name in ("question_id", "chunk_id"))
            if (question, chunk) not in by_id:
                raise BadData(
                    f"passage {chunk[:80]!r} was not shown with question {question[:80]!r} in this run",
                    where=where,
                    remedy="Label what `--sample` writes, and leave both ids as they are.",
                )
            key, rater = by_id[question, chunk].key, _plain(cells.get("rater", "").strip()) or file.stem
            if (key, rater) in found:
                raise BadData(
                    f"{rater} labelled this passage twice, first in {found[key, rater][1]}",
                    where=where,
                    remedy="Leave one of both, or name two raters in a column `rater`.",
                )
            found[key, rater] = (Label(question_id=key[0], chunk_id=key[1], rater=rater, score=score), where)
    if not found:
        raise BadData(
            "no row has a score",
            where=", ".join(map(str, files)),
            remedy=f"Write 1 to {BEST_SCORE} into the column `score`.",
        )
    return [label for label, _ in found.values()]


def write_sample(folder: Path, size: int, file: Path) -> int:
    """Write passages of a judged run for people to label, as a CSV file that spreadsheets open.

    The sample is stratified: each score of the judge, and each variety within it, has its share of the passages, so
    agreement over the sample is that over the run. The judge's score is not written: nobody should be led by it. Rows
    stand variety by variety, in no order within. The same run gives the same sample.

    Args:
        folder: The run folder.
        size: Passages wanted.
        file: Target; must not exist, for it might hold somebody's labels.

    Returns:
        Passages written: fewer than `size` if fewer have a score.

    Raises:
        UsageError: The run is not judged, or the file exists or can't be written.
    """
    if size < 1:
        raise UsageError(f"a sample of {size}", where="--sample", remedy="Ask for 100, say.")
    need_judgements(folder)
    scores, plan = read_scores(folder), RunPlan.read(folder)
    told = Manifest.read(folder / JUDGEMENTS).config["with_answer"]
    judged = [pair for pair in pairs(folder, plan) if pair.key in scores]
    ranked = sorted(judged, key=lambda pair: (scores[pair.key], pair.question.language, _lot(pair)))
    size = min(size, len(ranked))
    chosen = [ranked[(2 * number + 1) * len(ranked) // (2 * size)] for number in range(size)]
    text = io.StringIO(newline="")
    table = csv.writer(text)
    columns = ["question_id", "chunk_id", "rater", "score", "language", "question", "right_answer", "passage", "image"]
    table.writerow([column for column in columns if told or column != "right_answer"])
    for pair in sorted(chosen, key=lambda pair: (pair.question.language, _lot(pair))):
        question = pair.question
        answer = [question.options[question.answer_index]] if told else []
        cells = [*pair.key, "", "", question.language, question.question, *answer, pair.passage, question.image or ""]
        table.writerow([_harmless(" ".join(cell.split())) for cell in cells])
    try:
        with file.open("x", encoding="utf-8-sig", newline="") as stream:  # without the mark Excel takes it for Latin-1
            stream.write(text.getvalue())
    except FileExistsError:
        raise UsageError("exists and may hold labels", where=str(file), remedy="Name another file.") from None
    except OSError as error:
        raise UsageError(f"can't be written: {error.strerror}", where=str(file)) from None
    return size


def keep_labels(folder: Path, labels: Sequence[Label]) -> None:
    """Put labels into a run folder, in place of those that were there."""
    made_by = Manifest(kind=LABELS, command="bench agreement", config={"labels": rows_digest(labels)})
    write_folder(folder / LABELS, Label, labels, made_by)


def write_agreement(folder: Path) -> Agreement | None:
    """Compare a run's judge with the people whose labels the folder holds, and write `agreement.json`.

    Returns:
        What was written; None if the run is not judged or not labelled, and then there is no such file either.

    Raises:
        BadData: The run is incomplete.
    """
    if not all((folder / name / MANIFEST).exists() for name in (JUDGEMENTS, LABELS)):
        (folder / AGREEMENT).unlink(missing_ok=True)
        return None
    found = measure(folder)
    write_atomic(folder / AGREEMENT, found.model_dump_json(indent=2).encode() + b"\n")
    return found


def read_agreement(folder: Path) -> Agreement | None:
    """How far a run's judge agrees with people, None if it is not judged or not labelled.

    Raises:
        BadData: The file is missing, damaged, or of other judgements or labels than the folder's.
    """
    if not all((folder / name / MANIFEST).exists() for name in (JUDGEMENTS, LABELS)):
        return None
    found = read_computed(folder / AGREEMENT, Agreement, "the judge is not compared with the labels")
    if (found.judgements, found.labels) != tuple(Manifest.read(folder / name).digest for name in (JUDGEMENTS, LABELS)):
        raise BadData(
            "computed from other judgements or labels", where=str(folder / AGREEMENT), remedy=remedy_for(folder)
        )
    return found


def measure(folder: Path) -> Agreement:
    """Join the labels of a run folder with its judgements.

    Raises:
        BadData: The run is incomplete.
    """
    import numpy as np

    manifest = Manifest.read(folder / JUDGEMENTS)
    scores = read_scores(folder)
    labels = list(read_folder(folder / LABELS, Label))
    judged = [label for label in labels if (label.question_id, label.chunk_id) in scores]
    questions = {question.question_id: question for question in read_folder(folder / "questions", Question)}
    keys = [(label.question_id, label.chunk_id) for label in judged]
    groups = np.unique([questions[question].group for question, _ in keys], return_inverse=True)[1]
    passages = np.unique([f"{question}\0{chunk}" for question, chunk in keys], return_inverse=True)[1]
    judge = np.array([scores[key] for key in keys], dtype=int)
    people = np.array([label.score for label in judged], dtype=int)
    raters = np.array([label.rater for label in judged])

    def against(rater: str, rows: np.ndarray) -> RaterAgreement:
        count = int(rows.sum())
        both, units = np.concatenate([judge[rows], people[rows]]), np.tile(np.arange(count), 2)
        return RaterAgreement(
            rater=rater,
            labels=count,
            kappa=weighted_kappa(judge[rows], people[rows], groups[rows]),
            alpha=krippendorff_alpha(both, units, np.tile(groups[rows], 2)),
        )

    names = sorted(set(raters.tolist()))
    shared = len(set(keys)) < len(keys)
    return Agreement(
        judge=manifest.config["judge"]["name"],
        judgements=manifest.digest,
        labels=Manifest.read(folder / LABELS).digest,
        passages=len(set(keys)),
        varieties=tuple(sorted({questions[question].language for question, _ in keys})),
        unjudged=len(labels) - len(judged),
        overall=against("people", np.ones(len(judged), dtype=bool)),
        raters=tuple(against(name, raters == name) for name in names) if len(names) > 1 else (),
        people=krippendorff_alpha(people, passages, groups) if shared else None,
        confusion=tuple(tuple(row) for row in confusion(judge, people, groups).sum(axis=0).tolist()),
    )


def need_judgements(folder: Path) -> None:
    """Refuse a run without a judge to compare with people.

    Raises:
        BadData: The folder holds no run.
        UsageError: The run is not judged.
    """
    RunPlan.read(folder)
    if not (folder / JUDGEMENTS / MANIFEST).exists():
        raise UsageError("the run is not judged", where=str(folder), remedy=f"Run `m4rag bench judge {folder}` first.")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a CSV file; the line is the one that a row begins in."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            text = stream.read()
    except (FileNotFoundError, IsADirectoryError):
        raise BadData("no such file", where=str(file)) from None
    except UnicodeDecodeError:
        raise BadData("not UTF-8", where=str(file), remedy="Save it as “CSV UTF-8”.") from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=header.count), strict=True)
    columns: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not columns:
                columns = [cell.strip() for cell in cells]
                _need_columns(columns, file)
            elif cells:
                if len(cells) != len(columns):
                    raise BadData(
                        f"{len(cells)} cells where the header has {len(columns)}",
                        where=f"{file} line {line}",
                        remedy="Put texts that hold the separator into quotes.",
                    )
                yield line, dict(zip(columns, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadData(f"not CSV ({error})", where=f"{file} line {line}") from None
    _need_columns(columns, file)


def _need_columns(columns: Sequence[str], file: Path) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise BadData(
            f"no column {', '.join(map(repr, missing))}, as labels have",
            where=str(file),
            remedy=f"It has: {', '.join(columns) or 'nothing'}.",
        )


def _score(cell: str, where: str) -> int:
    try:
        number = float(cell)
    except ValueError:
        number = 0.0
    if number not in range(1, BEST_SCORE + 1):
        raise BadData(f"score {cell[:40]!r}", where=where, remedy=f"Scores are whole numbers from 1 to {BEST_SCORE}.")
    return int(number)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def _lot(pair: Pair) -> str:
    return hashlib.sha256("\0".join(pair.key).encode()).hexdigest()
