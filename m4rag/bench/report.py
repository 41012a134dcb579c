"""The report of one run: a single HTML file that needs no network, no JavaScript and no other file.

Plots are SVG inside the page, drawn by the template in percent of their width: they scale from a phone to a wall
without scaling their text, follow the reader's light or dark theme, and leave the shaping of every script to the
browser. Everything that a user, a model or a corpus wrote is escaped, and a content security policy forbids the page
to load or run anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m4rag.bench.analysis import analyse
from m4rag.bench.contexts import NO_RAG, TEXT_ONLY, needs_gold, retrieves
from m4rag.bench.examples import Example, choose_examples, unusable_answers
from m4rag.bench.findings import TEXT_ONLY_LABEL, finding, relevance_finding, what_it_is
from m4rag.bench.joined import answers_by_setting, gold_shown, read_folder_table, read_scores, shown_passages
from m4rag.bench.labels import Agreement, read_agreement
from m4rag.bench.pictures import embed
from m4rag.bench.relevance import EDGES, MINIMUM, Relevance, SettingRelevance, read_relevance
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import Estimate, Scores, SettingScores
from m4rag.bench.verdicts import run_verdicts
from m4rag.datasets import DATASETS
from m4rag.languages import SCRIPTS, lookup
from m4rag.manifests import MANIFEST, Manifest, digest, write_atomic
from m4rag.policy.page import shown_policies
from m4rag.schema import Question

if TYPE_CHECKING:
    import pyarrow as pa
    from jinja2 import Environment

REPORT = "report.html"
THUMBNAILS = "thumbnails"
TEMPLATES = Path(__file__).parent / "templates"

JOSHI = {
    "0": "left behind: almost no data in any form",
    "1": "scraping by: some unlabelled text",
    "2": "hopeful: a little labelled data",
    "3": "rising: much text, little labelled data",
    "4": "underdog: much text, less labelled data than the top",
    "5": "winner: rich in text and labelled data",
}
DIMENSIONS = {
    "joshi": "Joshi resource class",
    "script": "Script",
    "category": "Category",
    "prompt_type": "Kind of question",
    "variety": "Variety",
    "pair": "Language and country",
}
WEAKEST = 8
"""Groups that are listed as the weakest."""
SMALLEST_GROUP = 20
"""Questions that a group needs to be listed."""
HYPHEN = re.compile(r"(?<=[\s\[(])-(?=\d)")
"""A hyphen before a number that is less than zero."""
RANGE = re.compile(r"(?<=\d) - (?=\d)")
"""A hyphen between the ends of an interval."""
PART = re.compile(r"[^:_/-]*[:_/-]|[^:_/-]+$")
"""The name of a setting may go on in the next line after each part."""
RATES = ("retention", "correction")
RATE_MARKS = {"retention": 1, "correction": 3}
"""Their colours and shapes: numbers of the marks that settings have, too, but not in the same plot."""
SMALLEST_DOT, LARGEST_DOT = 3.0, 9.0
ENDONYMS = {"arz": "مصرى", "nan": "闽南语"}
"""Names that CLDR, where all others come from, does not have."""


@dataclass(frozen=True)
class Tongue:
    """A language as a page needs it: `lang` and `dir` attributes, its own name for itself and the English one."""

    tag: str
    direction: str
    endonym: str
    name: str


@dataclass(frozen=True)
class Column:
    """One setting: `mark` numbers its colour and shape on the page."""

    mark: int
    what: str
    scores: SettingScores
    gold_shown: float | None


@dataclass(frozen=True)
class Line:
    """One line of a plot or table: a label, one estimate a setting (None where the setting lacks it)."""

    label: str
    tongue: Tongue | None
    cells: tuple[Estimate | None, ...]

    @property
    def n(self) -> int:
        """Questions behind it."""
        return max((cell.n for cell in self.cells if cell is not None), default=0)


@dataclass(frozen=True)
class Dot:
    """One rate in a plot against relevance; `size` is the radius in pixels, its area grows with the answers."""

    x: float
    size: float
    label: str
    estimate: Estimate


@dataclass(frozen=True)
class Judged:
    """The section about judged relevance: its sentence, and the plots with their settings, all together first."""

    relevance: Relevance
    agreement: Agreement | None
    sentence: str
    itself: bool
    plots: tuple[tuple[SettingRelevance, dict[str, tuple[Dot, ...]]], ...]


@dataclass(frozen=True)
class Weak:
    """A group of questions that is answered badly: what divides the questions, the group's name, its accuracy."""

    dimension: str
    label: str
    estimate: Estimate


@dataclass(frozen=True)
class Weakest:
    """The weakest groups in one setting, the surest first."""

    column: Column
    groups: tuple[Weak, ...]


