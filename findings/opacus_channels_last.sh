#!/bin/sh
# Opacus 1.6.0: per-image gradients of a convolution whose input is channels-last differ from autograd's, without a
# warning (opacus/utils/tensor_utils.py, unfold2d, strides of a padded input as if it were contiguous). No Lightleak.
# Exits with 1 if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "opacus==1.6.0" "torch==2.13.0"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import nn

warnings.filterwarnings("ignore")
print("opacus", version("opacus"), "torch", torch.__version__)
torch.manual_seed(0)
layer = nn.Conv2d(3, 8, 3, padding=1)
images = torch.randn(4, 3, 8, 8)


def apart(images):
    alone = torch.stack([torch.autograd.grad(layer(one[None]).square().mean(), layer.weight)[0] for one in images])
    hooks = GradSampleHooks(layer, loss_reduction="mean")
    layer(images).square().mean().backward()
    found = layer.weight.grad_sample.clone()
    hooks.cleanup()
    layer.zero_grad()
    return float((found - alone).norm() / alone.norm())


contiguous, channels_last = apart(images), apart(images.contiguous(memory_format=torch.channels_last))
print(f"relative error of per-image gradients: contiguous {contiguous:.1e}, channels-last {channels_last:.1e}")
assert contiguous < 1e-5
assert channels_last > 0.1, "this has changed"
PYTHON
