"""Ask a model every question in every setting, resumably.

The stages each write a folder of the run (see `m4rag.bench.runs`) and are skipped or continued by manifest:
questions, captions, contexts, answers. Only captions and answers call the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.answers import AnswerLog, CaptionLog
from m4rag.bench.contexts import (
    CAPTION_QUERY,
    CONTEXT_LANGUAGE,
    IRRELEVANT,
    NATIVE,
    ORACLE,
    TEXT_ONLY,
    Search,
    has_context,
    irrelevant_contexts,
    oracle_contexts,
    queries,
    refused_contexts,
    retrieved_contexts,
    retrieves,
)
from m4rag.bench.option_order import shown_order
from m4rag.bench.refusals import Refusals
from m4rag.bench.runs import Caption, Context, Passage, RunPlan
from m4rag.bench.tasks import Task, keys, pictures, tasks
from m4rag.durable import Report, work
from m4rag.manifests import MANIFEST, Manifest
from m4rag.progress import Progress
from m4rag.schema import Answer, Document, Question, Retrieved, Status
from m4rag.shards import map_folder, read_folder, write_folder

if TYPE_CHECKING:
    from m4rag.vlm.client import VlmClient

CAPTION_TOKENS = 64


def prepare(folder: Path, plan: RunPlan, questions: Sequence[Question]) -> None:
    """Write the plan and the questions; a folder that holds them already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_folder(folder / "questions", Question, questions, _made_by("questions", plan))
    plan.write(folder)


def write_contexts(
    folder: Path,
    plan: RunPlan,
    *,
    gold: Mapping[str, Document],
    searches: Mapping[str, Search],
    progress: Report,
) -> None:
    """Make the context of every question in every setting that has one, then the table of passages shown.

    Args:
        folder: The run folder, with its questions (and captions, for `caption_query`).
        plan: The run.
        gold: Gold documents by name (`m4rag.bench.contexts.gold_documents`).
        searches: Setting to search function, for the settings that retrieve.
        progress: Called with finished questions.
    """
    captions = read_captions(folder) if CAPTION_QUERY in plan.settings else {}
    for setting in filter(has_context, plan.settings):

        def contexts(questions: list[Question], setting: str = setting) -> list[Context]:
            if not retrieves(setting):
                make = irrelevant_contexts if setting == IRRELEVANT else oracle_contexts
                return make(questions, gold, plan.context_language)
            made = refused_contexts(questions, captions) if setting == CAPTION_QUERY else {}
            searched = [question for question in questions if question.question_id not in made]
            asked = queries(setting, searched, gold, captions, plan.context_language)
            made |= {found.question_id: found for found in retrieved_contexts(searched, asked, searches[setting])}
            return [made[question.question_id] for question in questions]

        map_folder(
            folder / "questions",
            Question,
            folder / "contexts" / setting,
            Context,
            contexts,
            _made_by("contexts", plan, _captions_read(folder, setting), setting=setting),
            progress=progress,
        )
    shown = {
        setting: Manifest.read(folder / "contexts" / setting).digest for setting in filter(has_context, plan.settings)
    }
    write_folder(folder / "passages", Passage, _passages(folder, plan), _made_by("passages", plan, shown))


def _captions_read(folder: Path, setting: str) -> dict[str, str]:
    """Digest of the captions that a setting's contexts are made of: one that comes later makes other contexts."""
    return {"captions": Manifest.read(folder / "captions").digest} if setting == CAPTION_QUERY else {}


def _passages(folder: Path, plan: RunPlan) -> Iterator[Passage]:
    seen: set[str] = set()
    for setting in filter(has_context, plan.settings):
        for context in read_folder(folder / "contexts" / setting, Context):
            for passage in context.passages:
                if passage.chunk_id not in seen:
                    seen.add(passage.chunk_id)
                    yield passage


async def write_captions(folder: Path, plan: RunPlan, client: VlmClient, progress: Progress) -> None:
    """Caption every distinct image once; those that the server refused before are asked for again, and no others.

    Raises:
        Unavailable: The server is gone, or captions no image at all; the captions that are there are kept.
    """
    from m4rag.vlm.client import RequestRefused
    from m4rag.vlm.images import read_image
    from m4rag.vlm.prompts import render_caption

    images = pictures(folder)
    log = CaptionLog(folder / "captions", _made_by("captions", plan))
    done = log.done()
    waiting = [image for image in images if (image,) not in done]
    refusals = Refusals(client.url, answered=bool(done))
    prompt = render_caption()

    async def caption(image: str) -> Caption:
        request = client.generate(prompt, image=read_image(image), schema=None, max_tokens=CAPTION_TOKENS)
        try:
            completion = await refusals.watch(request)
        except RequestRefused as error:
            return Caption(image=image, text="", refused=str(error))
        return Caption(image=image, text=completion.text.strip())

    if waiting:
        with progress("captions", len(images), len(done)) as advance:
            await work(iter(waiting), caption, log, client.concurrency, advance)
    refusals.check()
    log.complete(images)


