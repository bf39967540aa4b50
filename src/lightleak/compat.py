"""Let torchvision import beside a CPU-only torch.

The torchvision wheel of the package index is linked against CUDA. Beside a CPU-only torch its C++ operators do not
load, and its import, like that of timm, stops because two of them have no schema. They are declared here without a
body: models and transforms never call them, detection operators still raise torchvision's own explanation, and where
the real operators load, this module does nothing. All of it happens when torchvision is imported, by whomever:
neither torch nor torchvision is imported for those who need neither.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path

OPERATORS: list[object] = []  # libraries; must stay alive: the schemas die with the library object


def declare_missing_operators() -> bool:
    """Declare what torchvision's import asks for, if its own library cannot be loaded; whether that was needed."""
    spec = find_spec("torchvision")
    if OPERATORS or "torchvision" in sys.modules or spec is None or spec.origin is None:
        return False
    import torch

    files = [file for file in Path(spec.origin).parent.glob("_C*") if file.suffix in (".so", ".pyd", ".dylib")]
    try:
        for file in files:
            torch.ops.load_library(str(file))
        return False
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    OPERATORS.append(library)
    return True


class BeforeTorchvision(MetaPathFinder):
    """Finds nothing itself; declares what is missing when torchvision is looked for the first time."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        if fullname == "torchvision":
            sys.meta_path.remove(self)  # first: what follows looks for torchvision, too
            declare_missing_operators()


if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, BeforeTorchvision())
