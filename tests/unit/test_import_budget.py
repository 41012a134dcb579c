"""`import m4rag` and `m4rag --help` stay quick because they load nothing heavy: a list, not a timer."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp",
    "huggingface_hub",
    "icu4py",
    "jinja2",
    "kfp",
    "kubernetes",
    "matplotlib",
    "milvus_lite",
    "mlflow",
    "mwparserfromhell",
    "numpy",
    "pandas",
    "PIL",
    "pyarrow",
    "pymilvus",
    "regex",
    "rich.markdown",
    "scipy",
    "sentence_transformers",
    "torch",
    "transformers",
    "vllm",
)


@pytest.mark.parametrize(
    "code",
    [
        "import m4rag",
        "import sys; sys.argv = ['m4rag', '--help']; from m4rag.cli import main; main()",
        "import sys; sys.argv = ['m4rag', 'bench', '--help']; from m4rag.cli import main; main()",
        "import sys; sys.argv = ['m4rag', 'policy', '--help']; from m4rag.cli import main; main()",
        "import sys; sys.argv = ['m4rag', 'deploy', '--help']; from m4rag.cli import main; main()",
        "from m4rag.policy.model import Policy, decide",  # what serves questions
    ],
    ids=["import m4rag", "m4rag --help", "m4rag bench --help", "m4rag policy --help", "m4rag deploy --help", "decide"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    check = f"import atexit, sys\natexit.register(lambda: print('LOADED', *sys.modules))\n{code}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split("LOADED")[-1].split())
    assert loaded, done.stdout
    assert not loaded & set(HEAVY)


def test_every_command_explains_itself() -> None:
    from typer.main import get_command

    from m4rag.cli import app

    def walk(command: object, path: str) -> list[str]:
        if not getattr(command, "help", None):
            return [path]
        children = getattr(command, "commands", {})
        return [silent for name, child in children.items() for silent in walk(child, f"{path} {name}")]

    assert walk(get_command(app), "m4rag") == []