def read_captions(folder: Path) -> dict[str, Caption]:
    """Image to caption."""
    return {caption.image: caption for caption in read_folder(folder / "captions", Caption)}


def refused_captions(folder: Path) -> list[Caption]:
    """The images of a run that the server would not caption; none where the run holds no captions."""
    if not (folder / "captions" / MANIFEST).exists():
        return []
    return [caption for caption in read_folder(folder / "captions", Caption) if caption.refused]


async def answer(folder: Path, plan: RunPlan, client: VlmClient, progress: Progress) -> Manifest:
    """Put every question that has no answer yet to the model, and those that its server refused before.

    Returns:
        The manifest of the complete answers.

    Raises:
        Unavailable: The server is gone, or takes no question at all; what was answered is kept and the next call
            continues.
    """
    log = AnswerLog(folder / "answers", _made_by("answers", plan))
    order, done = keys(folder, plan), log.done()
    refusals = Refusals(client.url, answered=bool(done))

    async def ask(task: Task) -> Answer:
        return await _ask(task, plan, client, refusals)

    if len(done) < len(order):
        with progress("answers", len(order), len(done)) as advance:
            await work(tasks(folder, plan, done), ask, log, client.concurrency, advance)
    refusals.check()
    return log.complete(order)


async def _ask(task: Task, plan: RunPlan, client: VlmClient, refusals: Refusals) -> Answer:
    from m4rag.vlm.client import RequestRefused
    from m4rag.vlm.images import read_image
    from m4rag.vlm.parsing import parse
    from m4rag.vlm.prompts import answer_schema, render_question, words_for

    question = task.question
    order = shown_order(plan.option_order, question.question_id, len(question.options))
    prompt_language = words_for(plan.prompt_language, question.language)
    passages = task.context.passages if task.context else ()
    with_image = plan.images == "all" and task.setting != TEXT_ONLY and question.image is not None
    common = {
        "question_id": question.question_id,
        "setting": task.setting,
        "model": plan.model.name,
        "prompt_language": prompt_language,
        "context_language": _context_language(task, plan),
        "retrieved": tuple(
            Retrieved(chunk_id=passage.chunk_id, score=score)
            for passage, score in zip(passages, task.context.scores if task.context else (), strict=True)
        ),
    }
    if task.context is not None and task.context.refused:
        return Answer(**common, status=Status.ERROR, raw=task.context.refused)
    prompt = render_question(
        question.question,
        [question.options[place] for place in order],
        [passage.text for passage in passages],
        prompt_language,
    )
    try:
        completion = await refusals.watch(
            client.generate(
                prompt,
                image=read_image(question.image) if with_image and question.image else None,
                schema=answer_schema(len(question.options)),
                max_tokens=plan.decoding["max_tokens"],
                temperature=plan.decoding["temperature"],
                seed=plan.decoding["seed"],
            )
        )
    except RequestRefused as error:
        # The server is well but will not take this request (context too long): the question stays, as an error.
        return Answer(**common, status=Status.ERROR, raw=str(error))
    parsed = parse(completion.text, len(question.options), completion.finish_reason)
    return Answer(
        **common,
        choice=None if parsed.choice is None else order[parsed.choice],
        status=parsed.status,
        raw=completion.text,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        latency_ms=completion.latency_ms,
    )


def _context_language(task: Task, plan: RunPlan) -> str:
    if not has_context(task.setting):
        return ""
    if task.setting not in (ORACLE, IRRELEVANT):
        return "mixed"
    return task.question.language if plan.context_language == NATIVE else CONTEXT_LANGUAGE


def _made_by(kind: str, plan: RunPlan, inputs: Mapping[str, str] | None = None, **config: str) -> Manifest:
    return Manifest(kind=kind, command="bench run", config={"run": plan.digest, **config}, inputs=dict(inputs or {}))
