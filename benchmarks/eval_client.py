"""What it costs to put questions with pictures to a server: m4rag beside inspect_ai, lm_eval and a bare aiohttp loop.

    python benchmarks/eval_client.py                              # everything; makes the peers' environment first
    python benchmarks/eval_client.py --questions 60000 --pictures 732 --no-peers --vllm-questions 0

A mock server answers each question after a fixed wait, so that no client can finish sooner than
ceil(questions / concurrency) waits: the rate is given as a share of that. Then a real vLLM on this CPU is asked. Every
client runs in a process of its own, is warmed up with 64 questions that do not count, and gets the same prompts (4 KB)
and pictures (240 KB). CPU is that of the client's process. Ours is from rows in memory to Parquet with a manifest,
every answer synced to the disk before it is counted; peers are timed with what they do on their own.

At last a run of ours is killed with SIGKILL when 60 % is counted, and continued: an answer that was counted and is not
on the disk is lost; `resume_s` is from the start of the new process to its first question at the server.

The peers' environment is `--peer-python`, or one with pinned versions that is made in the user's cache.
"""

from __future__ import annotations

import json as jsonlib
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from eval_client_load import write_load
from rich.console import Console
from rich.table import Table

from m4rag.bench.answers import LOG

HERE = Path(__file__).parent
PEERS = ("aiohttp", "inspect_ai", "lm_eval")
PINNED = ("inspect_ai==0.3.285", "lm_eval[api]==0.4.13", "openai==3.54.0", "pillow==13.0.0")
KILL_AT = 0.6
LONG_CONTEXT, SHORT_CONTEXT = 600, 60  # words; the small model on a CPU gets short ones
ADVICE = "Correct that, or leave the peers out with --no-peers."


def peer_environment(given: Path | None) -> Path:
    """Python of the peers' environment; made where none is given."""
    if given is not None:
        return given
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "m4rag" / "eval-peers"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making {folder} with {', '.join(PINNED)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=False)
        if done.returncode:
            raise SystemExit(f"the peers could not be installed. {ADVICE}")
        (folder / "ready").touch()
    return python


