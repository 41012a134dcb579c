"""Let torchvision import beside a CPU build of torch. Only the embedded vLLM server's processes load this file.

PyPI has no CPU build of torchvision: the wheel's compiled operators need CUDA libraries, and without them its import
ends with "operator torchvision::nms does not exist", although vLLM's image processors only want its Python parts.
Declaring the two operators that the import looks for is enough. It must happen in every process that vLLM starts and
before anything imports torchvision, hence a `sitecustomize` in a folder that `m4rag.vlm.launcher` puts first on the
server's PYTHONPATH. Processes that never import torchvision pay for one entry in `sys.meta_path`; where torchvision's
operators load, nothing is declared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = str(Path(__file__).resolve().parent)
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

declared: list[Any] = []  # torch forgets a library's operators when the last reference to it goes


class BeforeTorchvision:
    """Acts once, when torchvision is about to be imported, and finds nothing itself."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Declare what torchvision misses; the next finder then imports it as ever."""
        del path, target
        if name == "torchvision":
            sys.meta_path.remove(cls)
            if not _operators_load():
                _declare()
        return None


def _operators_load() -> bool:
    """Whether torchvision's compiled library fits this torch; loading it twice is harmless."""
    import torch

    spec = PathFinder.find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).glob("_C*.so"):
            try:
                torch.ops.load_library(library)
            except OSError:
                continue
            return True
    return False


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    declared.append(library)


def _run_hidden_sitecustomize() -> None:
    """Run the `sitecustomize` that this one hides, if the environment has one."""
    spec = PathFinder.find_spec("sitecustomize", [folder for folder in sys.path if str(Path(folder).resolve()) != HERE])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


sys.meta_path.insert(0, BeforeTorchvision)
_run_hidden_sitecustomize()
