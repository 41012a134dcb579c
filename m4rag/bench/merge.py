"""Join runs that asked parts of one benchmark: other questions, other settings, or both. No model is asked.

Answers are known by setting and question id. The parts agree on everything else that determines an answer (prompts,
model, decoding, index), so an answer that two parts have is taken once, an answer wins over an error, and two different
answers are refused. The merged run holds what reading a run takes: plan, questions, passages, answers. Captions,
contexts and judgements stay with the parts.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m4rag.bench.benchmark import finish
from m4rag.bench.contexts import MULTIMODAL, has_context, needs_gold, retrieves
from m4rag.bench.runs import Passage, RunPlan
from m4rag.durable import Key
from m4rag.errors import BadData, UsageError
from m4rag.manifests import MANIFEST, Manifest, digest, publish, rows_digest, short
from m4rag.schema import Answer, Question, Row, Status
from m4rag.shards import read_folder, write_folder


@dataclass(frozen=True)
class Part:
    """A finished run that is to be merged.

    Attributes:
        folder: Its folder.
        plan: Its plan.
        questions: Its questions, in their order.
    """

    folder: Path
    plan: RunPlan
    questions: tuple[Question, ...]


def merge(folders: Sequence[Path], output: Path, command: str = "") -> Path:
    """Join runs to one run folder, score it and write its report.

    Questions and settings keep the order of the parts; parts that have none in common follow each other. So the
    digest of the answers is that of the undivided run if the questions come out in its order. Up to 4,096 answers any
    order gives this digest.

    Args:
        folders: Finished runs.
        output: The folder to make. One that holds this merge already is only scored again.
        command: The command line that repeats the merge.

    Returns:
        The output.

    Raises:
        UsageError: Fewer than two runs, runs of different plans, or an output that holds something else.
        BadData: A run is not finished; a question, a passage or an answer is another one in another run; or a
            question has no answer in one of the settings.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UsageError("merging takes two runs or more, each named once")
    parts = [_part(folder) for folder in folders]
    questions = _questions(parts)
    plan = _plan(parts, questions, command)
    made_by = Manifest(
        kind="answers",
        command="bench merge",
        config={"run": plan.digest},
        inputs={f"run {n}": Manifest.read(part.folder / "answers").digest for n, part in enumerate(parts, start=1)},
    )
    if not _made(output, made_by):
        answers = _answers(parts)
        order = [(setting, question.question_id) for setting in plan.settings for question in questions]
        missing = [key for key in order if key not in answers]
        if missing:
            raise BadData(
                f"the runs lack {len(missing)} of the answers, first {' '.join(missing[0])}",
                remedy="Name also the run that has them: every question needs an answer in every setting.",
            )
        _write(output, parts, plan, questions, [answers[key] for key in order], made_by)
    finish(output)
    return output


def in_one_order(sequences: Iterable[Sequence[str]]) -> list[str]:
    """All names once, in the order of the first sequence, with what later ones add where these have it.

    Names that earlier sequences lack stand before the next one that they have, at the end of a sequence after the last
    such one; a sequence that has no name in common with earlier ones follows them.
    """
    merged: list[str] = []
    for sequence in sequences:
        known = set(merged)
        before: defaultdict[str, list[str]] = defaultdict(list)
        waiting: list[str] = []
        last = merged[-1] if merged else ""
        for name in sequence:
            if name in known:
                before[name], waiting, last = waiting, [], name
            else:
                waiting.append(name)
        if not merged:
            merged = waiting
            continue
        after = {last: waiting}
        merged = [each for name in merged for each in (*before.get(name, ()), name, *after.get(name, ()))]
    return merged


def _part(folder: Path) -> Part:
    return Part(folder, RunPlan.read(folder), tuple(read_folder(folder / "questions", Question)))


def _questions(parts: Sequence[Part]) -> list[Question]:
    found: dict[str, Question] = {}
    for part in parts:
        for question in part.questions:
            held = found.setdefault(question.question_id, question)
            if not _same(held, question):
                raise BadData(
                    f"question {question.question_id} is another one than in the runs before", where=str(part.folder)
                )
    return [found[name] for name in in_one_order([each.question_id for each in part.questions] for part in parts)]


def _plan(parts: Sequence[Part], questions: Sequence[Question], command: str) -> RunPlan:
    """The plan of all questions in all settings.

    Raises:
        UsageError: The parts are of different plans; names what differs.
    """
    agreed: dict[str, tuple[Any, Part]] = {}
    for part in parts:
        for name, value in _choices(part.plan).items():
            other, first = agreed.setdefault(name, (value, part))
            if other != value:
                raise UsageError(
                    f"the runs differ in {name}: {other!r} in {first.folder}, {value!r} in {part.folder}",
                    remedy="Merge runs that ask the same model in the same way.",
                )
    plan = parts[0].plan
    return plan.model_copy(
        update={
            "questions_digest": rows_digest(questions),
            "n_questions": len(questions),
            "settings": tuple(in_one_order(part.plan.settings for part in parts)),
            "prompts_digest": _prompts_digest(parts),
            "k": agreed.get("k", (plan.k, None))[0],
            "context_language": agreed.get("context language", (plan.context_language, None))[0],
            "indexes": {setting: index for part in parts for setting, index in part.plan.indexes.items()},
            "inputs": _inputs(parts),
            "command": command,
        }
    )


