#!/bin/sh
# PyTorch 2.13.0: once torch.backends.cudnn.conv.fp32_precision is set (the documented way since 2.9), entering
# torch.backends.cudnn.flags(deterministic=True) raises RuntimeError, though it asks for nothing about precision: it reads
# the older allow_tf32 first and finds that "conv and RNN have different TF32 flags" - also after rnn.fp32_precision was set
# alike. It works again only when both are back at "tf32", their default. No card is needed. No Lightleak. Exits with 1 if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)


def enters():
    try:
        with torch.backends.cudnn.flags(deterministic=True):
            return True
    except RuntimeError as error:
        print("  RuntimeError:", str(error)[:110], "...")
        return False


found = [enters()]
torch.backends.cudnn.conv.fp32_precision = "ieee"
found.append(enters())
torch.backends.cudnn.rnn.fp32_precision = "ieee"
found.append(enters())
torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "tf32"
found.append(enters())
print("flags(deterministic=True) before, with conv at ieee, with conv and rnn, with both back at tf32:", found)
assert found == [True, False, False, True], "this has changed"
PYTHON
