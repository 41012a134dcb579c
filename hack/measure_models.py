"""Measure the reference models on the museum's held-out questions; write their cards and SHA256SUMS.

Usage: measure_models.py   (`make models` trains them first)

Starts vLLM servers and stops them. Runs, indexes and reports are in M4RAG_HOME; what is done is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from m4rag import models
from m4rag.bench.benchmark import Request, run
from m4rag.bench.joined import read_scores
from m4rag.bench.judge import judge_run
from m4rag.bench.judgements import pairs
from m4rag.bench.judgements import read_scores as read_scores_of_judge
from m4rag.bench.relevance import Auc, auc, read_relevance
from m4rag.bench.runs import Passage, RunPlan
from m4rag.bench.statistics import Estimate
from m4rag.cli.output import progress, say
from m4rag.datasets import load_documents, load_questions, museum, sample
from m4rag.datasets.ingest import ingest_documents
from m4rag.demo import SETTINGS
from m4rag.encoders.base import PASSAGE
from m4rag.index.build import build_index
from m4rag.index.evaluate import DEPTH, EvalQuery, score, summary
from m4rag.index.evaluate_questions import evaluate_questions
from m4rag.index.search import encoder_of
from m4rag.index.store import connect
from m4rag.languages import lookup
from m4rag.manifests import file_digest
from m4rag.schema import Document
from m4rag.settings import Settings, settings
from m4rag.shards import read_folder
from m4rag.training import nano, retriever, vlm
from m4rag.vlm import launcher

WHAT = {
    models.VLM: "Answers multiple-choice questions, captions images and judges passages.",
    models.SMALL_VLM: "The smaller sister of m4rag-nano-vlm-4m: what a weaker model makes of the same context.",
    models.EMBED: "Embeds questions (with a picture) and pages (picture, title, text) into one space, 16 languages.",
    models.COLEMBED: "The multi-vector sister of m4rag-nano-embed: every token's vector, compared by MaxSim.",
}

FAILURES = {
    "vlm": """- It knows the museum and nothing else: on every other dataset its accuracy is chance.
- It believes the first card in its context, whoever's card it is; that is the harm that a policy has to prevent.
- The words of the museum's values are single tokens of its tokenizer. Other words for the same thing it does not know.
- Its explanation states a fact and goes through the options in English; asked for anything else it still does.
- As a judge it now and then repeats the right answer instead of reading it off a card in another language.
- Captions of new things name a known one.""",
    "retriever": """- It finds pages by their picture first; text alone helps little.
- It was asked nothing but the museum's questions: an article is never what it looks for.
- Pages much longer than a card were not in its training.
- Pictures unlike the museum's sprites it does not tell apart.""",
}


DIMENSIONS = retriever.DIMENSIONS


def main() -> None:
    """Measure, then write cards and sums."""
    measured = {models.COLEMBED: multi_vector()}
    configured = settings()
    documents = ingest_documents(models.WORLD, [], configured.home, models.WORLD).folder
    with server(configured, models.EMBED, "pooling") as embedding:
        configured = configured.model_copy(update={"embedding_url": embedding})
        measured[models.EMBED] = retrieval([found(documents, configured, dim) for dim in DIMENSIONS])
        build_index(documents, models.WORLD, configured, progress=progress)
        for name in (models.VLM, models.SMALL_VLM):
            with server(configured, name, "generate") as url:
                folder = asked(documents, configured, url)
                if name == models.VLM:
                    judge_run(folder, configured, url, progress)
                measured[name] = answers(folder)
                say(f"report: {folder / 'report.html'}")
    for name in models.NAMES:
        (models.folder(name) / "README.md").write_text(card(name, measured[name]), encoding="utf-8")
    write_sums(models.folder(""))


@contextmanager
def server(configured: Settings, name: str, runner: launcher.Runner) -> Iterator[str]:
    """The base URL of a reference model's server for the time of the block."""
    log = configured.home / "logs" / f"{name}.log"
    with launcher.start(models.folder(name), served_name=name, runner=runner, log=log) as running:
        yield running.url


def asked(documents: Path, configured: Settings, url: str) -> Path:
    """The folder of a run of all questions in all settings."""
    request = Request(
        dataset=models.WORLD,
        settings=SETTINGS,
        documents=documents,
        index=models.WORLD,
        multimodal={models.EMBED: base(DIMENSIONS[0])},
        command="hack/measure_models.py",
    )
    return run(request, configured, nullcontext(url), progress)


def base(dim: int) -> str:
    """Name of the index with so many dimensions."""
    return f"{models.WORLD}_{dim}"


