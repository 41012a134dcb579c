"""What a pipeline needs of a server: seen in its IR, for pipelines that kfp compiles here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl, kubernetes

from pipelines import NAMES
from pipelines.compiled import compile_to
from pipelines.features import FEATURES, beyond, parse_version
from pipelines.ir import IR, read

IMAGE = "example.org/m4rag-python@sha256:" + "0" * 64


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def step(x: str = "") -> None:
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def closing(status: dsl.PipelineTaskFinalStatus) -> None:
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False, task_config_passthroughs=[dsl.TaskConfigField.RESOURCES])
def deploying(config: dsl.TaskConfig) -> None:
    pass


def compiled(body: Callable[[], Any], folder: Path, config: Any = None) -> IR:
    path = folder / "p.yaml"

    @dsl.pipeline(name="p", pipeline_config=config)
    def p() -> None:
        body()

    compiler.Compiler().compile(p, str(path))
    return read(path)


def looped() -> None:
    with dsl.ParallelFor(["a", "b"], parallelism=1) as item:
        step(x=item)


def handled() -> None:
    with dsl.ExitHandler(closing()):
        step()


CASES: dict[str, Callable[[], Any]] = {
    "time limits of steps": lambda: kubernetes.set_timeout(step(), 60),
    "config maps": lambda: kubernetes.use_config_map_as_env(step(), "m", {"a": "A"}),
    "tolerations": lambda: kubernetes.add_toleration(step(), key="gpu", operator="Exists"),
    "pod labels and annotations": lambda: kubernetes.add_pod_label(step(), "a", "b"),
    "environment from pod fields": lambda: kubernetes.use_field_path_as_env(step(), "N", "metadata.name"),
    "image pull policies": lambda: kubernetes.set_image_pull_policy(step(), "Always"),
    "image pull secrets": lambda: kubernetes.set_image_pull_secrets(step(), ["s"]),
    "ephemeral volumes": lambda: kubernetes.add_ephemeral_volume(step(), "v", "/v", ["ReadWriteOnce"], "1Gi"),
    "emptyDir volumes": lambda: kubernetes.empty_dir_mount(step(), "shm", "/dev/shm", "Memory"),
    "a limit of parallel iterations": looped,
    "node affinity": lambda: kubernetes.add_node_affinity(
        step(), match_expressions=[{"key": "gpu", "operator": "Exists"}]
    ),
    "the final status of a task": handled,
    "task configuration passed on (TaskConfig)": deploying,
    "security contexts": lambda: kubernetes.set_security_context(step(), run_as_user=1000),
    "a cache key of one's own": lambda: step().set_caching_options(True, cache_key="mine"),
}
CONFIGS = {
    "a workspace volume": dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")),
    "a time to live or deadline of the run": dsl.PipelineConfig(active_deadline_seconds=60),
}


def used(ir: IR) -> set[str]:
    return {feature.name for feature in beyond(ir, (0, 0, 0))} - {"Kubernetes settings of steps"}


@pytest.mark.parametrize("name", CASES)
def test_a_feature_is_seen_in_the_ir(name: str, tmp_path: Path) -> None:
    assert used(compiled(CASES[name], tmp_path)) == {name}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_feature_of_the_whole_pipeline_is_seen_in_the_ir(name: str, tmp_path: Path) -> None:
    assert used(compiled(step, tmp_path, CONFIGS[name])) == {name}


def test_every_feature_has_a_case() -> None:
    assert {feature.name for feature in FEATURES} == {*CASES, *CONFIGS, "Kubernetes settings of steps"}


def test_a_plain_pipeline_runs_on_any_server(tmp_path: Path) -> None:
    assert list(beyond(compiled(step, tmp_path), (0, 0, 0))) == []


def test_a_server_knows_what_came_with_its_own_release(tmp_path: Path) -> None:
    ir = compiled(CASES["security contexts"], tmp_path)
    assert list(beyond(ir, (2, 16, 0))) == []
    assert [feature.since for feature in beyond(ir, (2, 15, 2))] == [(2, 16, 0)]


@pytest.mark.parametrize("name", NAMES)
def test_our_pipelines_run_on_the_server_that_kfp_was_released_with(name: str, tmp_path: Path) -> None:
    import kfp

    version = parse_version(kfp.__version__)
    assert version is not None
    assert list(beyond(read(compile_to(name, tmp_path)), version)) == []


@pytest.mark.parametrize(
    ("tag", "version"), [("2.17.0", (2, 17, 0)), ("v2.5.0-rc.1", (2, 5, 0)), ("unknown", None), ("master", None)]
)
def test_tags_are_read_as_versions(tag: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(tag) == version
