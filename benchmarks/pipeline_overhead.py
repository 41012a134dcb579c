"""What compiling costs, and what a local pipeline run costs beyond the work of its steps.

    python benchmarks/pipeline_overhead.py

Compiling is the whole command in a process of its own, beside `import kfp` alone in another. A run has five steps that
follow each other and each work for half a second; what is printed is the time beyond that work.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kfp import compiler, dsl

from pipelines.compiled import run_local

WORK_S = 0.5
STEPS = 5
REPEATS = 3


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def work(seconds: float) -> float:
    """Take that long."""
    import time

    time.sleep(seconds)
    return seconds


@dsl.pipeline(name="five-steps")
def five_steps(seconds: float = WORK_S):
    """Five steps, one after another."""
    done = work(seconds=seconds)
    for _ in range(STEPS - 1):
        done = work(seconds=done.output)


def timed(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with TemporaryDirectory() as scratch:
        compiling = min(
            timed("-m", "m4rag.cli", "pipeline", "compile", "--all", "--output", scratch) for _ in range(REPEATS)
        )
        importing = min(timed("-c", "import kfp.compiler, kfp.kubernetes") for _ in range(REPEATS))
        print(f"compile --all  {compiling:.2f} s, of which importing kfp {importing:.2f} s")
        path = Path(scratch) / "five-steps.yaml"
        compiler.Compiler().compile(five_steps, str(path))
        for number in range(REPEATS):
            started = time.perf_counter()
            run_local(path, {}, Path(scratch) / str(number))
            beyond = time.perf_counter() - started - STEPS * WORK_S
            print(
                f"five steps     {beyond:.2f} s beyond {STEPS * WORK_S:.1f} s of work ({beyond / STEPS:.2f} s a step)"
            )


if __name__ == "__main__":
    main()
