#!/bin/sh
# timm 1.0.31 and torchvision 0.28.0 number the same folder of classes differently: timm's reader sorts names naturally
# (1, 2, 10), torchvision's ImageFolder as text (1, 10, 2). A network trained with one and measured with the other is
# right about class 1 alone, at full speed and without a word; the two agree as soon as names are zero-padded.
# No Lightleak. Exits with 1 if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "timm==1.0.31" "torch==2.13.0" "torchvision==0.28.0"
for name in 1 2 10; do
  mkdir -p "$folder/people/$name" "$folder/padded/$(printf %02d "$name")"
done
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import torch

if not hasattr(torch.ops.torchvision, "nms"):  # torchvision's wheel beside a torch for processors alone; not used here
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
import torchvision
from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder

print("timm", timm.__version__, "torchvision", torchvision.__version__)
found = {}
for kind in ("people", "padded"):
    root = Path(sys.argv[1]) / kind
    for place in root.iterdir():
        Image.new("RGB", (8, 8)).save(place / "a.png")
    found[kind] = ImageFolder(root).class_to_idx, create_dataset("", root=str(root)).reader.class_to_idx
    print(f"{kind}: torchvision {found[kind][0]}, timm {found[kind][1]}")
assert found["people"] == ({"1": 0, "10": 1, "2": 2}, {"1": 0, "2": 1, "10": 2}), "this has changed"
assert found["padded"][0] == found["padded"][1], "this has changed"
PYTHON
