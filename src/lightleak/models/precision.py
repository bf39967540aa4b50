"""In which precision convolutions and products run where speed may cost exactness."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def lowered(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and products run in the given precision on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
