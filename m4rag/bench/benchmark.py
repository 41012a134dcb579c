"""One benchmark run from a request to scores and a report: what the CLI, the pipeline step and the demo call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from m4rag import models
from m4rag.bench import runner
from m4rag.bench.contexts import (
    CAPTION_QUERY,
    LANGUAGES,
    MULTIMODAL,
    NATIVE,
    NO_RAG,
    ORACLE,
    ORACLE_QUERY,
    TEXT_ONLY,
    Search,
    check_setting,
    gold_documents,
    has_context,
    needs_gold,
    retrieves,
)
from m4rag.bench.runs import IndexIdentity, ModelIdentity, RunPlan, home_folder
from m4rag.errors import BadData, UsageError
from m4rag.manifests import MANIFEST, digest, file_digest, rows_digest, write_atomic
from m4rag.progress import Progress
from m4rag.schema import Answer, Document, Question
from m4rag.settings import Settings
from m4rag.shards import read_folder

if TYPE_CHECKING:
    from m4rag.bench.scoring import Scores
    from m4rag.index.store import Store
    from m4rag.vlm.client import VlmClient

T = TypeVar("T")

DEFAULT_SETTINGS = (TEXT_ONLY, NO_RAG, ORACLE, ORACLE_QUERY, CAPTION_QUERY)
CHANNEL = "hybrid"
SCORES = "scores.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for.

    Attributes:
        dataset: Dataset name (`m4rag data list`).
        items: File the questions are read from; None for datasets inside the package.
        limit: At most this many questions, spread over varieties and prompt types; None for all.
        settings: Settings in the order of the tables.
        images: `all` or `none`; `none` makes the run a text-only baseline.
        documents: Folder of the ingested corpus that holds the gold documents.
        index: Base (alias) of the text index that `oracle_query` and `caption_query` search.
        multimodal: Encoder name to index base for `multimodal:<encoder>`, where several were built with that encoder.
        k: Passages shown to the model.
        max_tokens: Longest answer in tokens.
        seed: Seed of decoding (temperature is 0).
        prompt_language: `en`, or `native` for prompts in the language of each question.
        context_language: `en`, or `native` for gold documents in the language of each question.
        option_order: Seed of the order that options are shown in; None for the dataset's order.
        output: The run folder; None for `<home>/runs/<dataset>-<digest>`.
        command: The command line that repeats the run.
    """

    dataset: str
    items: Path | None = None
    limit: int | None = None
    settings: tuple[str, ...] = DEFAULT_SETTINGS
    images: str = "all"
    documents: Path | None = None
    index: str | None = None
    multimodal: Mapping[str, str] = field(default_factory=dict)
    k: int = 5
    max_tokens: int = 512
    seed: int = 0
    prompt_language: str = "en"
    context_language: str = "en"
    option_order: int | None = None
    output: Path | None = None
    command: str = ""


def default_settings(images: str, *, has_gold: bool) -> tuple[str, ...]:
    """The settings of a run that names none.

    Args:
        images: `all` or `none`, which leaves out what is about images.
        has_gold: Whether the dataset names gold documents; without them the settings with context are left out.
    """
    settings = DEFAULT_SETTINGS if has_gold else (TEXT_ONLY, NO_RAG)
    return tuple(each for each in settings if images == "all" or each not in (TEXT_ONLY, CAPTION_QUERY))


def check(request: Request) -> None:
    """Refuse what can't be run before anything is started.

    Raises:
        UsageError: An unknown setting, a setting that needs the images that are switched off, a senseless number.
    """
    for setting in request.settings:
        check_setting(setting)
        needs_image = setting == CAPTION_QUERY or setting.startswith(MULTIMODAL)
        if request.images == "none" and needs_image:
            raise UsageError(f"{setting} needs images", remedy="Leave it out, or run without --images none.")
    if len(set(request.settings)) != len(request.settings):
        raise UsageError("a setting is named twice")
    if request.images not in ("all", "none"):
        raise UsageError(f"unknown value {request.images!r} for --images", remedy="Use all or none.")
    for name in ("prompt_language", "context_language"):
        if getattr(request, name) not in LANGUAGES:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"unknown value {getattr(request, name)!r} for {option}", remedy="Use en or native.")
    if request.context_language == NATIVE and not any(needs_gold(setting) for setting in request.settings):
        raise UsageError(
            "--context-language native concerns gold documents, and no setting reads any",
            remedy="Add --setting oracle, or leave it out.",
        )
    if request.k < 1 or (request.limit is not None and request.limit < 1):
        raise UsageError("k and limit must be at least 1")


