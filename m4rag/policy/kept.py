"""The policies in a run's folder: those that were fitted on its very answers."""

from __future__ import annotations

from pathlib import Path

from m4rag.errors import BadData
from m4rag.manifests import Manifest
from m4rag.policy.model import Policy

PATTERN = "policy-*.json"


def policy_files(folder: Path) -> list[Path]:
    """The policy files of a run folder, by name; there may be none."""
    return sorted(folder.glob(PATTERN))


def read_kept(path: Path) -> Policy:
    """Read one of a run's own policies.

    Raises:
        BadData: It is damaged or was changed, or was fitted on other answers than those beside it.
    """
    policy = Policy.read(path)
    inputs = policy.evidence.inputs
    if any(inputs.get(name) != Manifest.read(path.parent / name).digest for name in ("questions", "answers")):
        remedy = f"Fit it again: m4rag policy fit {path.parent} --setting {policy.setting}."
        raise BadData("fitted on other answers than those of this run", where=str(path), remedy=remedy)
    return policy
