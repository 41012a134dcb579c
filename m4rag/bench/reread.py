"""A run's answers read by the published rules: what the same words would have scored in the paper's evaluation."""

from __future__ import annotations

from pathlib import Path

from m4rag.bench.option_order import shown_order
from m4rag.bench.runs import RunPlan
from m4rag.bench.scoring import Scores, score
from m4rag.schema import Answer, Question, Status
from m4rag.shards import read_folder
from m4rag.vlm.parsing import paper_parity


def score_by_published_rules(run_folder: Path) -> Scores:
    """Scores of a finished run whose answers are read as M4-RAG's authors read theirs. Writes nothing.

    Raises:
        BadData: The folder holds no complete run.
    """
    plan = RunPlan.read(run_folder)
    questions = {question.question_id: question for question in read_folder(run_folder / "questions", Question)}
    answers = [
        reread(answer, questions[answer.question_id], plan.option_order)
        for answer in read_folder(run_folder / "answers", Answer)
    ]
    return score(list(questions.values()), answers, images=plan.images, option_order=plan.option_order)


def reread(answer: Answer, question: Question, option_order: int | None = None) -> Answer:
    """An answer as the published rules read its text. What the server never answered stays an error.

    Args:
        answer: The answer; its `raw` is the model's text.
        question: Its question.
        option_order: Seed of the order that options were shown in, None for the dataset's.
    """
    if answer.status is Status.ERROR:
        return answer
    number = paper_parity(answer.raw)
    if number is None:
        return answer.model_copy(update={"choice": None, "status": Status.UNPARSABLE})
    if not 1 <= number <= len(question.options):
        return answer.model_copy(update={"choice": None, "status": Status.OUT_OF_RANGE})
    order = shown_order(option_order, question.question_id, len(question.options))
    return answer.model_copy(update={"choice": order[number - 1], "status": Status.OK})
