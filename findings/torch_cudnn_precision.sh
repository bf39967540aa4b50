#!/bin/sh
# PyTorch 2.13.0: once torch.backends.cudnn.conv.fp32_precision is set (the documented way since 2.9), entering
# torch.backends.cudnn.flags(deterministic=True) raises RuntimeError, though it asks for nothing about precision: it reads
# the older allow_tf32 first, which has no value while convolutions and recurrent layers differ. It works again when
# torch.backends.cudnn.rnn.fp32_precision is set alike. No card is needed. No Lightleak. Exits with 1 if that has changed.
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
print("flags(deterministic=True) before, after conv alone, after conv and rnn:", found)
assert found == [True, False, True], "this has changed"
PYTHON
