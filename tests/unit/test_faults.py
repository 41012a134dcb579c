"""The table of faults names tests that exist; and faults whose subject is the repository itself."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "docs" / "faults.md"
ROW = re.compile(r"^\| (\d+) \|.*\|$", re.MULTILINE)
NAMED = re.compile(r"`(test_\w+)`")
FAULTS = 39


def defined() -> set[str]:
    """Names of all tests."""
    names = set()
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return names


def test_every_test_in_the_table_of_faults_exists() -> None:
    assert set(NAMED.findall(TABLE.read_text(encoding="utf-8"))) - defined() == set()


def test_every_test_of_a_fault_is_in_its_row_of_the_table() -> None:
    rows = {int(row[1]): row[0] for row in ROW.finditer(TABLE.read_text(encoding="utf-8"))}
    assert sorted(rows) == list(range(1, FAULTS + 1))
    for name in defined():
        if numbered := re.match(r"test_m4rag_fault_(\d\d)_", name):
            assert f"`{name}`" in rows[int(numbered[1])], name
    for number, row in rows.items():
        for name in NAMED.findall(row):
            assert name.startswith(f"test_m4rag_fault_{number:02d}_"), name


def test_m4rag_fault_21_every_dependency_is_locked_with_its_hashes() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # What `make setup` installs; the GPU build is chosen on the machine, torch stands in a file of its own.
    wanted = [*project["dependencies"], *(text for name in extras if name != "gpu" for text in extras[name])]
    names = {canonicalize_name(Requirement(text).name) for text in wanted} - {"m4rag", "torch"}
    lock = (REPOSITORY / "requirements" / "lock.txt").read_text()
    entries = dict(re.findall(r"^([a-z0-9._-]+)==\S+ [^\n]*\\\n((?: +--hash=sha256:\S+[^\n]*\n)+)", lock, re.MULTILINE))
    assert names - {canonicalize_name(name) for name in entries} == set()
    assert re.search(r"^torch==\S+", (REPOSITORY / "requirements" / "torch.txt").read_text(), re.MULTILINE)


def test_m4rag_fault_38_no_code_evaluates_text() -> None:
    for folder in ("m4rag", "components", "pipelines", "hack"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), f"{file}:{node.lineno}"
