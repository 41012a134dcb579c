"""Start vLLM on this machine, on a GPU or on the CPU, and stop all of it.

Two kinds of server: `start` ties it to this process, however that ends; `up` leaves it running in the background
until `down`, with its address in `<home>/vlm.json`. Both listen on the loopback interface only.

A server started with `runner="pooling"` makes embeddings of texts and images from the same checkpoint (the last
token's hidden state, unit length). `POST <url>/embeddings` takes either a list of texts,

    {"model": "<name>", "input": ["...", "..."], "encoding_format": "base64"}

or one message, whose parts are embedded together; `image_url` takes a `data:` URL, and either part may be left out:

    {"model": "<name>", "encoding_format": "base64", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}},
        {"type": "text", "text": "..."}]}]}

The vector is `data[i].embedding`: base64 of little-endian float32, or a list of floats without `encoding_format`. The
message form goes through the checkpoint's chat template and the list form does not, so the same text gives two
different vectors: embed queries and documents in the same form. `dimensions` is refused unless the checkpoint
declares itself Matryoshka.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from m4rag.errors import BadData, Unavailable, UsageError
from m4rag.manifests import write_atomic
from m4rag.vlm import guard
from m4rag.vlm.client import error_message
from m4rag.vlm.engine import HOST, Runner, command, environment
from m4rag.vlm.failures import explain, last_error

__all__ = ["Background", "Runner", "VllmServer", "answers", "down", "explain", "start", "status", "up"]

Progress = Callable[[int], None]
"""Called about once a second with the whole seconds waited since the last call."""

WAIT_S = 300.0
PROBE_S = 120.0
KV_CACHE_GIB = 0.5
LOG_TAIL_BYTES = 256 * 1024
STATE = "vlm.json"
DIRECT = build_opener(ProxyHandler({}))  # a proxy has no business on the loopback interface


@dataclass(frozen=True)
class VllmServer:
    """A running server. Use it in `with`, or call `stop`; it also stops when this process ends or forgets it.

    Attributes:
        url: OpenAI-compatible base URL, ending in `/v1`.
        model: Name that requests use for the model.
        pid: Leader of the server's process group; equals the group's id.
        log: File that takes everything the server prints.
    """

    url: str
    model: str
    pid: int
    log: Path
    _process: subprocess.Popen[bytes] = field(repr=False, compare=False)
    _lifeline: IO[bytes] = field(repr=False, compare=False)

    def running(self) -> bool:
        """Whether the server's processes are still there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End every process of the server; returns when they are gone. Stopping twice is harmless."""
        self._lifeline.close()  # the guard takes this as its order to stop the group
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=guard.GRACE_S + 5)
        guard.stop_group(self.pid, grace_s=0)  # only if somebody killed the guard itself
        self._process.wait()

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()


def start(
    model: Path | str,
    *,
    log: Path,
    served_name: str,
    runner: Runner = "generate",
    port: int | None = None,
    max_model_len: int | None = None,
    kv_cache_gib: float = KV_CACHE_GIB,
    gpu_memory: float | None = None,
    wait_s: float = WAIT_S,
    progress: Progress | None = None,
) -> VllmServer:
    """Start a server and wait until it has answered a request with an image.

    Args:
        model: Checkpoint folder, or a hub id where a hub can be reached.
        log: File for the server's output, overwritten.
        served_name: Name that requests use for the model.
        runner: `generate` for chat completions, `pooling` for embeddings, `token_pooling` for a vector of every token.
        port: Port on the loopback interface, None for any that is free.
        max_model_len: Context window in tokens; None takes the model's own, or as much as the KV cache holds.
        kv_cache_gib: GiB of memory for the KV cache, on a CPU.
        gpu_memory: Share of the GPU's memory to take, 0-1; None leaves it to vLLM (0.92).
        wait_s: Seconds until a server that does not answer is given up.
        progress: Called while waiting.

    Raises:
        Unavailable: vLLM is not installed, or the server did not start; says why as far as its log tells.
    """
    for attempt in (1, 2):
        chosen = _free_port(port)
        line = command(
            model,
            served_name,
            chosen,
            runner,
            max_model_len=max_model_len,
            kv_cache_gib=kv_cache_gib,
            gpu_memory=gpu_memory,
        )
        server = _launch(line, environment(model), f"http://{HOST}:{chosen}/v1", served_name, log)
        try:
            _wait(server, runner, wait_s, progress)
            return server
        except BaseException as error:
            server.stop()
            # Between our look and vLLM's bind, another program may take a free port.
            if not (isinstance(error, _PortTaken) and port is None and attempt == 1):
                raise
    raise AssertionError("the second attempt returns or raises")


class _PortTaken(Unavailable):
    """The port was free a moment ago."""


def _free_port(port: int | None) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does: a port just left is free
        try:
            probe.bind((HOST, port or 0))
        except (OSError, OverflowError) as error:
            raise Unavailable(
                f"the port cannot be used ({getattr(error, 'strerror', None) or error})",
                where=f"{HOST}:{port}",
                remedy="Name another with --port, or stop what listens there.",
            ) from None
        return int(probe.getsockname()[1])


def _launch(line: list[str], variables: dict[str, str], url: str, served_name: str, log: Path) -> VllmServer:
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    lifeline = os.fdopen(writing, "wb", buffering=0)
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(reading), *line],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=[reading],
                start_new_session=True,
            )
    except BaseException:
        lifeline.close()
        raise
    finally:
        os.close(reading)
    return VllmServer(url, served_name, process.pid, log, process, lifeline)


