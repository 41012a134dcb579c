"""Have a vision-language model judge how relevant the passages of a run are to their questions.

One request for each question and passage, with the question's image, in the published protocol: the score is of the
passage, not of any answer. Passages of all settings that show any are judged, those of `oracle` too; a passage that
several settings showed with a question is judged once, or as often as its score is to be the median of.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.benchmark import finish, identify, with_client
from m4rag.bench.judgements import JUDGEMENTS, MAX_TOKENS, JudgementLog, Pair, Sampling, pairs
from m4rag.bench.refusals import Refusals
from m4rag.bench.relevance import Relevance, read_relevance
from m4rag.bench.runs import Judgement, ModelIdentity, RunPlan
from m4rag.durable import work
from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.progress import Progress
from m4rag.schema import Status
from m4rag.settings import Settings

if TYPE_CHECKING:
    from m4rag.vlm.client import VlmClient


GREEDY = Sampling()


def judge_run(
    run_folder: Path,
    settings: Settings,
    url: str,
    progress: Progress,
    *,
    with_answer: bool = True,
    sampling: Sampling = GREEDY,
) -> Relevance:
    """Judge the passages of a run, then score it and write its report again: `judge_passages`, then `finish`.

    Raises:
        UsageError: No setting of the run shows a passage.
        BadData: The run is incomplete.
        Unavailable: The server is gone; what was judged is kept.
    """
    judge_passages(run_folder, settings, url, progress, with_answer=with_answer, sampling=sampling)
    finish(run_folder)
    relevance = read_relevance(run_folder)
    if relevance is None:
        raise RuntimeError("the run was judged and has no relevance")
    return relevance


def judge_passages(
    run_folder: Path,
    settings: Settings,
    url: str,
    progress: Progress,
    *,
    with_answer: bool = True,
    sampling: Sampling = GREEDY,
) -> None:
    """Judge the passages of a run; `m4rag.bench.benchmark.finish` makes scores of that.

    Interrupted, the same call continues; repeated, it asks only what failed. The same run judged by another model, or
    in the other way, is judged from the start and the newer judgements replace the older ones once they are complete.

    Args:
        run_folder: What `benchmark.ask` made.
        settings: How the judge is called.
        url: Base URL of the judge's server.
        progress: Shows long work.
        with_answer: Whether the judge is told the right answer, as the published one is; without it, it judges by
            what is known when a question is served.
        sampling: How often each passage is judged; its score is the median.

    Raises:
        UsageError: No setting of the run shows a passage.
        BadData: The run is incomplete.
        Unavailable: The server is gone; what was judged is kept.
    """
    plan = RunPlan.read(run_folder)
    wanted = pairs(run_folder, plan)

    async def judging(client: VlmClient) -> None:
        judge = await identify(client, plan.dataset)
        log = JudgementLog(run_folder / JUDGEMENTS, _made_by(run_folder, plan, judge, with_answer, sampling))
        judged = log.done()
        refusals = Refusals(client.url, answered=bool(judged))
        # Samples of one passage follow each other: the server's prefix cache has the prompt.
        requests = [(pair, sample) for pair in wanted for sample in range(sampling.samples)]
        waiting = [(pair, sample) for pair, sample in requests if pair.sample_key(sample) not in judged]

        async def ask(request: tuple[Pair, int]) -> Judgement:
            pair, sample = request
            return await _ask(pair, sample, client, judge.name, plan.images, with_answer, sampling, refusals)

        if waiting:
            with progress("judgements", len(requests), len(requests) - len(waiting)) as advance:
                await work(iter(waiting), ask, log, client.concurrency, advance)
        refusals.check()
        log.complete(wanted, sampling.samples)

    asyncio.run(with_client(settings, url, judging))


async def _ask(
    pair: Pair,
    sample: int,
    client: VlmClient,
    judge: str,
    images: str,
    with_answer: bool,
    sampling: Sampling,
    refusals: Refusals,
) -> Judgement:
    from m4rag.vlm.images import read_image
    from m4rag.vlm.parsing import parse
    from m4rag.vlm.prompts import BEST_SCORE, judge_schema, render_judge

    question = pair.question
    right = question.options[question.answer_index]
    common = {
        "question_id": question.question_id,
        "chunk_id": pair.chunk_ids[0],
        "sample": sample,
        "model": judge,
        "with_answer": with_answer,
    }
    image = read_image(question.image) if images == "all" and question.image else None
    try:
        prompt = render_judge(question.question, pair.passage, right if with_answer else None)
        request = client.generate(
            prompt,
            image=image,
            schema=judge_schema(),
            max_tokens=MAX_TOKENS,
            temperature=sampling.temperature,
            seed=sample,
        )
        completion = await refusals.watch(request)
    except BadData as error:
        # A blank passage, or a request that the server will not take: the pair stays, as an error.
        return Judgement(**common, status=Status.ERROR, raw=str(error))
    parsed = parse(completion.text, BEST_SCORE, completion.finish_reason)
    return Judgement(
        **common,
        score=None if parsed.choice is None else parsed.choice + 1,
        status=parsed.status,
        raw=completion.text,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        latency_ms=completion.latency_ms,
    )


def _made_by(run_folder: Path, plan: RunPlan, judge: ModelIdentity, with_answer: bool, sampling: Sampling) -> Manifest:
    from m4rag.vlm import prompts

    config = {
        "run": plan.digest,
        "judge": judge.model_dump(mode="json"),
        "prompts": prompts.judge_digest(),
        "with_answer": with_answer,
        "decoding": sampling.decoding,
    }
    inputs = {"answers": Manifest.read(run_folder / "answers").digest}
    return Manifest(kind=JUDGEMENTS, command="bench judge", config=config, inputs=inputs)
