"""Let torchvision import beside a CPU-only torch.

The torchvision wheel of the package index is linked against CUDA. Beside a CPU-only torch its C++ operators do not load,
and its import stops because two of them have no schema. They are declared here without a body: models and transforms
never call them, detection operators still raise torchvision's own explanation, and where the real operators load, this
module does nothing.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # The library object must stay alive: its schemas die with it.
    OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