def run(request: Request, settings: Settings, server: AbstractContextManager[str], progress: Progress) -> Path:
    """Run, or continue, a benchmark: `ask`, then `finish`.

    Returns:
        The run folder with answers, scores and report.

    Raises:
        M4ragError: Anything a user can act on; what was done is kept and the same request continues.
    """
    folder = ask(request, settings, server, progress)
    finish(folder)
    return folder


def ask(request: Request, settings: Settings, server: AbstractContextManager[str], progress: Progress) -> Path:
    """Put the questions to the model, or continue.

    Args:
        request: What to run; checked first.
        settings: Where Milvus and the local folders are, and how the model is called.
        server: Gives the base URL of the model under test; entered once the questions are read and found good.
        progress: Shows long work.

    Returns:
        The run folder with answers; `finish` scores them.

    Raises:
        M4ragError: Anything a user can act on; what was done is kept and the same request continues.
    """
    from m4rag.datasets import load_questions

    check(request)
    questions = load_questions(request.dataset, request.items, request.limit)
    _need_images(request, questions)
    _need_gold(request, questions)
    prompts_digest = _prompts_digest(request, questions)
    inputs = _inputs(request, questions)
    with ExitStack() as stack:
        indexes, searches = _indexes(request, settings, stack)
        gold = _gold(request, questions)
        vlm_url = stack.enter_context(server)

        def with_model(work: Callable[[VlmClient], Awaitable[T]]) -> T:
            return asyncio.run(with_client(settings, vlm_url, work))

        model = with_model(lambda client: identify(client, request.dataset))
        plan = _plan(request, questions, inputs, model, indexes, prompts_digest)
        folder = request.output or home_folder(plan, settings.home)
        runner.prepare(folder, plan, questions)
        if CAPTION_QUERY in plan.settings:
            with_model(lambda client: runner.write_captions(folder, plan, client, progress))
        with_context = [setting for setting in plan.settings if has_context(setting)]
        if with_context:
            with progress("contexts", len(questions) * len(with_context), 0) as advance:
                runner.write_contexts(folder, plan, gold=gold, searches=searches, progress=advance)
        with_model(lambda client: runner.answer(folder, plan, client, progress))
    return folder


async def with_client(settings: Settings, url: str, work: Callable[[VlmClient], Awaitable[T]]) -> T:
    """What `work` returns, given a client of the server at `url` for its time."""
    from m4rag.vlm.client import VlmClient

    key = settings.vlm_api_key.get_secret_value() if settings.vlm_api_key else None
    async with VlmClient(
        url, api_key=key, timeout_s=settings.vlm_timeout_s, concurrency=settings.vlm_concurrency
    ) as client:
        return await work(client)


def finish(folder: Path) -> Scores:
    """Score a run's answers and its judgements, and write its report. Calls no model; may be repeated at will."""
    from m4rag.bench.labels import write_agreement
    from m4rag.bench.relevance import write_relevance
    from m4rag.bench.report import write_report
    from m4rag.bench.scoring import score

    plan = RunPlan.read(folder)
    questions = list(read_folder(folder / "questions", Question))
    answers = list(read_folder(folder / "answers", Answer))
    scores = score(questions, answers, images=plan.images, option_order=plan.option_order)
    write_atomic(folder / SCORES, scores.model_dump_json(indent=2).encode() + b"\n")
    write_relevance(folder)
    write_agreement(folder)
    write_report(folder)
    return scores


def _need_images(request: Request, questions: list[Question]) -> None:
    """A question whose picture is missing would be asked without it, and score as if it had been seen."""
    without = [question.question_id for question in questions if question.image is None]
    if without and request.images == "all" and set(request.settings) != {TEXT_ONLY}:
        raise BadData(
            f"{len(without)} questions have no image, first {without[0]}",
            where=str(request.items or request.dataset),
            remedy="Correct the data, or ask all of them with --images none.",
        )


def _need_gold(request: Request, questions: list[Question]) -> None:
    """A question without a gold document would be searched by its own text and score as `oracle_query`."""
    without = [question.question_id for question in questions if not question.gold]
    if without and any(needs_gold(setting) for setting in request.settings):
        raise BadData(
            f"{len(without)} questions name no gold document, first {without[0]}",
            where=str(request.items or request.dataset),
            remedy="Leave out the settings oracle, irrelevant and oracle_query.",
        )


def _prompts_digest(request: Request, questions: list[Question]) -> str:
    """Digest of the prompts that the questions get; a language that has none is refused here, before anything runs."""
    from m4rag.vlm import prompts

    varieties = {question.language for question in questions}
    return prompts.digest({prompts.words_for(request.prompt_language, variety) for variety in varieties})


