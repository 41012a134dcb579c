"""The Dockerfiles keep the project's rules, and `make images` builds only on bases that are named by digest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfiles import IMAGES, ROOT, Stage, chain, stages

DOCKERFILES = sorted(IMAGES.glob("*Dockerfile"))
TARGETS = [
    (IMAGES / "Dockerfile", "component"),
    (IMAGES / "Dockerfile", "endpoint"),
    (IMAGES / "vllm.Dockerfile", "vllm"),
]
DIGEST = "sha256:" + "0123456789abcdef" * 4
PYTHON_IMAGE = f"python:3.11-slim@{DIGEST}"
VLLM_IMAGE = f"vllm/vllm-openai:v0.32.0@{DIGEST}"

sys.path.insert(0, str(ROOT / "hack"))
import build_images  # noqa: E402

SOURCE = build_images.Source(version="1.2.3", vllm="0.32.0", revision="c0ffee", epoch=1700000000)


def every_stage() -> list[Stage]:
    return [stage for path in DOCKERFILES for stage in stages(path).values()]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold", "style", *DOCKERFILES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_base_is_a_stage_or_an_argument_without_a_default(path: Path) -> None:
    arguments = re.findall(r"^ARG (\S+)$", path.read_text().split("\nFROM ", 1)[0], re.MULTILINE)
    assert all("=" not in one for one in arguments)
    allowed = {f"${{{name}}}" for name in arguments} | stages(path).keys()
    assert {stage.base for stage in stages(path).values()} <= allowed


@pytest.mark.parametrize(("path", "target"), TARGETS, ids=lambda value: getattr(value, "name", value))
def test_an_image_runs_as_a_number_that_is_not_root(path: Path, target: str) -> None:
    users = [step.value for stage in chain(path, target) for step in stage.steps if step.word == "USER"]
    uid, gid = (int(part) for part in users[-1].split(":"))
    assert uid >= 10000 and gid >= 10000  # below are the users of nodes


@pytest.mark.parametrize(("path", "target"), TARGETS, ids=lambda value: getattr(value, "name", value))
def test_an_image_says_what_it_is_made_from(path: Path, target: str) -> None:
    labels = " ".join(step.value for stage in chain(path, target) for step in stage.steps if step.word == "LABEL")
    for name in ("title", "description", "source", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{name}=" in labels


@pytest.mark.parametrize(("path", "target"), TARGETS, ids=lambda value: getattr(value, "name", value))
def test_nothing_is_installed_in_the_stage_that_runs(path: Path, target: str) -> None:
    steps = [step for stage in chain(path, target) for step in stage.steps]
    assert not [step for step in steps if step.word == "RUN" and "install -d" not in step.value]
    assert "--from=" in " ".join(step.value for step in steps if step.word == "COPY")


def test_installs_are_checked_against_hashes_and_run_no_code_of_packages() -> None:
    found = 0
    for stage in every_stage():
        for step in stage.steps:
            for command in step.value.split("&&") if step.word == "RUN" else ():
                if "pip install" in command and "dist/*.whl" not in command:
                    found += 1
                    assert "--require-hashes" in command, command
                    assert "--only-binary :all:" in command, command
    assert found == 5


def test_nothing_comes_from_an_address_a_package_manager_of_the_system_or_the_whole_folder() -> None:
    for stage in every_stage():
        for step in stage.steps:
            assert step.word != "ADD"
            assert not re.search(r"\b(curl|wget|apt|apt-get|git)\b", step.value), step
            assert step.word != "COPY" or "." not in step.value.split()[:-1], step


def test_no_argument_or_variable_carries_a_secret() -> None:
    for stage in every_stage():
        for step in stage.steps:
            if step.word in {"ARG", "ENV"}:
                assert not re.search(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY", step.value, re.IGNORECASE), step


def test_a_build_sees_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    seen = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in every_stage()
        for step in stage.steps
        if step.word == "COPY" and not step.value.startswith("--from=")
        for source in step.value.split()[:-1]
    }
    assert copied == seen


def test_kubeflow_in_the_image_is_the_one_that_compiles() -> None:
    pinned = re.search(r'"(kfp==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned is not None
    assert f" {pinned[1]} " in (IMAGES / "Dockerfile").read_text()


def make_images(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """hack/build_images.py with nothing but git in PATH."""
    (tmp_path / "git").symlink_to("/usr/bin/git")
    script = ROOT / "hack" / "build_images.py"
    return subprocess.run(
        [sys.executable, script], env={"PATH": str(tmp_path), **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"PYTHON_IMAGE": "python:3.11-slim"},
        {"PYTHON_IMAGE": "python:3.11-slim@sha256:abc"},
        {"PYTHON_IMAGE": PYTHON_IMAGE, "VLLM_IMAGE": "vllm/vllm-openai:v0.32.0"},
    ],
    ids=["nothing", "tag", "short", "vllm by tag"],
)
def test_a_base_without_a_digest_is_refused_in_one_line(tmp_path: Path, told: dict[str, str]) -> None:
    done = make_images(tmp_path, **told)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "not an image by digest" in done.stderr and "make images" in done.stderr


def test_without_an_engine_there_is_one_line(tmp_path: Path) -> None:
    done = make_images(tmp_path, PYTHON_IMAGE=PYTHON_IMAGE)
    assert done.returncode == 1
    assert done.stderr == ("error: no engine to build images with. Install Docker with its buildx plugin, or Podman.\n")


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_build_names_its_bases_its_commit_and_its_time(engine: build_images.Engine) -> None:
    bases = {"PYTHON_IMAGE": PYTHON_IMAGE, "VLLM_IMAGE": VLLM_IMAGE}
    python, _, vllm = (
        build_images.commands(engine, image, bases, SOURCE, "m4rag:1", None)[0] for image in build_images.IMAGES
    )
    assert {f"PYTHON_IMAGE={PYTHON_IMAGE}", "REVISION=c0ffee", "CREATED=2023-11-14T22:13:20Z"} <= set(python)
    assert "SOURCE_DATE_EPOCH=1700000000" in python
    assert not any(part.startswith("VLLM_") for part in python)
    assert {f"VLLM_IMAGE={VLLM_IMAGE}", "VLLM_VERSION=0.32.0"} <= set(vllm)


@pytest.mark.parametrize("image", build_images.IMAGES, ids=lambda image: image.name)
def test_what_is_built_is_a_stage_and_each_argument_is_declared(image: build_images.Image) -> None:
    path = ROOT / image.file
    assert image.target in stages(path)
    bases = {"PYTHON_IMAGE": PYTHON_IMAGE, "VLLM_IMAGE": VLLM_IMAGE}
    line = build_images.commands("docker", image, bases, SOURCE, "m4rag:1", None)[0]
    told = {line[i + 1].split("=")[0] for i, part in enumerate(line) if part == "--build-arg"}
    assert told == set(re.findall(r"^ARG (\w+)$", path.read_text(), re.MULTILINE))


def test_pushed_images_are_named_by_digest(tmp_path: Path) -> None:
    image = build_images.IMAGES[0]
    bases = {"PYTHON_IMAGE": PYTHON_IMAGE}
    (docker,) = build_images.commands("docker", image, bases, SOURCE, "r.example/a:1", tmp_path / "digest")
    assert "type=image,name=r.example/a:1,push=true,rewrite-timestamp=true" in docker
    assert {"--sbom=true", "--provenance=mode=max"} <= set(docker)
    _, push = build_images.commands("podman", image, bases, SOURCE, "r.example/a:1", tmp_path / "digest")
    assert push == ["podman", "push", "--digestfile", str(tmp_path / "digest"), "r.example/a:1"]
    assert build_images.pushed_digest('{"containerimage.digest": "' + DIGEST + '"}') == DIGEST
    assert build_images.pushed_digest(f"{DIGEST}\n") == DIGEST


def test_the_source_is_the_commit_and_its_time(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        time = {"GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
        line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(line, check=True, capture_output=True, text=True, env=os.environ | time).stdout.strip()

    git("init", "-q")
    (tmp_path / "m4rag").mkdir()
    (tmp_path / "m4rag" / "__init__.py").write_text('__version__ = "9.8.7"\n')
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert build_images.read_source(tmp_path, {}) == build_images.Source("9.8.7", "0.32.0", commit, 1700000000)
    (tmp_path / "new").write_text("")
    changed = build_images.read_source(tmp_path, {"SOURCE_DATE_EPOCH": "5"})
    assert (changed.revision, changed.epoch) == (f"{commit}-dirty", 5)
