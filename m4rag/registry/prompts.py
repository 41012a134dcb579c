"""The prompts of a run as MLflow prompts: one name for each language, one version for each text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from m4rag.bench.joined import read_folder_table
from m4rag.bench.runs import RunPlan
from m4rag.manifests import digest
from m4rag.schema import Answer
from m4rag.vlm import prompts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

TEXT_DIGEST = "m4rag.text_digest"
LINKED = "mlflow.linkedPrompts"


def prompts_of(run_folder: Path, plan: RunPlan) -> dict[str, str]:
    """Name to template of every language that a run's questions were asked in.

    Empty where this version's prompts are no longer those of the run: what it was asked with is not known here.

    Args:
        run_folder: What `m4rag bench run` made.
        plan: Its plan.

    Raises:
        BadData: The run's answers are incomplete.
    """
    answers = read_folder_table(run_folder / "answers", Answer)
    languages = sorted(answers["prompt_language"].unique().to_pylist())
    if prompts.digest(languages) != plan.prompts_digest:
        return {}
    return {f"m4rag-question-{code}": prompts.question_template(code) for code in languages}


def register_prompt(client: MlflowClient, name: str, template: str) -> PromptVersion:
    """The version of a prompt that has this text; it is made if there is none, however often this is called."""
    text_digest = digest(template)
    for version in _versions(client, name):
        if version.tags.get(TEXT_DIGEST) == text_digest:
            return version
    made: PromptVersion = client.register_prompt(name, template, tags={TEXT_DIGEST: text_digest})
    return made


def linked(versions: Iterable[PromptVersion]) -> str:
    """Value of the tag `LINKED`, by which MLflow shows a run's prompts and a prompt's runs.

    MLflow's own call for it writes into the store of its environment, not into that of the client.
    """
    return json.dumps([{"name": version.name, "version": str(version.version)} for version in versions])


def _versions(client: MlflowClient, name: str) -> list[PromptVersion]:
    if not client.search_prompts(f"name = '{name}'"):
        return []
    return list(client.search_prompt_versions(name))