@contextmanager
def mock(latency_ms: float) -> Iterator[str]:
    """Base URL of the mock server, which has a process of its own."""
    command = [sys.executable, HERE / "mock_server.py", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def vllm() -> Iterator[str]:
    """Base URL of a vLLM that serves the reference model here."""
    from m4rag import models
    from m4rag.vlm import launcher

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vllm.log"
        with launcher.start(models.folder(models.VLM), served_name=models.VLM, log=log) as server:
            yield server.url


def client(name: str, load: Path, url: str, concurrency: int, python: Path | None) -> dict[str, Any]:
    """What one client cost, measured in its process."""
    if name == "m4rag":
        with tempfile.TemporaryDirectory(dir=load) as folder:
            command = [sys.executable, HERE / "eval_client_m4rag.py", load, Path(folder) / "run", url, str(concurrency)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
    else:
        command = [python, HERE / "eval_client_peers.py", name, load, url, str(concurrency)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise SystemExit(f"{name} failed: {lines[-1]}. {ADVICE if name != 'm4rag' else ''}")
    return jsonlib.loads(done.stdout.splitlines()[-1])


def measured(
    names: list[str], load: Path, url: str, concurrency: int, repeats: int, python: Path | None
) -> dict[str, dict[str, Any]]:
    """Medians over the repetitions; the order is turned round in every second one."""
    costs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:
            costs[name].append(client(name, load, url, concurrency, python))
            print(f"{name}: {costs[name][-1]['wall_s']:.1f} s", file=sys.stderr)
    made = {}
    for name, each in costs.items():
        middle = {key: statistics.median(cost[key] for cost in each) for key in ("questions", "cpu_s", "wall_s")}
        made[name] = {
            "cpu_ms_per_question": 1000 * middle["cpu_s"] / middle["questions"],
            "questions_per_s": middle["questions"] / middle["wall_s"],
            "rss_mb": max(cost["rss_mb"] for cost in each),
        }
        if name == "m4rag":
            made[name]["digest"] = each[-1]["digest"]
    return made


def killed(load: Path, url: str, concurrency: int, questions: int, digest: str) -> dict[str, Any]:
    """SIGKILL at 60 % of the counted answers, then the same again until the end.

    Args:
        digest: Of the answers of an undisturbed run.
    """
    with tempfile.TemporaryDirectory(dir=load) as folder:
        run = Path(folder) / "run"
        process = _start(load, run, url, concurrency)
        assert process.stdout is not None
        counted = 0
        for line in process.stdout:
            counted = int(line)
            if counted >= KILL_AT * questions:
                break
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()  # counted between the line that was read and the kill
        process.wait()
        counted = max([counted, *(int(line) for line in rest if line.isdigit())])
        kept = (run / "answers" / LOG).read_bytes().count(b"\n")
        before = stats(url)["answered"]

        started = time.monotonic()
        resumed = _start(load, run, url, concurrency)
        output, _ = resumed.communicate()
        after = stats(url)
        began = time.monotonic() - after["first_s_ago"]
        finished = jsonlib.loads(output.splitlines()[-1])
    return {
        "counted_at_kill": counted,
        "lost_after_kill": max(0, counted - kept),
        "asked_after_kill": after["answered"] - before,
        "missing_at_kill": questions - kept,
        "resume_s": began - started,
        "resume_rss_mb": finished["rss_mb"],
        "same_digest": finished["digest"] == digest,
    }


def _start(load: Path, run: Path, url: str, concurrency: int) -> subprocess.Popen[str]:
    command = [sys.executable, HERE / "eval_client_m4rag.py", load, run, url, str(concurrency)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stats") as response:
        return jsonlib.loads(response.read())


def main(
    questions: Annotated[int, typer.Option(help="Questions to the mock server.")] = 1000,
    pictures: Annotated[int, typer.Option(help="Different pictures among them.")] = 250,
    concurrency: Annotated[int, typer.Option(help="Requests in flight.")] = 64,
    latency_ms: Annotated[float, typer.Option(help="The mock server's wait.")] = 100.0,
    repeats: Annotated[int, typer.Option(help="Repetitions; medians are reported.")] = 3,
    peers: Annotated[bool, typer.Option(help="Measure the peers, too.")] = True,
    peer_python: Annotated[
        Path | None, typer.Option(envvar="M4RAG_PEER_PYTHON", help="Python of an environment with the peers.")
    ] = None,
    vllm_questions: Annotated[int, typer.Option(help="Questions to a real vLLM on this CPU; 0 leaves it out.")] = 256,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    python = peer_environment(peer_python) if peers else None
    names = ["m4rag", *(PEERS if peers else ())]
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, mock(latency_ms) as url:
        load = Path(folder)
        write_load(load, questions, pictures, LONG_CONTEXT)
        on_mock = measured(names, load, url, concurrency, repeats, python)
        ideal = questions / (math.ceil(questions / concurrency) * latency_ms / 1000)
        for cost in on_mock.values():
            cost["rate_vs_ideal"] = cost["questions_per_s"] / ideal
        ours = on_mock.pop("m4rag")
        ours |= killed(load, url, concurrency, questions, ours["digest"])
    result: dict[str, Any] = {
        "questions": questions,
        "pictures": pictures,
        "concurrency": concurrency,
        "latency_ms": latency_ms,
        "cores": os.cpu_count(),
        "load_before": load_before,
        "versions": {"m4rag": version("m4rag")} | ({"peers": PINNED if peer_python is None else str(python)}),
        "m4rag": ours,
        "peers": on_mock,
    }
    if vllm_questions:
        with tempfile.TemporaryDirectory() as folder, vllm() as url:
            write_load(Path(folder), vllm_questions, max(1, vllm_questions // 4), SHORT_CONTEXT)
            result["vllm"] = measured(names, Path(folder), url, concurrency, 1, python)
    if json:
        print(jsonlib.dumps(result, indent=2))
        return
    show(result)


def show(result: dict[str, Any]) -> None:
    console = Console()
    mocked = {"m4rag": result["m4rag"]} | result["peers"]
    table = Table(
        title=f"{result['questions']:,} questions, {result['concurrency']} at once, {result['latency_ms']:g} ms each",
        title_justify="left",
    )
    for column in ("", "CPU ms each", "ratio", "a second", "of ideal", "memory MB", "vLLM a second"):
        table.add_column(column, justify="right" if column else "left")
    for name, cost in mocked.items():
        served = result.get("vllm", {}).get(name)
        table.add_row(
            name,
            f"{cost['cpu_ms_per_question']:.2f}",
            f"{cost['cpu_ms_per_question'] / result['m4rag']['cpu_ms_per_question']:.1f}",
            f"{cost['questions_per_s']:.0f}",
            f"{cost['rate_vs_ideal']:.0%}",
            f"{cost['rss_mb']:.0f}",
            f"{served['questions_per_s']:.1f}" if served else "-",
        )
    console.print(table)
    ours = result["m4rag"]
    console.print(
        f"killed when {ours['counted_at_kill']:,} were counted: {ours['lost_after_kill']} lost, "
        f"{ours['asked_after_kill']:,} asked for {ours['missing_at_kill']:,} missing, first one after "
        f"{ours['resume_s']:.1f} s, digest {'as undisturbed' if ours['same_digest'] else 'DIFFERS'}"
    )


if __name__ == "__main__":
    typer.run(main)
