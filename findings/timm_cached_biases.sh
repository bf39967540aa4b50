#!/bin/sh
# timm 1.0.31: LeViT, TinyViT, EfficientViT (MSRA) and EfficientFormer keep the attention biases of their first forward
# pass in evaluation mode, as tensors with a history. From then on copy.deepcopy of the network raises, although a
# fresh one copies; passes without gradients, or a call of train(), leave it copyable. No Lightleak. Exits with 1 if
# that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "timm==1.0.31" "torch==2.13.0" "torchvision==0.28.0"
"$folder/venv/bin/python" - <<'PYTHON'
import copy
import warnings

import torch

warnings.filterwarnings("ignore")
if not hasattr(torch.ops.torchvision, "nms"):  # torchvision's wheel beside a torch for processors alone; not used here
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm


def copies(network):
    try:
        copy.deepcopy(network)
    except RuntimeError as error:
        return str(error).partition(" support")[0]
    return "copies"


print("timm", timm.__version__, "torch", torch.__version__)
image, found = torch.rand(1, 3, 224, 224), []
for name in ("levit_128s", "tiny_vit_5m_224", "efficientvit_m0", "efficientformer_l1", "efficientformerv2_s0"):
    network = timm.create_model(name, num_classes=5).eval()
    told = [copies(network)]
    with torch.no_grad():
        network(image)
    told.append(copies(network))
    network = timm.create_model(name, num_classes=5).eval()
    network(image)
    told.append(copies(network))
    told.append(copies(network.train()))
    print(f"{name}: fresh, after no_grad, after a plain pass, after train():", "; ".join(told))
    found.append([one == "copies" for one in told])
assert found == [[True, True, False, True]] * 5, "this has changed"
PYTHON