def _gold(request: Request, questions: list[Question]) -> Mapping[str, Document]:
    if not any(needs_gold(setting) for setting in request.settings):
        return {}
    if request.documents is None or not (request.documents / MANIFEST).exists():
        raise UsageError(
            "the oracle settings need the corpus with the gold documents, and it is not there",
            where=str(request.documents or request.dataset),
            remedy="Ingest it first: m4rag corpus ingest.",
        )
    return gold_documents(questions, read_folder(request.documents, Document), request.context_language)


async def identify(client: VlmClient, dataset: str) -> ModelIdentity:
    """Which model a server serves, with a digest of its weights where they are readable from here.

    Args:
        client: Of the server.
        dataset: What the model is asked about: a reference model that never learned it gets a note.
    """
    served = await client.model()
    folder = Path(served.root)
    weights = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))} if folder.is_dir() else {}
    return ModelIdentity(
        name=served.name,
        engine=served.engine,
        root=folder.name if folder.is_dir() else served.root,
        weights_digest=digest(weights) if weights else None,
        max_model_len=served.max_model_len,
        note=models.note(served.name, dataset),
    )


def _indexes(
    request: Request, settings: Settings, stack: ExitStack
) -> tuple[dict[str, IndexIdentity], dict[str, Search]]:
    """Which index each retrieving setting searches, and how; the connection stays open as long as `stack`."""
    retrieving = [setting for setting in request.settings if retrieves(setting)]
    if not retrieving:
        return {}, {}
    from m4rag.index.store import connect

    store = stack.enter_context(connect(settings))
    identities: dict[str, IndexIdentity] = {}
    searches: dict[str, Search] = {}
    for setting in retrieving:
        identities[setting], searches[setting] = _index(request, setting, settings, store)
    return identities, searches


def _index(request: Request, setting: str, settings: Settings, store: Store) -> tuple[IndexIdentity, Search]:
    from m4rag.index.collection import base_name
    from m4rag.index.search import SearchChannel, encoder_of, search

    multimodal = setting.startswith(MULTIMODAL)
    base = _multimodal_base(request, setting, store) if multimodal else request.index
    if base is None:
        raise UsageError(f"{setting} needs an index", remedy="Name it with --index.")
    collection = store.resolve(base_name(base))
    description = store.describe(collection)
    channel: SearchChannel = "dense" if multimodal or description.channels == ("dense",) else "hybrid"
    if description.channels == ("bm25",):
        channel = "bm25"
    # A pooling server may have moved since the index was built; `encoder_of` checks that it is the same model.
    moved = description.encoder_spec.startswith("vllm") and settings.embedding_url is not None
    encoder = encoder_of(description, settings, "vllm" if moved else None)
    identity = IndexIdentity(
        collection=collection, digest=description.digest, encoder=description.encoder, channel=channel
    )
    return identity, lambda queries: search(
        store, collection, queries, encoder if channel != "bm25" else None, request.k, channel
    )


def _multimodal_base(request: Request, setting: str, store: Store) -> str:
    """The index of `multimodal:<encoder>`: the one that was named, else the only served one with that encoder."""
    from m4rag.index.aliases import versions

    encoder = setting.removeprefix(MULTIMODAL)
    if encoder in request.multimodal:
        return request.multimodal[encoder]
    served = [version.description for version in versions(store) if version.role == "served"]
    bases = [description.base for description in served if description.encoder == encoder]
    if len(bases) == 1:
        return bases[0]
    raise UsageError(
        f"{len(bases)} served indexes were built with encoder {encoder!r}" + (f": {', '.join(bases)}" if bases else ""),
        where=setting,
        remedy=f"Name one: --multimodal-index {encoder}=INDEX." if bases else "Build one: m4rag index build --encoder.",
    )


def _plan(
    request: Request,
    questions: list[Question],
    inputs: dict[str, str],
    model: ModelIdentity,
    indexes: dict[str, IndexIdentity],
    prompts_digest: str,
) -> RunPlan:
    decoding: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "schema": True,
    }
    return RunPlan(
        dataset=request.dataset,
        questions_digest=rows_digest(questions),
        n_questions=len(questions),
        settings=request.settings,
        images=request.images,
        model=model,
        prompts_digest=prompts_digest,
        decoding=decoding,
        k=request.k,
        indexes=indexes,
        prompt_language=request.prompt_language,
        context_language=request.context_language,
        option_order=request.option_order,
        command=request.command,
        inputs=inputs,
    )


def _inputs(request: Request, questions: list[Question]) -> dict[str, str]:
    """Digests of what was read: the file of questions, and the bytes of their images if they are sent."""
    inputs = {}
    if request.items is not None and request.items.is_file():
        inputs[request.items.name] = file_digest(request.items)
    if request.images == "all":
        from m4rag.vlm.images import read_image

        images = {question.image for question in questions if question.image is not None}
        inputs["images"] = digest(sorted(read_image(image).digest for image in images))
    return inputs