def _wait(server: VllmServer, runner: Runner, wait_s: float, progress: Progress | None) -> None:
    """Until the server answered a request with an image; raises if it ends or takes too long."""
    began = time.monotonic()
    told = 0
    while not answers(server.url):
        waited = time.monotonic() - began
        if not server.running():
            raise _failure(server)
        if waited > wait_s:
            raise Unavailable(
                f"the model did not answer within {wait_s:g} s",
                where=str(server.log),
                remedy="Read the log; wait longer if it was still loading.",
            )
        if progress is not None and int(waited) > told:
            progress(int(waited) - told)
            told = int(waited)
        time.sleep(0.25)
    _probe(server, runner)


def answers(url: str) -> bool:
    """Whether a server at a base URL says that it is well."""
    try:
        with DIRECT.open(f"{url.removesuffix('/v1')}/health", timeout=5) as response:
            return int(response.status) == 200
    except OSError:
        return False


def _probe(server: VllmServer, runner: Runner) -> None:
    """Have the model answer once with an image: only then vision tower, processor and template have proved to work."""
    messages = [{"role": "user", "content": [_sample_image(), {"type": "text", "text": "What is this?"}]}]
    body: dict[str, Any] = {"model": server.model, "messages": messages}
    address = f"{server.url}/embeddings"
    if runner == "generate":
        address = f"{server.url}/chat/completions"
        body |= {"max_tokens": 1, "temperature": 0}
    elif runner == "token_pooling":
        address = f"{server.url.removesuffix('/v1')}/pooling"
    request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own address
    try:
        with DIRECT.open(request, timeout=PROBE_S) as response:
            response.read()
    except HTTPError as error:
        raise Unavailable(
            f"the model started but refuses a request with an image ({error_message(error.read().decode())})",
            where=str(server.log),
            remedy="Name a vision-language model with an image processor and a chat template.",
        ) from None
    except OSError as error:
        if not server.running():
            raise _failure(server) from None
        raise Unavailable(
            f"the model started but does not answer a request with an image ({error})", where=str(server.log)
        ) from None


def _sample_image() -> dict[str, Any]:
    from PIL import Image

    from m4rag.vlm.images import read_image

    buffer = BytesIO()
    Image.new("RGB", (112, 112), "teal").save(buffer, "PNG")
    return {"type": "image_url", "image_url": {"url": read_image(buffer.getvalue()).data_url}}


def _failure(server: VllmServer) -> Unavailable:
    with server.log.open("rb") as stream:
        stream.seek(max(0, server.log.stat().st_size - LOG_TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    status = server._process.returncode
    if status == 128 + 9:
        text += "\nKilled\n"
    cause = explain(text) or last_error(text) or f"it ended with status {status} and gave no reason"
    kind = _PortTaken if "already in use" in cause else Unavailable
    return kind(f"vLLM did not start: {cause}", where=str(server.log))


@dataclass(frozen=True)
class Background:
    """A server that `up` left running.

    Attributes:
        url: OpenAI-compatible base URL, ending in `/v1`.
        model: Name that requests use for the model.
        checkpoint: What was loaded: a folder or a hub id.
        pid: Leader of the server's process group.
        started: When that process began, as the kernel counts; tells it from a later process with the same number.
        log: File that takes everything the server prints.
    """

    url: str
    model: str
    checkpoint: str
    pid: int
    started: str
    log: str


def up(
    home: Path,
    model: Path | str,
    served_name: str,
    port: int | None = None,
    *,
    max_model_len: int | None = None,
    kv_cache_gib: float = KV_CACHE_GIB,
    progress: Progress | None = None,
) -> Background:
    """Start a server that outlives this process; one that is up with the same model is kept.

    Args:
        home: Folder of the state file and the log.
        model: Checkpoint folder or hub id.
        served_name: Name that requests use for the model.
        port: Port on the loopback interface, None for any that is free.
        max_model_len: Context window in tokens, None for the model's own.
        kv_cache_gib: GiB of memory for the KV cache, on a CPU.
        progress: Called while waiting.

    Raises:
        UsageError: Another model is up, or the same one on another port.
        Unavailable: It did not start; nothing is left running.
    """
    checkpoint = str(Path(model).resolve()) if Path(model).exists() else str(model)
    with _alone(home):
        if (there := status(home)) is not None:
            if there.checkpoint == checkpoint and port in (None, int(there.url.rsplit(":", 1)[1].split("/")[0])):
                return there
            raise UsageError(f"{there.model} is up at {there.url}", remedy="Stop it first: `m4rag vlm down`.")
        server = start(
            model,
            log=home / "logs" / "vlm.log",
            served_name=served_name,
            port=port,
            max_model_len=max_model_len,
            kv_cache_gib=kv_cache_gib,
            progress=progress,
        )
        begun = _started(server.pid)
        if begun is None:
            raise _failure(server)
        state = Background(server.url, server.model, checkpoint, server.pid, begun, str(server.log.resolve()))
        write_atomic(home / STATE, json.dumps(asdict(state), indent=2).encode() + b"\n")
        server._lifeline.write(b"1")  # from here on it lives without us
        return state


def status(home: Path) -> Background | None:
    """The server that `up` left running; None if there is none any more.

    Raises:
        BadData: The state file is damaged.
    """
    try:
        state = Background(**json.loads((home / STATE).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise BadData(
            "not a record of a running server",
            where=str(home / STATE),
            remedy="Delete it; stop vLLM by hand if it runs.",
        ) from None
    return state if _started(state.pid) == state.started else None


def down(home: Path) -> Background | None:
    """Stop the server that `up` left running, all of it; returns what was stopped, None if there was none."""
    with _alone(home):
        state = status(home)
        if state is not None:
            guard.stop_group(state.pid)
        (home / STATE).unlink(missing_ok=True)
        return state


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """No second `up` or `down` on the same home at the same time; the kernel lets go if this process dies."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{STATE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _started(pid: int) -> str | None:
    """Boot and clock tick at which a process began, None if it is gone or waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
