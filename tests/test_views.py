"""Views: closed forms, parity with torchvision, independence of the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from lightleak.data.augmentation import DRAWS as AUGMENTING
from lightleak.data.augmentation import Augmentation
from lightleak.data.views import (
    DRAWS,
    View,
    antialiased,
    crop,
    crop_matrices,
    gathered,
    recolour,
    resampled,
    resized,
    uniform,
)

FULL = View(scale=(0.3, 1.0), ratio=(0.7, 1.4), flip=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)


def box(**numbers):
    defaults = {"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}
    values = [torch.tensor([numbers.get(name, value)]) for name, value in defaults.items()]
    return *values, torch.tensor([numbers.get("mirror", False)])


def test_whole_image_is_unchanged():
    images = torch.rand(1, 3, 17, 17)
    assert torch.allclose(crop(images, *box()), images, atol=1e-5)


def test_mirror_is_a_flip():
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(crop(images, *box(mirror=True)), images.flip(3), atol=1e-5)


def test_crop_agrees_with_torchvision_inside():
    images = F.interpolate(torch.rand(1, 3, 8, 8), (32, 32), mode="bicubic")
    ours = crop(images, *box(left=4 / 32, top=8 / 32, width=16 / 32, height=16 / 32))
    theirs = TF.resized_crop(images, 8, 4, 16, 16, [32, 32], antialias=False)
    # torchvision repeats the crop's own border, we read the neighbours that are there.
    assert torch.allclose(ours[..., 3:-3, 3:-3], theirs[..., 3:-3, 3:-3], atol=1e-4)


@pytest.mark.parametrize(
    ("column", "setting", "reference"),
    [
        (0, "brightness", TF.adjust_brightness),
        (1, "contrast", TF.adjust_contrast),
        (2, "saturation", TF.adjust_saturation),
    ],
)
def test_colour_agrees_with_torchvision(column, setting, reference):
    images = torch.rand(4, 3, 8, 8) * 0.5 + 0.25  # away from the borders, where torchvision clamps in between
    draws = torch.full((4, 4), 0.5)
    draws[:, column] = 0.75
    ours = recolour(images, draws, View(**{setting: 0.4}))
    assert torch.allclose(ours, reference(images, 1.2), atol=2e-3)


def test_hue_turns_red_into_green():
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    draws = torch.tensor([[0.5, 0.5, 0.5, 1.0]])
    turned = recolour(red, draws, View(hue=1 / 3)).flatten()
    assert turned.argmax() == 1
    assert torch.allclose(turned.sum(), torch.tensor(1.2), atol=0.35)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_a_view_depends_on_its_own_row(seed, count):
    rng = torch.Generator().manual_seed(seed)
    images, draws = torch.rand(count, 3, 12, 12, generator=rng), uniform(count, rng)
    together = FULL(images, draws)
    alone = torch.cat([FULL(images[i : i + 1], draws[i : i + 1]) for i in range(count)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.min() >= 0
    assert together.max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_boxes_stay_inside_with_the_asked_area(seed):
    draws = uniform(64, torch.Generator().manual_seed(seed))
    view = View(scale=(0.5, 0.9), ratio=(0.8, 1.2))
    left, top, width, height, _ = view.boxes(draws)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 1 + 1e-6).all()
    assert (top + height <= 1 + 1e-6).all()
    free = (width < 1) & (height < 1)
    area = (width * height)[free]
    assert (area >= 0.5 - 1e-5).all()
    assert (area <= 0.9 + 1e-5).all()


def test_gradients_flow():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    FULL(images, torch.rand(2, DRAWS)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_default_view_changes_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert View()(images, torch.rand(2, DRAWS)) is images


@pytest.mark.parametrize(("inputs", "size"), [(64, 32), (32, 64), (48, 49), (33, 100), (100, 33), (256, 224)])
def test_a_product_with_two_matrices_is_antialiased_resizing(inputs, size):
    images = torch.rand(2, 3, inputs, inputs, dtype=torch.float64)
    theirs = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    matrix = antialiased(inputs, size)
    assert torch.allclose(resampled(images, matrix, matrix), theirs, atol=1e-6)
    single = resampled(images.float(), matrix.float(), matrix.float())
    assert torch.allclose(single.double(), theirs, atol=1e-6)  # torch's own float32 kernel is up to 2e-5 away


@pytest.mark.parametrize("size", [12, 33])
def test_a_product_with_two_matrices_is_a_crop(size):
    images, draws = torch.rand(6, 3, size, size, dtype=torch.float64), torch.rand(6, DRAWS, dtype=torch.float64)
    images.requires_grad_()
    left, top, width, height, mirror = FULL.boxes(draws)
    theirs = crop(images, left, top, width, height, mirror)
    ours = resampled(images, *crop_matrices(size, left, top, width, height, torch.where(mirror, -1.0, 1.0)))
    assert torch.allclose(ours, theirs, atol=1e-6)
    slopes = [torch.autograd.grad(seen.square().sum(), images)[0] for seen in (ours, theirs)]
    assert torch.allclose(*slopes, atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_four_gathers_are_a_sampler(padding, align_corners):
    images = torch.rand(3, 3, 9, 12, dtype=torch.float64, requires_grad=True)
    grid = 3 * torch.rand(3, 7, 8, 2, dtype=torch.float64) - 1.5  # beside the image, too
    ours = gathered(images, grid, padding, align_corners)
    theirs = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
    assert torch.allclose(ours, theirs, atol=1e-12)
    slopes = [torch.autograd.grad(seen.square().sum(), images)[0] for seen in (ours, theirs)]
    assert torch.allclose(*slopes, atol=1e-12)


def uniforms(count):
    return torch.rand(2, count, device="meta")


@pytest.mark.parametrize(
    ("change", "product"),
    [
        (lambda images: FULL(resized(images, 32), uniforms(DRAWS)), True),
        (
            lambda images: crop(images, *FULL.boxes(torch.rand(2, DRAWS, device="meta")), torch.rand(2).to("meta")),
            False,
        ),
        (lambda images: Augmentation()(images, uniforms(AUGMENTING)), False),
    ],
    ids=["view", "turned", "augmentation"],
)
def test_no_step_off_the_cpu_goes_backward_through_a_sampler(change, product):
    """`grid_sample` and antialiased interpolation have no deterministic backward pass on a GPU."""
    images = torch.rand(2, 3, 40, 40, device="meta", requires_grad=True)
    seen = change(images)
    assert seen.shape[:2] == (2, 3)
    waiting, names = [seen.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in names:
            names.add(node)
            waiting += [following for following, _ in node.next_functions]
    assert not {node.name() for node in names if "grid" in node.name().lower() or "upsample" in node.name().lower()}
    assert product == any("MmBackward" in node.name() or "Matmul" in node.name() for node in names)