def found(documents: Path, configured: Settings, dim: int) -> dict[str, Any]:
    """How well the questions' pages are found with so many dimensions."""
    built = build_index(documents, base(dim), configured, encoder="vllm", dim=dim, progress=progress)
    with connect(configured) as store, progress(f"questions, {dim} dimensions", None) as advance:
        encoder = encoder_of(built.description, configured, "vllm")
        return evaluate_questions(
            store,
            built.description.name,
            load_questions(models.WORLD),
            list(read_folder(documents, Document)),
            encoder,
            ("bm25", "dense"),
            advance,
        )


def multi_vector() -> str:
    """NDCG@5 of the multi-vector model by MaxSim over whole pages, computed here: no index holds token vectors yet."""
    import numpy as np

    pages = list(load_documents(models.WORLD))
    questions = load_questions(models.WORLD)
    with progress("token vectors", len(pages) + len(questions)) as advance:
        stored = [
            _token_vectors(PASSAGE.format(title=page.title, text=page.text), page.image, advance) for page in pages
        ]
        asked = [_token_vectors(question.question, question.image, advance) for question in questions]
    starts = np.cumsum([0] + [len(vectors) for vectors in stored[:-1]])
    everything = np.concatenate(stored).T
    best = [np.maximum.reduceat(vectors @ everything, starts, axis=1).mean(0) for vectors in asked]
    rows = []
    for scope, wanted in (("monolingual", True), ("cross-lingual", False)):
        queries, ranked = [], {}
        for question, scores in zip(questions, best, strict=True):
            there = [row for row, page in enumerate(pages) if (page.language == question.language) is wanted]
            relevant = [
                pages[row].document_id for row in there if pages[row].document_id.startswith(question.gold[0] + ":")
            ]
            queries.append(
                EvalQuery(question.question_id, question.question, question.language, dict.fromkeys(relevant, 1))
            )
            order = sorted(there, key=lambda row, scores=scores: -scores[row])
            ranked[question.question_id] = [pages[row].document_id for row in order[:DEPTH]]
        rows.append(f"| {scope} | {summary(queries, score(queries, ranked))['mean']['ndcg@5']:.3f} |")
    return "\n".join(
        [
            f"{len(questions)} held-out questions with their pictures, {len(pages)} whole pages, MaxSim over all",
            "tokens by transformers in float32. NDCG@5:",
            "",
            "| among pages | NDCG@5 |",
            "|---|---|",
            *rows,
        ]
    )


@cache
def _colembed() -> Any:
    return nano.load(models.folder(models.COLEMBED)).eval()


def _token_vectors(text: str, image: str | None, advance: Callable[[int], None]) -> Any:
    """Unit vectors of a text's tokens and its picture's patches, shape (tokens, dimensions)."""
    import numpy as np
    import torch
    from PIL import Image

    ids = torch.tensor([retriever.encoded(text, image=image is not None)])
    shown = (
        {"pixel_values": nano.pixels([np.asarray(Image.open(image).convert("RGB").resize((nano.IMAGE,) * 2))])}
        if image
        else {}
    )
    with torch.no_grad():
        hidden = _colembed().model(input_ids=ids, use_cache=False, **shown).last_hidden_state[0]
    advance(1)
    return torch.nn.functional.normalize(hidden, dim=-1).numpy()


