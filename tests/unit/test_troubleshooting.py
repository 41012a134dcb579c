"""The page of messages is made of what the diagnosis really says of the table of failures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from deploy_cases import ago, cases, objects
from golden_files import check

from m4rag.deploy.causes import PHASES, RESOLUTIONS, Category, Level
from m4rag.deploy.diagnosis import Diagnosis, diagnose

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"

HEAD = """\
<!-- Made from the table of failures in tests/deploy_cases.py: make golden. -->
# What the messages of `m4rag deploy` mean

`m4rag deploy vlm` prints such a line every 30 seconds while it waits, `m4rag deploy status` prints it at any time. The
name in front is stable: scripts may match it (`--json`: `category`). What is *stuck* may resolve by itself and is
waited for within the budget of its phase; what has *failed* is given up at once.
"""


def _said(created: str) -> dict[Category, list[Diagnosis]]:
    """What is said of every case that needs somebody, by category."""
    said: dict[Category, list[Diagnosis]] = {}
    for case in cases().values():
        service, pods, events = objects(case, "qwen")
        for thing in (service, *pods, *events):
            thing["metadata"]["creationTimestamp"] = created
        found = diagnose(service, pods, events, datetime.now(UTC))
        if found.level in {Level.STUCK, Level.FAILED}:
            said.setdefault(found.category, []).append(found)
    return said


def test_golden_troubleshooting() -> None:
    said = _said(ago(30))
    sections = [HEAD]
    for category in Category:
        if not (examples := said.get(category)):
            continue
        levels = " or ".join(sorted({example.level.value for example in examples}))
        lines = [f"## {category.value}", "", f"{levels.capitalize()}, in the phase `{PHASES[category].value}`.", ""]
        lines += [f"    {summary}" for summary in dict.fromkeys(example.summary for example in examples)]
        sections.append("\n".join([*lines, "", f"**Do:** {RESOLUTIONS[category]}", ""]))
    check("\n".join(sections), PAGE)


def test_everything_that_has_a_remedy_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for category, remedy in RESOLUTIONS.items():
        if category in {Category.DELETING, Category.STOPPED, Category.WAITING_FOR_CONTROLLER}:
            continue  # nothing is wrong, or only time tells
        assert f"## {category.value}\n" in text
        assert remedy in text
