"""Fused optimisers against PyTorch's plain ones, wherever gradients and states lie in memory."""

import copy

import pytest
import torch

from lightleak.optimisers import fused

KINDS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.1}),
    (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
]
NHWC, NCHW = torch.channels_last, torch.contiguous_format


def moved(build, options, weight, gradient, state):
    """A convolution's weight after four steps; its state is saved and loaded in between. All three are laid out so."""
    rng = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=rng).contiguous(memory_format=weight))
    optimiser = build([parameter], **options)
    for step in range(4):
        parameter.grad = torch.randn(8, 4, 3, 3, generator=rng).contiguous(memory_format=gradient)
        optimiser.step()
        if step == 1:
            kept = copy.deepcopy(optimiser.state_dict())
            for values in kept["state"].values():
                for name, value in values.items():
                    if isinstance(value, torch.Tensor) and value.dim() == 4:
                        values[name] = value.contiguous(memory_format=state)
            optimiser.load_state_dict(kept)
    return parameter.detach()


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
@pytest.mark.parametrize("weight", [NHWC, NCHW])
@pytest.mark.parametrize("gradient", [NHWC, NCHW])
@pytest.mark.parametrize("state", [NHWC, NCHW])
def test_one_pass_moves_as_tensor_by_tensor_does(kind, options, weight, gradient, state) -> None:
    got = moved(lambda moving, **more: fused(kind, moving, **more), options, weight, gradient, state)
    plain = moved(lambda moving, **more: kind(moving, **more, fused=False), options, NCHW, NCHW, NCHW)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-6)
    assert got.is_contiguous(memory_format=weight)


def test_parameters_without_a_gradient_stay() -> None:
    moving, still = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimiser = fused(torch.optim.Adam, [{"params": [moving]}, {"params": [still]}], lr=0.1)
    moving.grad = torch.ones(3)
    optimiser.step()
    assert still.tolist() == [1, 1, 1]
    assert moving.tolist() == pytest.approx([0.9] * 3)
