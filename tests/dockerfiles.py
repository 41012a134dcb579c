"""Dockerfiles as steps, and their build steps run in a folder instead of a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "images"

ABSOLUTE = re.compile(r"(?<![\w./$}-])/(?=(?:opt|source|packages|home|etc)\b)")
MOUNT = re.compile(r"--mount=\S+\s+")
STAGE = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)


class StepFailed(Exception):
    """A RUN whose command failed."""


@dataclass(frozen=True)
class Step:
    """One instruction, lines joined."""

    word: str
    value: str


@dataclass(frozen=True)
class Stage:
    """A stage: its name, what it is from, its steps."""

    name: str
    base: str
    steps: tuple[Step, ...]

    def last(self, word: str) -> str | None:
        return next((step.value for step in reversed(self.steps) if step.word == word), None)


def stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in order."""
    parser = DockerfileParser(fileobj=path.open("rb"))
    found: dict[str, list[Step]] = {}
    bases: dict[str, str] = {}
    name = None
    for entry in parser.structure:
        step = Step(entry["instruction"], entry["value"])
        if step.word == "FROM":
            match = STAGE.fullmatch(step.value)
            assert match is not None, step
            name = match["name"] or str(len(found))
            found[name], bases[name] = [], match["base"]
        elif name is not None and step.word != "COMMENT":
            found[name].append(step)
    return {name: Stage(name, bases[name], tuple(steps)) for name, steps in found.items()}


def chain(path: Path, target: str) -> list[Stage]:
    """The stages that `target` is made of by FROM, the first one first."""
    named = stages(path)
    made = [named[target]]
    while made[0].base in named:
        made.insert(0, named[made[0].base])
    return made


def build(path: Path, target: str, root: Path, python: Path, **arguments: str) -> None:
    """Run the steps of a stage and of those it is from below `root`, with `python`'s folder first in PATH.

    COPY takes from the working tree; `--from` is not followed.

    Raises:
        StepFailed: The command that failed and what it printed.
    """
    environment = {**os.environ, **arguments, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"):
        environment.pop(name, None)
    where = root
    for stage in chain(path, target):
        for step in stage.steps:
            if step.word == "WORKDIR":
                where = root / step.value.lstrip("/")
                where.mkdir(parents=True, exist_ok=True)
            elif step.word == "ENV":
                environment |= dict(pair.split("=", 1) for pair in step.value.split())
            elif step.word == "COPY":
                copy(step.value, where)
            elif step.word == "RUN":
                run(step.value, where, root, environment)


def copy(value: str, where: Path) -> None:
    *sources, target = value.split()
    for source in sources:
        place = where / target / Path(source).name if target.endswith("/") else where / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / source, place)


def run(value: str, where: Path, root: Path, environment: Mapping[str, str]) -> None:
    command = ABSOLUTE.sub(f"{root}/", MOUNT.sub("", value))
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise StepFailed(f"{command}\n{done.stdout}")
