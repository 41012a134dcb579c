"""A benchmark run on disk: what was asked for, what came out.

<run folder>/
  plan.json                    RunPlan: everything that determines the answers
  questions/                   Question rows with a manifest
  captions/                    Caption rows (only for caption_query)
  passages/                    Passage rows: every passage that was shown to the model, once
  answers/                     Answer rows; written while running, manifest when complete
  scores.json                  m4rag.bench.scoring.Scores
  judgements/                  Judgement rows (only after `bench judge`), manifest when every passage was judged
  relevance.json               m4rag.bench.relevance.Relevance, where there are judgements
  labels/                      Label rows (only after `bench agreement`)
  agreement.json               m4rag.bench.labels.Agreement, where there are judgements and labels
  policy-<setting>.json        m4rag.policy.model.Policy (only after `policy fit`)
  report.html                  the self-contained report
  thumbnails/                  the pictures that it shows
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m4rag.errors import BadData
from m4rag.manifests import Manifest, digest, short, write_atomic
from m4rag.schema import Row, Status

PLAN = "plan.json"
LATER = ("context_language", "option_order")
"""Choices of a plan that earlier versions did not have."""


class Passage(Row):
    """A passage as the report shows it."""

    chunk_id: str
    document_id: str
    title: str
    text: str
    language: str
    source: str
    image: str | None = None


class Context(Row):
    """What retrieval (or the oracle) gave for one question in one setting.

    Attributes:
        question_id: The question.
        query: The query text that was searched, "" for the oracle.
        passages: Passages best first.
        scores: Their scores, same order and length.
    """

    question_id: str
    query: str
    passages: tuple[Passage, ...]
    scores: tuple[float, ...]


class Caption(Row):
    """One image's caption, made once and used as the query of `caption_query`."""

    image: str
    text: str


class Judgement(Row):
    """How relevant a judge finds one passage that was shown with one question, asked once.

    Attributes:
        question_id: The question.
        chunk_id: The passage.
        sample: 0-based number of the request among those about this passage; also its seed.
        score: 1 (irrelevant or misleading) to 5 (directly confirms the right answer), None unless status is `ok`.
        status: What became of the request; everything but `ok` is asked again when judging is repeated.
        model: Name the server gave for the judge.
        with_answer: Whether the judge was told the right answer.
        raw: The judge's text, verbatim; for errors the message.
        prompt_tokens: Tokens in, as the server counted them.
        completion_tokens: Tokens out.
        latency_ms: Wall time of the request in milliseconds.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"latency_ms"})
    later: ClassVar[frozenset[str]] = frozenset({"sample"})

    question_id: str
    chunk_id: str
    sample: int = 0
    score: int | None = None
    status: Status
    model: str
    with_answer: bool
    raw: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0


class Label(Row):
    """How relevant a person finds one passage that was shown with one question.

    Attributes:
        question_id: The question.
        chunk_id: The passage: the first of those of the question that have its text.
        rater: Who says so.
        score: 1 to 5, by the judge's rubric.
    """

    question_id: str
    chunk_id: str
    rater: str
    score: int


class ModelIdentity(BaseModel):
    """Which model answered, as far as its server tells.

    Attributes:
        name: Served model name.
        engine: Server and version, e.g. `vllm 0.32.0`.
        root: What the server loaded (checkpoint folder name or hub id).
        weights_digest: SHA-256 over the checkpoint's weights where they are readable from here, else None.
        max_model_len: Context window in tokens.
        note: A warning that must stand beside every number (e.g. random weights), None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    engine: str
    root: str
    weights_digest: str | None = None
    max_model_len: int | None = None
    note: str | None = None


class IndexIdentity(BaseModel):
    """Which index the passages came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collection: str
    digest: str
    encoder: str
    channel: str

    @property
    def alias(self) -> str:
        """The name that production reads: the collection's without its digest."""
        return self.collection.rpartition("__")[0] or self.collection


class RunPlan(BaseModel):
    """Everything that determines the answers; its digest names the run, so the same command resumes it.

    Attributes:
        dataset: Dataset name.
        questions_digest: Digest of the questions asked, after any limit.
        n_questions: Their number.
        settings: Settings in the order of the tables.
        images: `all` sends each question's image, `none` sends no image: the text-only baseline.
        model: The model's identity.
        prompts_digest: Digest of the prompt templates.
        decoding: Temperature, maximum tokens, seed, constrained or not.
        k: Passages shown to the model.
        indexes: Setting to index identity, for the settings that retrieve.
        prompt_language: Language of the instructions: `en`, or `native` for that of each question.
        context_language: Language of the gold documents: `en`, or `native` for that of each question.
        option_order: Seed of the order that options are shown in; None for the dataset's order.
        command: The command line that repeats this run.
        inputs: Name to sha256 of the files read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    questions_digest: str
    n_questions: int
    settings: tuple[str, ...]
    images: str
    model: ModelIdentity
    prompts_digest: str
    decoding: dict[str, Any]
    k: int
    indexes: dict[str, IndexIdentity] = Field(default_factory=dict)
    prompt_language: str = "en"
    context_language: str = "en"
    option_order: int | None = None
    command: str = ""
    inputs: dict[str, str] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of all that determines the answers (not of the command line that was typed)."""
        # Choices that came later count only where they were made: runs from before keep their names.
        later = {name for name in LATER if getattr(self, name) == RunPlan.model_fields[name].default}
        return digest(self.model_dump(mode="json", exclude={"command", *later}))

    @classmethod
    def read(cls, folder: Path) -> RunPlan:
        """Read a run folder's plan.

        Raises:
            BadData: The folder holds no readable run.
        """
        try:
            return cls.model_validate_json((folder / PLAN).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise BadData(
                "not a benchmark run", where=str(folder), remedy="Name a folder that `m4rag bench run` made."
            ) from None
        except ValidationError as error:
            raise BadData(f"damaged plan ({error.error_count()} errors)", where=str(folder / PLAN)) from None

    def write(self, folder: Path) -> None:
        """Write the plan, atomically."""
        write_atomic(folder / PLAN, self.model_dump_json(indent=2).encode() + b"\n")


def home_folder(plan: RunPlan, home: Path) -> Path:
    """Where a run is kept that no other place was named for: the same run, the same folder."""
    return home / "runs" / f"{plan.dataset}-{short(plan.digest)}"


def at_home(folder: Path, home: Path) -> Path:
    """The folder of the same run in `home`, where work on it continues if this process is lost.

    Args:
        folder: A run with its answers, such as a pipeline step is given.
        home: `Settings.home`.

    Returns:
        The folder; copied there unless it is there with these answers.

    Raises:
        BadData: The folder holds no complete run.
    """
    kept = home_folder(RunPlan.read(folder), home)
    answers = Manifest.read(folder / "answers").digest
    if not (kept / PLAN).exists() or Manifest.read(kept / "answers").digest != answers:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
    return kept