@dataclass(frozen=True)
class Baseline:
    """A row of the table that no model's skill explains."""

    name: str
    what: str
    estimate: Estimate | None


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a finished, scored run folder.

    Returns:
        The file.

    Raises:
        BadData: The folder holds no complete, scored run.
    """
    plan = RunPlan.read(run_folder)
    scores = read_scores(run_folder)
    path = run_folder / REPORT
    write_atomic(path, render_page("report.html.jinja", _view(run_folder, plan, scores)).encode())
    return path


def current_report(run_folder: Path) -> Path:
    """The run's report, written only if there is none of these very scores and policies.

    Raises:
        BadData: The folder holds no complete, scored run.
    """
    path = run_folder / REPORT
    if path.exists() and f'content="{_seal(run_folder)}"'.encode() in path.read_bytes():
        return path
    return write_report(run_folder)


def _seal(folder: Path) -> str:
    """Digest of what a report is made from."""
    relevance = read_relevance(folder)
    judged = [found.model_dump(mode="json") for found in (relevance, read_agreement(folder)) if found is not None]
    policies = shown_policies(folder)
    ruled = [*(shown.policy.digest for shown in policies.policies), *policies.problems]
    return digest([RunPlan.read(folder).digest, read_scores(folder).model_dump(mode="json"), *judged, *ruled])


def _view(folder: Path, plan: RunPlan, scores: Scores) -> dict[str, Any]:
    """Everything the template shows."""
    questions = read_folder_table(folder / "questions", Question)
    answers = answers_by_setting(folder, plan, questions)
    passages = shown_passages(folder, answers.values())
    examples = choose_examples(questions, answers, passages, _script, option_order=plan.option_order)
    columns = [
        Column(
            number,
            what_it_is(setting.setting, plan.images),
            setting,
            _share(answers[setting.setting], questions, passages),
        )
        for number, setting in enumerate(scores.settings)
    ]
    analysis = analyse([folder]).runs[0]
    return {
        "plan": plan,
        "scores": scores,
        "finding": finding(plan, scores),
        "text_only": plan.images == "none",
        "text_only_label": TEXT_ONLY_LABEL,
        "analysis": analysis,
        "verdicts": run_verdicts(analysis),
        "columns": columns,
        "marks": {column.scores.setting: column.mark for column in columns},
        "baselines": _baselines(scores),
        "chance": scores.baselines["random"],
        "languages": _languages(scores),
        "weakest": _weakest(columns),
        "policies": shown_policies(folder),
        "smallest_group": SMALLEST_GROUP,
        "joshi": JOSHI,
        "breakdowns": _breakdowns(scores),
        "places": max((len(s.positions.chosen) for s in scores.settings if s.positions), default=0),
        "rate_marks": RATE_MARKS,
        "minimum": MINIMUM,
        "judged": _judged(plan, read_relevance(folder), read_agreement(folder)),
        "unusable": unusable_answers(answers),
        "examples": examples,
        "pictures": {
            image: embed(image, folder / THUMBNAILS) for example in examples if (image := example.question.image)
        },
        "tongues": _tongues(questions, examples),
        "corpora": _corpora(passages),
        "dataset": DATASETS.get(plan.dataset),
        "counts": _counts(questions),
        "finished": _finished(folder / "answers"),
        "version": Manifest.read(folder / "answers").package,
        "seal": _seal(folder),
    }


def _finished(answers: Path) -> datetime:
    """When the answers were complete; runs from before that was noted have the time of their manifest."""
    noted = Manifest.read(answers).counts.get("finished")
    if noted is not None:
        return datetime.fromisoformat(noted)
    return datetime.fromtimestamp((answers / MANIFEST).stat().st_mtime, UTC)


def _share(answers: pa.Table, questions: pa.Table, passages: pa.Table) -> float | None:
    flags = gold_shown(answers, questions, passages)
    return None if flags is None else 100 * sum(flags) / len(flags)


def _baselines(scores: Scores) -> list[Baseline]:
    return [
        Baseline("random", "an option drawn by lot", scores.baselines["random"]),
        Baseline("majority", "always the position that is right most often", scores.baselines["majority"]),
        Baseline("text-only", what_it_is(TEXT_ONLY, "none"), scores.baselines["text_only"]),
    ]


def _languages(scores: Scores) -> list[tuple[str, str, list[Line]]]:
    """(Joshi class, what it means, lines by English name), low-resource classes first."""
    groups: dict[str, list[Line]] = defaultdict(list)
    for code in _keys(scores.settings, "language"):
        spoken = tongue(code)
        line = Line(spoken.name, spoken, _cells(scores.settings, "language", code))
        groups[str(lookup(code).language.joshi)].append(line)
    return [(joshi, JOSHI[joshi], sorted(groups[joshi], key=lambda line: line.label)) for joshi in sorted(groups)]


def _breakdowns(scores: Scores) -> list[tuple[str, list[Line]]]:
    """(Title, lines) of every dimension that divides the questions at all."""
    shown = []
    for dimension, title in DIMENSIONS.items():
        keys = _keys(scores.settings, dimension)
        if len(keys) > 1:
            lines = [Line(_label(dimension, key), None, _cells(scores.settings, dimension, key)) for key in keys]
            shown.append((title, lines))
    return shown


def _keys(settings: Iterable[SettingScores], dimension: str) -> list[str]:
    return sorted({key for setting in settings for key in setting.breakdowns.get(dimension, {})})


def _cells(settings: Iterable[SettingScores], dimension: str, key: str) -> tuple[Estimate | None, ...]:
    return tuple(setting.breakdowns.get(dimension, {}).get(key) for setting in settings)


def _weakest(columns: Sequence[Column]) -> Weakest | None:
    """The weakest groups in the most accurate setting that could be served; None where no large one is below all.

    They are ordered by the upper ends of their intervals: a group is not weak because it has few questions.
    """
    served = [column for column in columns if _served(column.scores.setting)]
    if not served:
        return None
    best = max(served, key=lambda column: column.scores.accuracy.value)
    found: dict[tuple[float, ...], Weak] = {}
    for dimension in ("variety", "pair", "category", "prompt_type", "script", "joshi"):
        cells = best.scores.breakdowns.get(dimension, {})
        for key, cell in cells.items():
            if len(cells) > 1 and cell.n >= SMALLEST_GROUP and cell.value < best.scores.accuracy.value:
                # A script that one language alone has is that language: the narrower name is kept.
                same = (cell.value, cell.low, cell.high, cell.n)
                found.setdefault(same, Weak(DIMENSIONS[dimension], _label(dimension, key), cell))
    weak = sorted(found.values(), key=lambda group: (group.estimate.high, group.estimate.value))[:WEAKEST]
    return Weakest(best, tuple(weak)) if weak else None


def _served(setting: str) -> bool:
    return setting == NO_RAG or (retrieves(setting) and not needs_gold(setting))


def _label(dimension: str, key: str) -> str:
    if dimension == "joshi":
        return f"{key} · {JOSHI[key].partition(':')[0]}"
    if dimension == "script":
        return SCRIPTS.get(key, key)
    if dimension in ("variety", "pair"):
        return f"{lookup(key).name} · {key}"
    return key or "(none)"


def _judged(plan: RunPlan, relevance: Relevance | None, agreement: Agreement | None) -> Judged | None:
    """The section about judged relevance, None for a run that nobody judged."""
    if relevance is None:
        return None
    shown = [*([relevance.pooled] if relevance.pooled else []), *relevance.settings]
    plots = tuple((setting, {rate: _dots(setting, rate) for rate in RATES}) for setting in shown)
    itself = relevance.judge.name == plan.model.name
    return Judged(relevance, agreement, relevance_finding(plan, relevance), itself, plots)


def _dots(setting: SettingRelevance, rate: str) -> tuple[Dot, ...]:
    most = max((found.n for part in setting.bins for name in RATES if (found := getattr(part, name))), default=1)
    return tuple(
        Dot(
            x=100 * ((part.low + part.high) / 2 - EDGES[0]) / (EDGES[-1] - EDGES[0]),
            size=max(SMALLEST_DOT, LARGEST_DOT * (found.n / most) ** 0.5),
            label=part.label,
            estimate=found,
        )
        for part in setting.bins
        if (found := getattr(part, rate)) is not None
    )


def _counts(questions: pa.Table) -> dict[str, int]:
    codes = set(questions["language"].to_pylist())
    return {
        "languages": len({lookup(code).language.code for code in codes}),
        "varieties": len(codes),
        "scripts": len({_script(code) for code in codes}),
        "pictures": len(set(questions["image"].to_pylist()) - {None}),
    }


def _corpora(passages: pa.Table) -> list[tuple[str, int, int]]:
    """(source, passages shown, languages) of every corpus that passages came from."""
    sources = Counter(passages["source"].to_pylist())
    pairs = set(zip(passages["source"].to_pylist(), passages["language"].to_pylist(), strict=True))
    return [(source, count, sum(name == source for name, _ in pairs)) for source, count in sorted(sources.items())]


def _tongues(questions: pa.Table, examples: Sequence[Example]) -> dict[str, Tongue]:
    codes = set(questions["language"].to_pylist())
    codes |= {hit.passage.language for example in examples for hits in example.passages.values() for hit in hits}
    return {code: tongue(code) for code in codes}


def tongue(code: str) -> Tongue:
    """A language or variety code as a page needs it; the tag is BCP 47, with a script where browsers need it."""
    import langcodes

    variety = lookup(code)
    language = variety.language
    tag = langcodes.Language.make(language=language.code, script=variety.script).simplify_script().to_tag()
    endonym = ENDONYMS.get(language.code) or langcodes.Language.get(language.code).autonym()
    return Tongue(tag, variety.direction, endonym, language.name)


def _script(code: str) -> str:
    return lookup(code).script


def render_page(template: str, view: dict[str, Any]) -> str:
    """A self-contained page in the style of the report.

    Args:
        template: A template that takes `css` and `css_sha256`, for its style and its content security policy.
        view: Everything else it shows.
    """
    css = (TEMPLATES / "report.css").read_text()
    seal = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return _environment().get_template(template).render(view, css=css, css_sha256=seal)


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    environment.filters["percent"] = lambda value: f"{value:.1f}"
    environment.filters["tenth"] = lambda value: min(9, int(value // 10))
    environment.filters["minus"] = lambda text: HYPHEN.sub("\N{MINUS SIGN}", RANGE.sub("\N{EN DASH}", text))
    environment.filters["parts"] = PART.findall
    environment.filters["points"] = lambda value: f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return environment
