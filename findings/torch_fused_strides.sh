#!/bin/sh
# PyTorch 2.13.0, on a processor: fused=True of SGD, Adam, AdamW and Adagrad pairs parameter, gradient and state by their
# places in memory and not by their indices. A channels-last convolution whose optimiser state comes back from a file in
# plain order (safetensors writes no other), or whose gradient was computed elsewhere in plain order, is moved wrongly, and
# nothing says so; without fused=True it is moved rightly. (On a GPU the same call is refused.) No Lightleak. Exits with 1 if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy packaging "safetensors==0.6.2"
"$folder/venv/bin/python" - "$folder/state.safetensors" <<'PYTHON'
import sys

import torch
from safetensors.torch import load_file, save_file

print("torch", torch.__version__)


def moved(kind, through_file=False, plain_gradient=False, **options):
    """A channels-last weight after four steps."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=rng).contiguous(memory_format=torch.channels_last))
    optimiser = kind([weight], lr=0.1, **options)
    for step in range(4):
        gradient = torch.randn(8, 4, 3, 3, generator=rng)
        weight.grad = gradient if plain_gradient else gradient.contiguous(memory_format=torch.channels_last)
        optimiser.step()
        if step == 1 and through_file:
            state = optimiser.state_dict()
            save_file({name: value.contiguous() for name, value in state["state"][0].items()}, sys.argv[1])
            state["state"][0] = load_file(sys.argv[1])
            optimiser.load_state_dict(state)
    return weight.detach()


found = []
kinds = ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.AdamW, {}), (torch.optim.Adagrad, {}))
for kind, options in kinds:
    for fused in (False, True):
        own = dict(options, fused=fused)
        ways = (moved(kind, through_file=True, **own), moved(kind, plain_gradient=True, **own))
        away = [float((way - moved(kind, **own)).abs().max()) for way in ways]
        print(f"{kind.__name__}, fused={fused}: away by {away[0]:.3f} after a file, {away[1]:.3f} with a plain gradient")
        found.append([distance > 0.01 for distance in away])
assert found == [[False, False], [True, True]] * 4, "this has changed"
PYTHON
