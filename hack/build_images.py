"""Build m4rag's container images with Docker (buildx) or Podman; with REGISTRY set, push them and print their digests.

Usage: build_images.py   (`make images`)

Reads from the environment:
    PYTHON_IMAGE        the base: python:3.11-slim@sha256:...
    VLLM_IMAGE          the base: vllm/vllm-openai:<version>@sha256:...; without it that image is not built
    REGISTRY            where to push to; without it the images stay on this machine, under ghcr.io/m4rag
    SOURCE_DATE_EPOCH   time of every file in them; default that of the commit
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
HOME_REGISTRY = "ghcr.io/m4rag"
BY_DIGEST = re.compile(r"[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}", re.ASCII)

Engine = Literal["docker", "podman"]


@dataclass(frozen=True)
class Image:
    """An image that is built.

    Attributes:
        name: Its name in the registry.
        file: Its Dockerfile.
        target: The stage that becomes it.
        bases: Environment variables and build arguments that name its base images.
    """

    name: str
    file: str
    target: str
    bases: tuple[str, ...]


IMAGES = (
    Image("m4rag-python", "images/Dockerfile", "component", ("PYTHON_IMAGE",)),
    Image("m4rag-endpoint", "images/Dockerfile", "endpoint", ("PYTHON_IMAGE",)),
    Image("m4rag-vllm", "images/vllm.Dockerfile", "vllm", ("PYTHON_IMAGE", "VLLM_IMAGE")),
)


@dataclass(frozen=True)
class Source:
    """What is built.

    Attributes:
        version: m4rag's.
        vllm: Version of vLLM that the table of models was reviewed for.
        revision: Commit, with `-dirty` behind it if files differ from it.
        epoch: Seconds since 1970, the time of every file.
    """

    version: str
    vllm: str
    revision: str
    epoch: int


def main() -> None:
    bases = base_images(os.environ)
    engine = installed_engine()
    source = read_source(ROOT, os.environ)
    registry = os.environ.get("REGISTRY", "").rstrip("/")
    for image in IMAGES:
        if not bases.keys() >= set(image.bases):
            print(f"{image.name}: not built, there is no VLLM_IMAGE", file=sys.stderr)
            continue
        print(build(engine, image, bases, source, registry))


def base_images(environment: Mapping[str, str]) -> dict[str, str]:
    """The base images that are named, each by digest."""
    named = {name: environment[name] for name in ("PYTHON_IMAGE", "VLLM_IMAGE") if environment.get(name)}
    for name, example in (("PYTHON_IMAGE", "python:3.11-slim"), ("VLLM_IMAGE", f"vllm/vllm-openai:v{vllm_version()}")):
        told = named.get(name, "")
        if (told or name == "PYTHON_IMAGE") and not BY_DIGEST.fullmatch(told):
            sys.exit(
                f"error: {name}={told}: not an image by digest. `docker buildx imagetools inspect {example}` shows "
                f"the digest; then: make images {name}={example}@sha256:..."
            )
    return named


def installed_engine() -> Engine:
    """Docker if it has buildx, else Podman."""
    buildx = ["docker", "buildx", "version"]
    if shutil.which("docker") and subprocess.run(buildx, check=False, capture_output=True).returncode == 0:
        return "docker"
    if shutil.which("podman"):
        return "podman"
    sys.exit("error: no engine to build images with. Install Docker with its buildx plugin, or Podman.")


def read_source(root: Path, environment: Mapping[str, str]) -> Source:
    """Version, commit and time of what lies in `root`."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    version = re.search(r'__version__ = "(.+)"', (root / "m4rag" / "__init__.py").read_text(encoding="utf-8"))
    if version is None:
        sys.exit("error: m4rag/__init__.py: no __version__")
    dirty = "-dirty" if git("status", "--porcelain") else ""
    epoch = environment.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return Source(version.group(1), vllm_version(), git("rev-parse", "HEAD") + dirty, int(epoch))


def vllm_version() -> str:
    """The version that pyproject.toml pins."""
    pinned = re.search(r'"vllm==(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if pinned is None:
        sys.exit("error: pyproject.toml: no vllm==")
    return pinned.group(1)


def build(engine: Engine, image: Image, bases: Mapping[str, str], source: Source, registry: str) -> str:
    """Build one image and push it where there is a registry.

    Returns:
        How it is named then: by digest where it was pushed, by tag where it was not.
    """
    name = f"{registry or HOME_REGISTRY}/{image.name}"
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "digest"
        for line in commands(engine, image, bases, source, f"{name}:{source.version}", told if registry else None):
            if status := subprocess.run(line, cwd=ROOT, check=False).returncode:
                sys.exit(status)
        return f"{name}@{pushed_digest(told.read_text())}" if registry else f"{name}:{source.version}"


def pushed_digest(told: str) -> str:
    """The digest in what the engine wrote: Docker's metadata in JSON, Podman's bare digest."""
    return str(json.loads(told)["containerimage.digest"]) if told.startswith("{") else told.strip()


def commands(
    engine: Engine, image: Image, bases: Mapping[str, str], source: Source, tag: str, digest: Path | None
) -> list[Sequence[str]]:
    """What to run to build one image.

    Args:
        engine: Which engine runs it.
        image: The image.
        bases: Base images by build argument.
        source: What is built.
        tag: Its name and tag.
        digest: File for its digest; None if it is not pushed.
    """
    arguments = {name: bases[name] for name in image.bases} | {
        "VERSION": source.version,
        "REVISION": source.revision,
        "CREATED": datetime.fromtimestamp(source.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SOURCE_DATE_EPOCH": str(source.epoch),
    }
    if "VLLM_IMAGE" in image.bases:
        arguments["VLLM_VERSION"] = source.vllm
    told = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    what = ["--file", image.file, "--target", image.target, *told]
    if engine == "podman":
        made = ["podman", "build", *what, "--timestamp", str(source.epoch)]
        push = [["podman", "push", "--digestfile", str(digest), tag]] if digest else []
        return [[*made, "--tag", tag, "."], *push]
    made = ["docker", "buildx", "build", *what]
    if digest is None:
        return [[*made, "--tag", tag, "--load", "."]]
    output = f"type=image,name={tag},push=true,rewrite-timestamp=true"
    # Beside the list of Python packages inside: the system's packages and how it was built, as attestations.
    proofs = ["--sbom=true", "--provenance=mode=max"]
    return [[*made, "--output", output, *proofs, "--metadata-file", str(digest), "."]]


if __name__ == "__main__":
    main()
