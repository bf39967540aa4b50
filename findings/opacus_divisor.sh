#!/bin/sh
# Opacus 1.6.0: PrivacyEngine.make_private divides the clipped sum by int(images * (1 / batches)), not by the batch
# size of the loader: 47 for 95 images in batches of 64, and 0 for 49 images one by one, whose step is then infinite
# or no number. No Lightleak. Exits with 1 if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "opacus==1.6.0" "torch==2.13.0"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
print("opacus", version("opacus"), "torch", torch.__version__)


def divisor(images, batch):
    data = TensorDataset(torch.randn(images, 4), torch.zeros(images, dtype=torch.long))
    net = nn.Linear(4, 2)
    _, optimiser, _ = PrivacyEngine().make_private(
        module=net, optimizer=torch.optim.SGD(net.parameters(), 0.1), data_loader=DataLoader(data, batch_size=batch),
        noise_multiplier=1.0, max_grad_norm=1.0,
    )
    return optimiser.expected_batch_size


found = {(images, batch): divisor(images, batch) for images, batch in ((96, 32), (95, 64), (49, 1))}
for (images, batch), value in found.items():
    print(f"{images} images, batch {batch}: the sum is divided by {value}")
assert list(found.values()) == [32, 47, 0], "this has changed"
PYTHON
