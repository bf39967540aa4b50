"""ArcFace's and AdaFace's published layouts, read and run a second way: by functions, from the tensors alone."""

import pytest
import torch
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models.iresnet import iresnet, layout_of
from lightleak.models.recogniser import embedded, recogniser


def norm(rng, width, affine=True):
    stats = {
        "running_mean": torch.randn(width, generator=rng) / 4,
        "running_var": torch.rand(width, generator=rng) + 0.5,
    }
    stats["num_batches_tracked"] = torch.tensor(7)
    if affine:
        stats |= {"weight": torch.rand(width, generator=rng) + 0.5, "bias": torch.randn(width, generator=rng) / 4}
    return stats


def under(place, tensors):
    return {f"{place}.{name}": value for name, value in tensors.items()}


def conv(rng, outputs, inputs, side):
    return {"weight": torch.randn(outputs, inputs, side, side, generator=rng) / (side * inputs**0.5)}


NAMES = {
    "arcface": ("conv1", "bn1", "prelu", "bn2", "fc", "features"),
    "adaface": (
        "input_layer.0",
        "input_layer.1",
        "input_layer.2",
        "output_layer.0",
        "output_layer.3",
        "output_layer.4",
    ),
}
PARTS = {
    "arcface": ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3", "downsample"),
    "adaface": (*(f"res_layer.{place}" for place in range(6)), "shortcut_layer"),
}
STAGES = ((4, 4), (8,), (12, 12, 12), (16,))  # the width of each unit


def blocks(layout):
    """Each unit's place, inputs, outputs, stride and whether its shortcut is projected, as each project builds them."""
    found, inputs, number = [], 4, 0
    for stage, widths in enumerate(STAGES, 1):
        for within, outputs in enumerate(widths):
            stride = 1 if within else 2
            projected = inputs != outputs or (layout == "arcface" and stride == 2)
            place = f"layer{stage}.{within}" if layout == "arcface" else f"body.{number}"
            found.append((place, inputs, outputs, stride, projected))
            inputs, number = outputs, number + 1
    return found


def published(layout):
    """A state dict as a published file holds it, in toy width."""
    rng = torch.Generator().manual_seed(0)
    stem, first, slope, last, linear, features = NAMES[layout]
    state = under(stem, conv(rng, 4, 3, 3)) | under(first, norm(rng, 4))
    state |= {f"{slope}.weight": torch.rand(4, generator=rng)}
    for place, inputs, outputs, _, projected in blocks(layout):
        bn1, conv1, bn2, prelu, conv2, bn3, short = (f"{place}.{part}" for part in PARTS[layout])
        state |= under(bn1, norm(rng, inputs)) | under(conv1, conv(rng, outputs, inputs, 3))
        state |= under(bn2, norm(rng, outputs)) | {f"{prelu}.weight": torch.rand(outputs, generator=rng)}
        state |= under(conv2, conv(rng, outputs, outputs, 3)) | under(bn3, norm(rng, outputs))
        if projected:
            state |= under(f"{short}.0", conv(rng, outputs, inputs, 1)) | under(f"{short}.1", norm(rng, outputs))
    state |= under(last, norm(rng, 16))
    state |= {
        f"{linear}.weight": torch.randn(6, 16 * 49, generator=rng) / 28,
        f"{linear}.bias": torch.randn(6, generator=rng),
    }
    return state | under(features, norm(rng, 6, affine=layout == "arcface"))


def by_hand(layout, state, images):
    """The embedding, computed from the tensors alone."""
    stem, first, slope, last, linear, features = NAMES[layout]

    def normed(x, place):
        return F.batch_norm(
            x, state[f"{place}.running_mean"], state[f"{place}.running_var"], state.get(f"{place}.weight"),
            state.get(f"{place}.bias"), eps=1e-5,
        )  # fmt: skip

    x = (images - 0.5) / 0.5
    x = x[:, [2, 1, 0]] if layout == "adaface" else x
    x = F.prelu(normed(F.conv2d(x, state[f"{stem}.weight"], padding=1), first), state[f"{slope}.weight"])
    for place, _, _, stride, projected in blocks(layout):
        bn1, conv1, bn2, prelu, conv2, bn3, short = (f"{place}.{part}" for part in PARTS[layout])
        seen = normed(F.conv2d(normed(x, bn1), state[f"{conv1}.weight"], padding=1), bn2)
        seen = F.conv2d(F.prelu(seen, state[f"{prelu}.weight"]), state[f"{conv2}.weight"], stride=stride, padding=1)
        beside = x[:, :, ::stride, ::stride]
        if projected:
            beside = normed(F.conv2d(x, state[f"{short}.0.weight"], stride=stride), f"{short}.1")
        x = normed(seen, bn3) + beside
    x = normed(F.linear(normed(x, last).flatten(1), state[f"{linear}.weight"], state[f"{linear}.bias"]), features)
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("layout", ["arcface", "adaface"])
def test_a_published_file_embeds_as_it_does_by_hand(layout, tmp_path):
    state = published(layout)
    file = tmp_path / "weights.ckpt"
    if layout == "adaface":  # as Lightning keeps it, beside the head that it was trained with
        content = {f"model.{name}": value for name, value in state.items()} | {"head.kernel": torch.zeros(6, 9)}
        torch.save({"epoch": 25, "state_dict": content}, file)
    else:
        torch.save(state, file)
    assert layout_of(file) == layout
    told = recogniser(str(file))
    assert told.kind == layout
    assert {"arcface": "ArcFace (", "adaface": "AdaFace ("}[layout] in told.title
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = embedded(told.load(), images)
    torch.testing.assert_close(found, by_hand(layout, state, images.float() / 255), atol=1e-5, rtol=1e-4)


def test_a_file_that_is_not_whole_is_one_line(tmp_path):
    state = published("arcface")
    del state["layer3.1.bn2.running_var"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(UserError, match=r"layer3\.1\.bn2\.running_var is missing"):
        iresnet(tmp_path / "torn.pth", "arcface")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert layout_of(tmp_path / "other.pth") is None
