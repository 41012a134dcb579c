"""Names, labels and times of what m4rag puts on a cluster. Whatever carries `MANAGED` may be removed by m4rag."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from m4rag.errors import BadData, UsageError

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "m4rag"
MANAGED = f"{MANAGED_BY}={MANAGER}"
"""Selects everything that m4rag put there."""

RUN = "m4rag.io/run"
"""Label: the run that something belongs to."""
MODEL = "m4rag.io/model"
"""Label: name of the model in the catalogue."""
SPEC = "m4rag.io/spec"
"""Annotation: hash of what was asked for. KServe copies it to the pods, so old and new ones can be told apart."""
EXPIRES_AT = "m4rag.io/expires-at"
"""Annotation: RFC 3339 time after which it may be removed by anybody."""

NAME_LENGTH = 45
"""KServe and the gateway append up to 18 characters (`-predictor`, hashes of replica sets) and 63 are a label."""

LABEL_LENGTH = 63
DIGEST_LENGTH = 8
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
FOREIGN = re.compile(r"[^a-z0-9]+")


def service_name(base: str, run_id: str) -> str:
    """A service's name for one run: readable, at most 45 characters, the same for the same run.

    Args:
        base: What it serves, for people: a model's name.
        run_id: What makes it this one's own; two runs never share a name.

    Returns:
        `<base>-<8 hex digits over base and run>`, a DNS-1123 label that starts with a letter.
    """
    return f"{_slug(base, NAME_LENGTH - DIGEST_LENGTH - 1)}-{_short(base, run_id)}"


def check_name(name: str) -> str:
    """A service's name as somebody chose it.

    Raises:
        UsageError: Kubernetes or KServe would refuse it.
    """
    if len(name) > NAME_LENGTH or not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't name a service",
            remedy=f"Use lower-case letters, digits and hyphens, starting with a letter, at most {NAME_LENGTH}.",
        )
    return name


def label_value(text: str) -> str:
    """Text as the value of a label: itself where it is one, else what is left of it with 8 digits of its digest."""
    if len(text) <= LABEL_LENGTH and LABEL.fullmatch(text):
        return text
    return f"{_slug(text, LABEL_LENGTH - DIGEST_LENGTH - 1)}-{_short(text)}"


def labels(model: str, run: str | None) -> dict[str, str]:
    """Labels of everything that serves a model, for a run or for good."""
    made = {MANAGED_BY: MANAGER, MODEL: label_value(model)}
    return made if run is None else made | {RUN: label_value(run)}


def selector(run: str) -> str:
    """Label selector of everything that belongs to a run."""
    return f"{MANAGED},{RUN}={label_value(run)}"


def timestamp(time: datetime) -> str:
    """A time as the annotation holds it: RFC 3339, UTC, whole seconds.

    Raises:
        ValueError: The time has no zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str, where: str) -> datetime:
    """The time that an annotation holds.

    Raises:
        BadData: It is not an RFC 3339 time with a zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise BadData(
            f"{EXPIRES_AT} is {text!r}", where=where, remedy="Write a time such as 2026-11-22T18:00:00Z, or remove it."
        )
    return time


def _slug(text: str, length: int) -> str:
    """Lower-case letters, digits and hyphens, starting with a letter and ending with a letter or digit."""
    slug = FOREIGN.sub("-", text.lower()).strip("-")
    if not slug[:1].isalpha():
        slug = f"m4rag-{slug}".strip("-")
    return slug[:length].strip("-")


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
