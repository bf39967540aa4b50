"""A stage is what works at one resolution on all tokens; heads of one token belong to the stage before them."""

import pytest
import timm
import torch
from torch import nn

from lightleak.defences import RoLSS
from lightleak.study.comparison import Setting
from lightleak.study.spelling import canonical
from lightleak.study.tasks import Draw
from lightleak.surgery import find_skips, recipe, remove_skips

EXAMPLE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def last_of(model, example):
    """The names that "last" cuts; the cut must change what the network computes."""
    model = model.eval()
    cut = remove_skips(model, "last", example).eval()
    with torch.no_grad():
        before = model(example)
        assert (cut(example) - before).abs().max() > 0.01 * before.abs().max()
    return [name for name, *_ in recipe(cut)[0]["skips"]]


@pytest.mark.parametrize(
    ("name", "stages", "options"),
    [
        (
            "vit_base_patch16_siglip_224",
            [3, 3, 3, 4],
            {"depth": 6, "embed_dim": 48, "num_heads": 3},
        ),  # attention pooling
        ("vit_pe_core_tiny_patch16_384", [3, 3, 3, 4], {"depth": 6, "embed_dim": 48, "num_heads": 3}),
        ("cait_xxs24_224", [2, 2, 2, 5], {"depth": 4, "embed_dim": 48, "num_heads": 4}),  # class attention
    ],
)
def test_pooling_heads_are_no_stage(name, stages, options):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, img_size=32, **options)
    skips = find_skips(model, EXAMPLE)
    assert [sum(skip.stage == stage for skip in skips) for stage in (1, 2, 3, 4)] == stages
    names = last_of(model, EXAMPLE)
    assert sum(name.startswith("blocks.") for name in names) >= 2
    assert names == [skip.name for skip in skips if skip.stage == 4]


def test_class_attention_after_a_pyramid_is_no_stage():
    torch.manual_seed(0)
    model = timm.create_model("volo_d1_224", num_classes=5, img_size=64)
    names = last_of(model, torch.rand(2, 3, 64, 64))
    assert any(name.startswith("network.2.") for name in names)


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = nn.Sequential(layer, nn.Tanh())

    def forward(self, x):
        return x + self.layer(x)


class Headed(nn.Module):
    """A pyramid of maps, then a residual head on what was pooled, as a vector or as a map of one pixel."""

    def __init__(self, flat):
        super().__init__()
        self.stages = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(i, 8, 2, 2), Block(nn.Conv2d(8, 8, 3, padding=1))) for i in (3, 8, 8))
        )
        self.head = Block(nn.Linear(8, 8) if flat else nn.Conv2d(8, 8, 1))
        self.flat, self.fc = flat, nn.Linear(8, 3)

    def forward(self, x):
        x = self.stages(x).mean((2, 3), keepdim=True)
        return self.fc(self.head(x.flatten(1) if self.flat else x).flatten(1))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("pixels", [32, 16])
def test_residual_heads_on_what_was_pooled(flat, pixels):
    model = Headed(flat)
    example = EXAMPLE[..., :pixels, :pixels]
    assert [(skip.name, skip.stage) for skip in find_skips(model, example)] == [
        *((f"stages.{i}.1.add", i + 1) for i in range(3)),
        ("head.add", 3),
    ]
    assert last_of(model, example) == ["stages.2.1.add", "head.add"]


def test_a_pyramid_may_end_in_one_pixel():
    """Small images: the last stage of a ResNet or PVT is 1 x 1, and still a stage."""
    for name in ("resnet18", "pvt_v2_b0"):
        skips = find_skips(timm.create_model(name, num_classes=5), EXAMPLE)
        assert [skip.resolution in ((1, 1), (1,)) for skip in skips if skip.stage == 4] == [True] * (len(skips) // 4)


def test_a_recipe_of_the_older_count_of_stages_is_replayed():
    """Checkpoints written when a pooling head was a stage of its own."""
    from lightleak.surgery import replay

    torch.manual_seed(0)
    options = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
    model = timm.create_model("vit_base_patch16_siglip_224", **options)
    (step,) = recipe(remove_skips(model, ["attn_pool.add"], EXAMPLE))
    step["where"], step["skips"] = "last", [[name, kind, 2, channels] for name, kind, _, channels in step["skips"]]
    assert recipe(replay(model, [step], EXAMPLE)) == [step]


def test_a_stage_by_its_number_is_the_last_one_only_where_the_images_leave_it_one():
    """At 16 pixels a ResNet-18's third and fourth stage both work on one pixel: "last" is both."""
    assert canonical("timm:resnet18", (RoLSS(4),), 32) == canonical("timm:resnet18", (RoLSS(4),)) == (RoLSS(),)
    assert canonical("timm:resnet18", (RoLSS(4),), 16) == (RoLSS(4),)
    assert canonical("timm:resnet18", (RoLSS(3),), 16) == (RoLSS(),)
    small = Setting(Draw("folder:people", {"size": 16}), "timm:resnet18")
    assert [small.target((RoLSS(stage),), 0).defences for stage in (3, 4)] == [(RoLSS(),), (RoLSS(4),)]