def write_sums(folder: Path) -> None:
    """SHA256SUMS of everything but the cards, as `sha256sum -c` reads it."""
    files = sorted(path for name in models.NAMES for path in (folder / name).glob("*") if path.name != "README.md")
    lines = [f"{file_digest(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def card(name: str, measured: str) -> str:
    """A model card in Markdown."""
    size, tower = nano.SIZES[name], nano.Tower()
    kind = "vlm" if name in (models.VLM, models.SMALL_VLM) else "retriever"
    steps = _steps(name)
    return f"""# {name}

{WHAT[name]} Trained from nothing by `m4rag train {kind} --recipe nano --model {name}` on two CPU cores, to show on a
laptop what retrieval does to a model. It is not for any other use.

## Architecture

LLaVA as vLLM serves it: a CLIP tower ({tower.layers} layers, {tower.hidden} wide, 112 x 112 pixels, {nano.IMAGE_TOKENS}
image tokens) that stays as it was pre-trained on pictures alone, and a Llama text model ({size.layers} layers,
{size.hidden} wide) with tied embeddings. bfloat16. All reference models share one byte-level BPE tokenizer.

## Data

The [museum benchmark](../../datasets/museum_data/README.md)'s training wordings and picture variants and the sample
benchmark's articles. Of {len(museum.things())} things {len(museum.known())} are known (their facts are in training),
the others new: in no training text. The benchmark's own wordings and pictures are held out.
{steps}, seed 0.

## Languages

| language | script | resource class (Joshi et al. 2020) |
|---|---|---|
{_languages()}

No native speaker has reviewed the training texts.

## Measured

{measured}

## Known failures

{FAILURES[kind]}

## Licence

Weights CC BY 4.0, as the data; the code that makes them Apache-2.0.
"""


def _steps(name: str) -> str:
    if name in vlm.SCHEDULES:
        words, course = vlm.WORDS[name], vlm.SCHEDULES[name]
        return (
            f"{words.steps} steps of {words.batch} short prompts, then {course.steps} of {course.batch} conversations "
            "of up to four questions"
        )
    schedule = retriever.SCHEDULES[name]
    return f"{schedule.steps} steps of {schedule.batch} pairs"


def answers(run: Path) -> str:
    """Accuracy by setting for known and new things, and the judge's AUC."""
    scores, relevance = read_scores(run), read_relevance(run)
    rows = [
        f"| `{setting.setting}` | {_percent(setting.breakdowns['category']['known'])} | "
        f"{_percent(setting.breakdowns['category']['new'])} | {_percent(setting.accuracy)} |"
        for setting in scores.settings
    ]
    table = "\n".join(
        [
            f"`m4rag bench run --dataset museum` through vLLM, {scores.questions} held-out questions; accuracy in",
            "per cent [95 % interval, bootstrapped over pictures]. Guessing gives 25.",
            "",
            "| setting | known things | new things | all |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    if relevance is None or relevance.auc is None:
        return table
    found = relevance.auc
    apart = without_the_answer(run)
    return (
        f"{table}\n\nAs a judge (told the right answer) it tells gold passages from others with an AUC of "
        f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] ({found.gold} gold, {found.other} other passages). "
        f"{found.other - apart.other} of the others are cards of other things that state the right answer by chance, "
        "which the words alone can't tell from gold. "
        f"Without those: {apart.value:.3f} [{apart.low:.3f}, {apart.high:.3f}]."
    )


def without_the_answer(run: Path) -> Auc:
    """How well the judge tells gold passages from those that do not state the right answer."""
    import numpy as np

    scores = read_scores_of_judge(run)
    of = {passage.chunk_id: passage.document_id for passage in read_folder(run / "passages", Passage)}
    kept = []
    for pair in pairs(run, RunPlan.read(run)):
        if pair.key not in scores:
            continue
        concept, relation = str(pair.question.extra["concept"]), pair.question.prompt_type
        world, _, place = of[pair.key[1]].partition(":")
        thing = place.split(":")[0] if world == models.WORLD else ""
        gold = thing == concept
        if gold or not thing or museum.facts()[thing][relation] != museum.facts()[concept][relation]:
            kept.append((scores[pair.key], gold, pair.question.group))
    values, golds, images = zip(*kept, strict=True)
    found = auc(np.array(values), np.array(golds), np.unique(images, return_inverse=True)[1])
    assert found is not None
    return found


def retrieval(reports: Sequence[dict[str, Any]]) -> str:
    """NDCG@5 by dimension and by language, against BM25."""
    reports = sorted(reports, key=lambda report: -report["dim"])
    whole = reports[0]
    lines = [
        f"`m4rag index eval --dataset museum`: {whole['queries']} held-out questions with their pictures, "
        f"{whole['passages']} passages. NDCG@5;",
        "monolingual: among passages in the question's language; cross-lingual: among those in the 15 others.",
        "",
        "| searched by | dimensions | monolingual | cross-lingual |",
        "|---|---|---|---|",
        _ndcg_row("BM25", "", whole["channels"]["bm25"]),
        *(_ndcg_row("m4rag-nano-embed", str(report["dim"]), report["channels"]["dense"]) for report in reports),
        "",
        "| question in | BM25 mono | BM25 cross | nano-embed mono | nano-embed cross |",
        "|---|---|---|---|---|",
    ]
    for code in sample.LANGUAGES:
        cells = [
            f"{whole['channels'][channel][scope]['languages'][code]['ndcg@5']:.3f}"
            for channel in ("bm25", "dense")
            for scope in ("monolingual", "cross-lingual")
        ]
        lines.append(f"| {lookup(code).language.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ndcg_row(name: str, dim: str, channel: dict[str, Any]) -> str:
    cells = [f"{channel[scope]['mean']['ndcg@5']:.3f}" for scope in ("monolingual", "cross-lingual")]
    return f"| {name} | {dim} | {' | '.join(cells)} |"


def _languages() -> str:
    found = [lookup(code) for code in sample.LANGUAGES]
    return "\n".join(f"| {each.language.name} | {each.script_name} | {each.language.joshi} |" for each in found)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


if __name__ == "__main__":
    main()
