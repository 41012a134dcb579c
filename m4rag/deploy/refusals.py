"""What the API server's refusals mean to the user, with the verb, the field or the owner that its answer names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from m4rag.errors import BadData, CheckFailed, M4ragError, Unavailable

if TYPE_CHECKING:
    from kubernetes.client import ApiException

TRANSIENT = frozenset({429, 500, 502, 503, 504})
INVALID = frozenset({400, 413, 422})

DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
OWNER = re.compile(r'conflict with "(?P<owner>[^"]*)"')


class NotFound(Unavailable):
    """There is no such object or kind."""


class Denied(Unavailable):
    """The account may not do it."""


class Unexplained(Unavailable):
    """Forbidden, and the server does not say what."""


class Gone(Unavailable):
    """The server forgot the version asked for."""


class Again(Unavailable):
    """The server may say yes to the same request a moment later."""


def refusal(error: ApiException, subject: str, url: str) -> M4ragError:
    """The error that an answer of 400 or more stands for.

    Args:
        error: As the Kubernetes client raises it.
        subject: What the request was about, e.g. `InferenceService qwen`.
        url: The API server's address.
    """
    status = _status(error)
    message = str(status.get("message") or error.reason or "no reason given")
    if error.status == 403:
        return _denied(message, subject)
    if error.status == 409:
        return _conflict(status, message, subject)
    if error.status == 410:
        return Gone(message, where=subject)
    if error.status in INVALID:
        return BadData(_fields(status, message), where=subject, remedy="Correct what the message names.")
    return _server(error.status, message, url)


def _server(code: int, message: str, url: str) -> Unavailable:
    """Trouble with the server as a whole."""
    if code == 404:
        return NotFound(message, where=url, remedy="Check the kubeconfig's context, and what is installed there.")
    if code == 401:
        return Unavailable(
            "the API server does not accept the credentials",
            where=url,
            remedy="Log in again, or name another kubeconfig or context.",
        )
    if code in TRANSIENT:
        return Again(f"HTTP {code}: {message}", where=url, remedy="The API server is in trouble; try again later.")
    return Unavailable(f"HTTP {code}: {message}", where=url, remedy="Check the API server.")


def _denied(message: str, subject: str) -> M4ragError:
    if found := DENIED.search(message):
        resource = f"{found['resource']}.{found['group']}" if found["group"] else found["resource"]
        place = f"in namespace {found['namespace']}" if found["namespace"] else "in the whole cluster"
        return Denied(
            f"{found['user']} may not {found['verb']} {resource} {place}",
            where=subject,
            remedy=(
                f"Let a Role allow it `{found['verb']}` on `{resource}`: the chart's Roles have all that m4rag needs, "
                "and `m4rag deploy preflight` lists what is missing."
            ),
        )
    if message.rstrip().endswith("is forbidden:"):
        return Unexplained(
            "the account may not do it, and the server does not say which verb is missing",
            where=subject,
            remedy="See which with `m4rag deploy preflight`.",
        )
    # Quotas and admission webhooks answer 403 as well, in words of their own.
    return CheckFailed(f"the cluster does not admit it: {message}", where=subject, remedy="Do as the message says.")


def _conflict(status: dict[str, Any], message: str, subject: str) -> M4ragError:
    owned = [
        (found["owner"], str(cause.get("field")))
        for cause in _causes(status)
        if cause.get("reason") == "FieldManagerConflict" and (found := OWNER.search(str(cause.get("message"))))
    ]
    if not owned:
        return Again(message, where=subject, remedy="Another writer was faster; try again.")
    fields = ", ".join(f"{field} belongs to `{owner}`" for owner, field in owned)
    return CheckFailed(
        f"another manager set what m4rag wants to set: {fields}",
        where=subject,
        remedy="Leave the field out here, or let its owner give it up.",
    )


def _fields(status: dict[str, Any], message: str) -> str:
    """The server's complaint by field, where it names fields."""
    named = [f"{cause['field']}: {cause.get('message')}" for cause in _causes(status) if cause.get("field")]
    return "; ".join(dict.fromkeys(named)) or message


def _causes(status: dict[str, Any]) -> list[dict[str, Any]]:
    causes = (status.get("details") or {}).get("causes")
    return causes if isinstance(causes, list) else []


def _status(error: ApiException) -> dict[str, Any]:
    """The Status object in an error's body, {} where there is none."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