def _choices(plan: RunPlan) -> dict[str, Any]:
    """What parts of one run agree on, by name. A choice that none of a part's settings looks at is left out."""
    choices: dict[str, Any] = {
        "dataset": plan.dataset,
        "images": plan.images,
        "choices of decoding": sorted(plan.decoding),
        "prompt language": plan.prompt_language,
        "option order": plan.option_order,
        # Of other questions there are other pictures, and a plan holds one digest over all.
        f"the pictures of the questions {short(plan.questions_digest)}": plan.inputs.get("images"),
    }
    choices |= {f"decoding {name}": value for name, value in plan.decoding.items()}
    choices |= {f"model {name}": value for name, value in plan.model.model_dump().items()}
    if any(needs_gold(setting) for setting in plan.settings):
        choices["context language"] = plan.context_language
    if any(retrieves(setting) for setting in plan.settings):
        choices["k"] = plan.k
    for setting, index in plan.indexes.items():
        searched = setting if setting.startswith(MULTIMODAL) else "text"
        choices |= {f"{searched} index {name}": value for name, value in index.model_dump().items()}
    return choices


def _prompts_digest(parts: Sequence[Part]) -> str:
    """Digest of the prompts that all questions get.

    Raises:
        UsageError: The parts were asked with different prompts.
    """
    from m4rag.vlm import prompts

    digests = {part.plan.prompts_digest for part in parts}
    if len(digests) == 1:
        return digests.pop()
    # Native prompts have the digest of those in the languages of their questions, so parts may differ in it.
    languages: set[str] = set()
    for part in parts:
        its = {prompts.words_for(part.plan.prompt_language, question.language) for question in part.questions}
        if prompts.digest(its) != part.plan.prompts_digest:
            raise UsageError(
                f"the runs differ in their prompts: those of {part.folder} are not those of this version of m4rag",
                remedy="Run that part again.",
            )
        languages |= its
    return prompts.digest(languages)


def _inputs(parts: Sequence[Part]) -> dict[str, str]:
    """What the parts read, each under a name of its own, and the parts' plans."""
    read: defaultdict[str, set[str]] = defaultdict(set)
    for part in parts:
        for name, sha256 in part.plan.inputs.items():
            read[name].add(sha256)
    inputs = {f"run {short(part.plan.digest)}": part.plan.digest for part in parts}
    for name, digests in sorted(read.items()):
        inputs |= {name if len(digests) == 1 else f"{name} {short(sha256)}": sha256 for sha256 in sorted(digests)}
    return inputs


def _answers(parts: Sequence[Part]) -> dict[Key, Answer]:
    taken: dict[Key, tuple[Answer, Part]] = {}
    for part in parts:
        for answer in read_folder(part.folder / "answers", Answer):
            key = answer.setting, answer.question_id
            held, first = taken.setdefault(key, (answer, part))
            if held is answer or answer.status is Status.ERROR:
                continue
            if held.status is Status.ERROR:
                taken[key] = answer, part
            elif not _same(held, answer):
                what = "answers" if held.retrieved == answer.retrieved else "answers after different passages"
                raise BadData(
                    f"question {answer.question_id} has two {what} in {answer.setting}: in {first.folder} and in "
                    f"{part.folder}",
                    remedy="Leave one of the runs out.",
                )
    return {key: answer for key, (answer, _) in taken.items()}


def _passages(parts: Sequence[Part]) -> Iterator[Passage]:
    seen: dict[str, str] = {}
    for part in filter(_shows_passages, parts):
        for passage in read_folder(part.folder / "passages", Passage):
            # Where its picture lies is not what it says.
            content = digest(passage.model_dump(exclude={"image"}))
            held = seen.setdefault(passage.chunk_id, "")
            if not held:
                seen[passage.chunk_id] = content
                yield passage
            elif held != content:
                raise BadData(
                    f"passage {passage.chunk_id} is another one than in the runs before", where=str(part.folder)
                )


def _shows_passages(part: Part) -> bool:
    return any(has_context(setting) for setting in part.plan.settings)


def _same(one: Row, other: Row) -> bool:
    """Whether two rows are equal but for the times and paths of one execution."""
    return one.model_dump(exclude=set(one.incidental)) == other.model_dump(exclude=set(other.incidental))


def _made(output: Path, made_by: Manifest) -> bool:
    """Whether the output holds this merge already.

    Raises:
        UsageError: It holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if (output / "answers" / MANIFEST).exists() and Manifest.read(output / "answers").identity == made_by.identity:
        return True
    raise UsageError("there is something else already", where=str(output), remedy="Name a folder that does not exist.")


def _write(
    output: Path,
    parts: Sequence[Part],
    plan: RunPlan,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    made_by: Manifest,
) -> None:
    """Write the run beside its place and move it there: a folder that exists is whole."""
    scratch = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        write_folder(scratch / "questions", Question, questions, made_by.model_copy(update={"kind": "questions"}))
        if any(map(_shows_passages, parts)):
            made = made_by.model_copy(update={"kind": "passages"})
            write_folder(scratch / "passages", Passage, _passages(parts), made)
        write_folder(scratch / "answers", Answer, answers, made_by, counts=lambda: _finished(parts))
        plan.write(scratch)
        publish(scratch, output)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _finished(parts: Sequence[Part]) -> dict[str, str]:
    """When the last answer was there."""
    counts = [Manifest.read(part.folder / "answers").counts for part in parts]
    times = [each["finished"] for each in counts if "finished" in each]
    return {"finished": max(times)} if times else {}
