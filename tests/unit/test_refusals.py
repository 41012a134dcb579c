"""What is made of the API server's answers, in its own words (Kubernetes 1.20 to 1.34)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from m4rag.deploy.cluster import pruned
from m4rag.deploy.preflight import quantity
from m4rag.deploy.refusals import Again, Denied, Gone, NotFound, refusal
from m4rag.errors import BadData, CheckFailed, M4ragError, Unavailable


def answer(code: int, message: str, causes: list[dict[str, str]] | None = None) -> M4ragError:
    from kubernetes.client import ApiException

    error = ApiException(status=code, reason="what HTTP says")
    error.body = json.dumps({"kind": "Status", "message": message, "details": {"causes": causes or []}})
    return refusal(error, "InferenceService qwen", "https://api")


def test_a_denied_verb_is_named_with_account_resource_and_place() -> None:
    error = answer(
        403,
        'pods is forbidden: User "system:serviceaccount:m4rag:pipeline-runner" cannot list resource "pods" in API '
        'group "" in the namespace "m4rag"',
    )
    assert isinstance(error, Denied)
    assert error.what == "system:serviceaccount:m4rag:pipeline-runner may not list pods in namespace m4rag"
    clusterwide = answer(403, 'User "u" cannot list resource "nodes" in API group "" at the cluster scope')
    assert clusterwide.what == "u may not list nodes in the whole cluster"


def test_what_admission_says_is_kept() -> None:
    error = answer(403, 'admission webhook "v.kserve" denied the request: no such runtime')
    assert isinstance(error, CheckFailed)
    assert "no such runtime" in error.what


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, BadData), (401, Unavailable), (404, NotFound), (410, Gone), (422, BadData), (418, Unavailable)]
    + [(code, Again) for code in (429, 500, 503, 504)],
)
def test_each_status_has_its_kind(code: int, kind: type[M4ragError]) -> None:
    assert type(answer(code, "words")) is kind


def test_a_conflict_of_versions_is_tried_again_and_one_of_owners_is_not() -> None:
    assert isinstance(answer(409, "the object has been modified"), Again)
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "keda" using serving.kserve.io/v1beta1',
        "field": ".spec.predictor.minReplicas",
    }
    error = answer(409, "Apply failed with 1 conflict", [cause])
    assert isinstance(error, CheckFailed)
    assert ".spec.predictor.minReplicas belongs to `keda`" in error.what


def test_a_body_that_is_no_status_is_survived() -> None:
    from kubernetes.client import ApiException

    error = ApiException(status=502, reason="Bad Gateway")
    error.body = "<html>proxy</html>"
    assert "Bad Gateway" in str(refusal(error, "pods", "https://api"))


@pytest.mark.parametrize(
    ("sent", "kept", "missing"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, [".a.c"]),
        ({"l": [{"name": "x", "p": 1}]}, {"l": [{"name": "w"}, {"name": "x"}]}, [".l[0].p"]),
        ({"l": [{"name": "x", "p": 1}]}, {"l": [{"name": "w"}, {"name": "x", "p": 1}]}, []),
        ({"l": ["a", {"b": 1}]}, {"l": ["a", {}]}, [".l[1].b"]),
        ({"e": {}, "n": None}, {}, []),
        ({"a": {"b": 1}}, {"a": "text"}, [".a"]),
    ],
)
def test_dropped_fields_are_found(sent: Any, kept: Any, missing: list[str]) -> None:
    assert pruned(sent, kept) == missing


def test_quantities() -> None:
    assert [str(quantity(text)) for text in ("500m", "8", "2k")] == ["0.500", "8", "2000"]
    assert quantity("64Gi") == 64 * 2**30
    for text in ("", "x", "1Q", "Gi"):
        with pytest.raises(ValueError, match="not a quantity"):
            quantity(text)
