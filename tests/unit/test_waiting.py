"""How long is waited, what is said meanwhile, and when waiting is given up: on a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from deploy_cases import (
    IS_READY,
    READY,
    Object,
    ago,
    condition,
    crashed,
    main,
    pod,
    running,
    service,
    storage,
    unscheduled,
    waiting,
)

from m4rag.deploy.causes import Category, Phase
from m4rag.deploy.observation import Sight
from m4rag.deploy.waiting import BUDGETS_S, Clock, NotReady, Readiness, wait_ready
from m4rag.errors import CheckFailed

START = datetime.now(UTC)


class Play:
    """Sights in their order, each from a second on; `wait` passes the time to the next one at most."""

    def __init__(self, *scenes: tuple[float, Sight]) -> None:
        self.time_s = 0.0
        self.looks = 0
        self._scenes = scenes
        self.clock = Clock(lambda: self.time_s, lambda: START + timedelta(seconds=self.time_s))

    def look(self) -> Sight:
        self.looks += 1
        assert self.looks < 10_000, "waiting spins"
        return [sight for since, sight in self._scenes if since <= self.time_s][-1]

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        changes = [since for since, _ in self._scenes if since > self.time_s]
        self.time_s = min([*changes, self.time_s + max(seconds, 0.001)])


def sight(status: Object | None = None, service_status: Object | None = None, *, says: Object | None = None) -> Sight:
    made = service("qwen")
    made["metadata"]["creationTimestamp"] = ago(0)
    made["status"] = service_status or {}
    pods = [] if status is None else [pod("qwen-0", status)]
    for one in pods:
        one["metadata"]["creationTimestamp"] = ago(0)
    return Sight(made, tuple(pods))


def play(*scenes: tuple[float, Sight], timeout_s: float = 7200.0) -> tuple[Play, list[str], Readiness | NotReady]:
    stage, said = Play(*scenes), []
    try:
        return stage, said, wait_ready(stage, "qwen", timeout_s=timeout_s, say=said.append, clock=stage.clock)
    except NotReady as error:
        return stage, said, error


SERVES = sight(READY, IS_READY)
UNSCHEDULED = sight(unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."))
LOADS = sight(main(running(0, started=False)))
PULLS = sight(main(waiting("ImagePullBackOff", "not found")))


def test_the_time_is_told_by_phase() -> None:
    _, said, ready = play((0, sight()), (5, UNSCHEDULED), (65, sight(storage(running()))), (265, LOADS), (565, SERVES))
    assert isinstance(ready, Readiness)
    assert ready.seconds == {
        Phase.ACCEPTANCE: 5.0,
        Phase.SCHEDULING: 60.0,
        Phase.STORAGE: pytest.approx(200),
        Phase.LOADING: pytest.approx(300),
    }
    assert [one["metadata"]["name"] for one in ready.pods] == ["qwen-0"]
    assert any("not enough nvidia.com/gpu" in line for line in said)


def test_a_line_is_said_every_thirty_seconds() -> None:
    _, said, _ = play((0, LOADS), (300, SERVES))
    assert len(said) == 10
    assert said[0].startswith("[0 s] pod qwen-0 loads the model")
    assert said[-1].startswith("[4 min 30 s]")


def test_many_changes_of_one_kind_are_one_line() -> None:
    _, said, _ = play(*[(float(second), LOADS) for second in range(25)], (25, SERVES))
    assert len(said) == 1


def test_what_cannot_get_better_is_not_waited_for() -> None:
    stage, said, error = play((0, sight(main(crashed(3, 1, message="ValueError: no\n")))), (9999, SERVES))
    assert isinstance(error, NotReady)
    assert error.diagnosis.category is Category.CRASH_LOOP
    assert stage.time_s == 0
    assert "ValueError: no" in "\n".join(said)
    assert error.exit_code == 1
    assert str(error).endswith(error.diagnosis.resolution)


@pytest.mark.parametrize(
    ("scene", "category", "seconds"),
    [
        (PULLS, Category.IMAGE_PULL_FAILED, 180),
        (sight(main(waiting("CreateContainerConfigError", "no secret"))), Category.CONTAINER_CONFIG, 60),
        (UNSCHEDULED, Category.UNSCHEDULABLE_RESOURCE, BUDGETS_S[Phase.SCHEDULING]),
        (LOADS, Category.LOADING, BUDGETS_S[Phase.LOADING]),
        (sight(READY, {"conditions": [condition("IngressReady", "False")]}), Category.ROUTE_NOT_READY, 600),
        (sight(), Category.WAITING_FOR_CONTROLLER, BUDGETS_S[Phase.ACCEPTANCE]),
    ],
    ids=lambda value: str(value) if isinstance(value, Category) else "",
)
def test_each_state_has_its_patience(scene: Sight, category: Category, seconds: float) -> None:
    stage, _, error = play((0, scene), (99_999, SERVES), timeout_s=50_000)
    assert isinstance(error, NotReady)
    assert error.diagnosis.category is category
    assert stage.time_s == pytest.approx(seconds, abs=0.1)


def test_patience_begins_anew_with_each_visit_and_budgets_do_not() -> None:
    visits = [(100.0 * number, PULLS if number % 2 == 0 else LOADS) for number in range(40)]
    stage, _, error = play(*visits)
    assert isinstance(error, NotReady)
    assert error.diagnosis.category is Category.IMAGE_PULL_FAILED
    assert str(error).split("; ")[1].startswith("the budget for image is 15 min")
    assert stage.time_s == pytest.approx(1800)  # it had its 900 s at 1700, when it was loading again


def test_all_phases_together_have_a_limit() -> None:
    stage, _, error = play((0, LOADS), (200, SERVES), timeout_s=100)
    assert isinstance(error, NotReady)
    assert "the time for all of it is 100 s" in str(error)
    assert stage.time_s == pytest.approx(100)


def test_a_slow_rollout_by_kserves_own_deadline_goes_on() -> None:
    slow = {"conditions": [condition("PredictorReady", "False", reason="ProgressDeadlineExceeded")]}
    _, _, ready = play((0, LOADS), (650, sight(main(running(0, started=False)), slow)), (1500, SERVES))
    assert isinstance(ready, Readiness)


def test_a_service_that_is_deleted_meanwhile_is_not_waited_for() -> None:
    stage = Play((0, LOADS), (10, Sight(None, ())))
    with pytest.raises(CheckFailed, match="deleted while"):
        wait_ready(stage, "qwen", timeout_s=100, say=lambda _: None, clock=stage.clock)
