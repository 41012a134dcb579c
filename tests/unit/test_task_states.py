"""Tasks among the nodes of a workflow, as Argo lays them out for Kubeflow Pipelines."""

from __future__ import annotations

from kfp_graphs import container, node, workflow

from pipelines.task_states import failed, tasks


def lines(*parts: list[object]) -> list[str]:
    return [state.line for state in tasks(workflow(*parts))]


def test_drivers_pods_and_the_workflow_itself_are_no_tasks() -> None:
    assert lines(container("a", "SUCCEEDED", 1), container("b", "RUNNING", 2)) == ["a: succeeded", "b: running"]


def test_a_skipped_pod_of_a_task_that_succeeded_came_from_the_cache() -> None:
    assert lines(container("a", "SUCCEEDED", 1, pod="SKIPPED")) == ["a: succeeded, from the cache"]


def test_attempts_are_counted_and_the_last_failed_pod_is_the_culprit() -> None:
    graph = workflow(container("a", "FAILED", 1, attempts=("FAILED", "FAILED", "FAILED"), message="OOMKilled"))
    (state,) = failed(tasks(graph))
    assert (state.line, state.pod, state.message) == ("a: failed, attempt 3", "a-pod-2", "OOMKilled")


def test_a_task_that_succeeds_at_the_second_attempt_did_not_fail() -> None:
    states = tasks(workflow(container("a", "SUCCEEDED", 1, attempts=("FAILED", "SUCCEEDED"))))
    assert [state.line for state in states] == ["a: succeeded, attempt 2"]
    assert not failed(states)


def test_a_task_whose_driver_failed_failed_before_its_pod() -> None:
    graph = workflow(container("a", "SKIPPED", 1, driver="FAILED"))
    (state,) = tasks(graph)
    assert state.line == "a: failed, before its pod"
    assert failed([state])[0].pod == "a-driver"


def test_a_graph_that_failed_with_its_task_is_no_culprit() -> None:
    inner = container("judge", "FAILED", 3)
    group = [
        node("condition-1-driver", "SUCCEEDED", 1, "condition-1"),
        node("condition-1", "FAILED", 2, "judge-driver"),
    ]
    states = tasks(workflow([*group, *inner]))
    assert [state.name for state in states] == ["condition-1", "judge"]
    assert [state.name for state in failed(states)] == ["judge"]


def test_iterations_of_a_loop_are_numbered_in_the_order_of_their_start() -> None:
    loop = [
        node("for-loop-1", "RUNNING", 1, "iteration-driver"),
        node("iteration-driver", "SUCCEEDED", 1, "iteration-iterations"),
        node("iteration-iterations", "RUNNING", 1, "i0", "i1"),
        node("iteration-iterations(0:0)", "SUCCEEDED", 1, "judge-driver-0", key="i0"),
        node("iteration-iterations(1:1)", "RUNNING", 1, "judge-driver-1", key="i1"),
        *container("judge", "SUCCEEDED", 2, suffix="-0"),
        *container("judge", "RUNNING", 3, suffix="-1"),
    ]
    assert lines(loop) == ["for-loop-1: running", "judge: succeeded", "judge #2: running"]


def test_an_importer_has_no_driver_and_is_its_own_pod() -> None:
    (state,) = failed(tasks(workflow([node("importer", "FAILED", 1, "next-driver")])))
    assert state.pod == "importer"


def test_exit_tasks_are_tasks() -> None:
    hook = [node("exit-handler-1.onExit", "RUNNING", 4, "remove-vlm-driver"), *container("remove-vlm", "RUNNING", 5)]
    assert lines(hook) == ["remove-vlm: running"]
