"""torchvision imports in the server's environment, and processes that do not want it pay nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from m4rag.vlm.engine import CPU_SITE


def python(code: str, *paths: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (CPU_SITE, *paths)))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_beside_this_torch() -> None:
    code = "import torchvision.transforms.v2, torch; print(torch.ops.torchvision.nms.default._schema.name)"
    assert python(code) == "torchvision::nms"


def test_other_processes_pay_nothing() -> None:
    assert python("import sys, json; print('torch' in sys.modules)") == "False"


def test_a_sitecustomize_of_the_environment_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.of_the_environment = True\n")
    assert python("import sys; print(sys.of_the_environment)", tmp_path) == "True"
