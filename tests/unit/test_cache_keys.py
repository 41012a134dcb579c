"""What the cache looks at, for pipelines that kfp compiles here."""

from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl, kubernetes

from pipelines.cache_keys import CacheKey, cache_keys
from pipelines.ir import read

PINNED = "example.org/m4rag-python@sha256:" + "0" * 64
TAGGED = "example.org/m4rag-python:1.0"


@dsl.component(base_image=PINNED, install_kfp_package=False)
def make(out: dsl.Output[dsl.Dataset], source: str = "") -> None:
    pass


@dsl.component(base_image=PINNED, install_kfp_package=False)
def use(data: dsl.Input[dsl.Dataset], out: dsl.Output[dsl.Dataset]) -> None:
    pass


@dsl.component(base_image=TAGGED, install_kfp_package=False)
def tagged(source: str = "") -> None:
    pass


@dsl.pipeline(name="inner")
def inner() -> dsl.Dataset:
    return make(source="x").set_caching_options(False).outputs["out"]


def keys(pipeline: Any, folder: Path) -> dict[str, CacheKey]:
    path = folder / "p.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return {key.task: key for key in cache_keys(read(path))}


def warnings(task: Any, folder: Path) -> tuple[str, ...]:
    @dsl.pipeline(name="p")
    def p() -> None:
        task()

    (key,) = keys(p, folder).values()
    return key.warnings


def test_a_pinned_step_with_plain_inputs_has_no_warning(tmp_path: Path) -> None:
    assert warnings(lambda: make(source="x"), tmp_path) == ()


def test_the_key_names_inputs_and_where_they_come_from(tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(corpus: str = "sample") -> None:
        use(data=make(source=corpus).outputs["out"])
        make(source="fixed")

    found = keys(p, tmp_path)
    assert found["make"].inputs == ("source <- parameter corpus",)
    assert found["make-2"].inputs == ('source <- "fixed"',)
    assert found["use"].inputs == ("data <- make.out (artifact id)",)
    assert found["make"].source == found["make-2"].source != found["use"].source
    assert not found["use"].warnings


def test_a_tag_may_move(tmp_path: Path) -> None:
    (warning,) = warnings(lambda: tagged(source="x"), tmp_path)
    assert warning == f"image {TAGGED} is no digest: another image under this name has the same key"


def environment(task: Any) -> Any:
    kubernetes.use_secret_as_env(task, "m4rag", {"token": "MILVUS_TOKEN"})
    return task.set_env_variable("MILVUS_URI", "http://milvus")


@pytest.mark.parametrize(
    ("task", "warning"),
    [
        (lambda: environment(make(source="x")), "environment is not in the key: MILVUS_TOKEN, MILVUS_URI"),
        (
            lambda: kubernetes.use_config_map_as_volume(make(source="x"), "settings", "/etc/m4rag"),
            "files are not in the key: /etc/m4rag",
        ),
        (
            lambda: kubernetes.mount_pvc(make(source="x"), "corpus", "/data"),
            "of volume corpus only the name is in the key: neither what is on it nor what the step wrote there",
        ),
        (
            lambda: make(source=dsl.PIPELINE_JOB_ID_PLACEHOLDER),
            "never hits: source is {{$.pipeline_job_uuid}}, another value in every run",
        ),
        (
            lambda: make(source="x").set_caching_options(True, cache_key="mine"),
            "a cache key of its own takes the place of all this, from server 2.18 on; older ones ignore it",
        ),
    ],
    ids=["environment", "files", "volume", "run id", "own key"],
)
def test_what_the_key_misses_is_said(task: Any, warning: str, tmp_path: Path) -> None:
    assert warnings(task, tmp_path) == (warning,)


def test_a_step_after_one_that_always_runs_never_hits(tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p() -> None:
        first = make(source="x").set_caching_options(False)
        second = use(data=first.outputs["out"])
        use(data=second.outputs["out"])

    found = keys(p, tmp_path)
    assert found["use"].warnings == (
        "never hits: data comes from make, which is not cached: another artifact in every run",
    )
    assert found["use-2"].warnings == ("never hits: data comes from use, which never hits itself",)
    assert not found["make"].cached
    assert not found["make"].warnings


def test_artifacts_are_followed_through_graphs(tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p() -> None:
        use(data=inner().output)

    assert keys(p, tmp_path)["use"].warnings == (
        "never hits: data comes from inner/make, which is not cached: another artifact in every run",
    )


def test_artifacts_are_followed_into_graphs(tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(often: bool = True) -> None:
        made = make(source="x").set_caching_options(False)
        with dsl.If(often == True):  # noqa: E712
            use(data=made.outputs["out"])

    assert keys(p, tmp_path)["condition-1/use"].warnings == (
        "never hits: data comes from make, which is not cached: another artifact in every run",
    )
