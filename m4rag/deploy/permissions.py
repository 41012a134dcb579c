"""What each service account may do: `permissions.yaml`, one source for the chart's Roles, preflight and tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from m4rag.errors import UsageError

TABLE = Path(__file__).parent / "permissions.yaml"


class Rule(BaseModel):
    """Verbs on resources of a group, and which calls need them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str


@lru_cache(maxsize=1)
def table() -> dict[str, tuple[Rule, ...]]:
    """The rules of every account."""
    import yaml

    content = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {account: tuple(Rule.model_validate(rule) for rule in rules) for account, rules in content.items()}


def rules(account: str) -> tuple[Rule, ...]:
    """The rules of an account.

    Raises:
        UsageError: There is none of that name.
    """
    if account not in table():
        raise UsageError(f"no account {account!r}", remedy=f"Choose of {', '.join(table())}.")
    return table()[account]
