"""What is said of a service, from its objects alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from deploy_cases import HASH, READY, ago, cases, crashed, main, objects, pod, running, service

from m4rag.deploy.causes import PHASES, RESOLUTIONS, Category, Level
from m4rag.deploy.diagnosis import applied_at, diagnose
from m4rag.deploy.pods import wanted_logs


def created(thing: dict[str, object]) -> dict[str, object]:
    """What the API server adds."""
    return {**thing, "metadata": {**thing["metadata"], "creationTimestamp": ago(30)}}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", cases())
def test_what_is_said(name: str) -> None:
    case = cases()[name]
    made, pods, events = objects(case, "qwen")
    found = diagnose(created(made), [created(one) for one in pods], [created(one) for one in events], datetime.now(UTC))
    assert (found.category, found.level) == (case.category, case.level), found
    for words in case.says:
        assert words in found.summary
    assert "\n" not in found.summary
    if found.level in {Level.STUCK, Level.FAILED}:
        assert found.resolution, "what to do about it is not said"


def test_every_category_is_in_the_table() -> None:
    covered = {case.category for case in cases().values()} | {Category.DELETING, Category.PROGRESSING}
    assert set(Category) == covered
    assert set(PHASES) == set(Category)
    assert set(RESOLUTIONS) <= set(Category)


def test_a_service_on_its_way_out() -> None:
    made = created(service("qwen"))
    made["metadata"]["deletionTimestamp"] = ago(10)  # type: ignore[index]
    assert diagnose(made, [created(pod("p", READY))], [], datetime.now(UTC)).category is Category.DELETING


def test_a_silent_controller_is_a_problem_after_a_minute() -> None:
    made = {**service("qwen"), "metadata": {**service("qwen")["metadata"], "creationTimestamp": ago(90)}}
    found = diagnose(made, [], [], datetime.now(UTC))
    assert (found.category, found.level) == (Category.WAITING_FOR_CONTROLLER, Level.STUCK)
    assert "kserve" in found.resolution


def test_too_few_replicas_are_progress() -> None:
    made = created(service("qwen"))
    made["spec"]["predictor"]["minReplicas"] = 2  # type: ignore[index]
    found = diagnose(made, [created(pod("p", READY))], [], datetime.now(UTC))
    assert (found.category, found.summary) == (Category.PROGRESSING, "qwen has 1 of 2 pods")


def test_the_last_change_of_ours_counts_and_not_that_of_a_controller() -> None:
    made = created(service("qwen"))
    made["metadata"]["managedFields"] = [  # type: ignore[index]
        {"manager": "m4rag", "time": "2026-11-22T10:00:00Z"},
        {"manager": "kserve", "time": "2026-11-22T11:00:00Z"},
        {"manager": "m4rag", "time": "2026-11-22T12:00:00Z", "subresource": "status"},
    ]
    made["metadata"]["creationTimestamp"] = "2026-11-22T09:00:00Z"  # type: ignore[index]
    assert applied_at(made) == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_the_log_of_the_run_that_crashed_is_wanted_and_told() -> None:
    crashing = created(pod("p", main(crashed(3, 1))))
    assert wanted_logs([crashing]) == [("p", "kserve-container", True)]
    lines = "\n".join(["line"] * 20 + ["ValueError: the model is too long", "INFO exit"])
    logs = {("p", "kserve-container"): lines}
    found = diagnose(created(service("qwen")), [crashing], [], datetime.now(UTC), logs)
    assert "ValueError: the model is too long" in found.summary
    assert found.detail.splitlines()[-1] == "INFO exit"
    assert len(found.detail.splitlines()) == 8


def test_the_worst_pod_decides() -> None:
    made = created(service("qwen"))
    pods = [created(pod("well", READY)), created(pod("ill", main(crashed(3, 1)), spec_hash=HASH))]
    assert diagnose(made, pods, [], datetime.now(UTC)).category is Category.CRASH_LOOP


def test_a_sidecar_downloads_nothing() -> None:
    loading = pod("p", main(running(10, started=False)))
    loading["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    loading["status"]["initContainerStatuses"][0] |= running(3000)
    assert diagnose(created(service("qwen")), [created(loading)], [], datetime.now(UTC)).category is Category.LOADING
