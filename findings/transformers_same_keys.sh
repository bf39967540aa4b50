#!/bin/sh
# transformers 5.24.0: a network whose code was changed but whose parameter names were not (here: a block that no longer
# adds its shortcut) is saved by save_pretrained and read back by from_pretrained as the unchanged network: other outputs,
# no missing or unexpected keys, no warning. What a network computes is in no config. No Lightleak. Exits with 1 if that
# has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.24.0" "torch==2.13.0" numpy
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings

import torch
import transformers
from transformers import AutoModelForImageClassification, ResNetConfig

print("transformers", transformers.__version__, "torch", torch.__version__)
warnings.simplefilter("error")
torch.manual_seed(0)
config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
net = AutoModelForImageClassification.from_config(config).eval()
block = net.resnet.encoder.stages[1].layers[0]
straight = type("Straight", (type(block),), {"forward": lambda self, x: self.activation(self.layer(x))})
block.__class__ = straight
net.save_pretrained(f"{sys.argv[1]}/saved")
again, told = AutoModelForImageClassification.from_pretrained(f"{sys.argv[1]}/saved", output_loading_info=True)
images = torch.rand(2, 3, 32, 32)
torch.set_grad_enabled(False)
gap = float((net(images).logits - again.eval()(images).logits).abs().max())
print("largest difference of logits", gap, "told", {name: len(keys) for name, keys in told.items()})
assert gap > 1e-3, "this has changed"
assert not any(told.values()), "this has changed"
PYTHON
