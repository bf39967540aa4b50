"""Attackers who know: a row a defence, and that each thing they do does what it says."""

import pytest
import torch
from torch import nn

from conftest import TinyNet, tiny_classifier
from lightleak.attacks import GUARDS, PPA, Oracle
from lightleak.attacks.adaptive import (
    ADAPTIVE,
    EOT,
    TAA,
    Erased,
    Knowing,
    LowPassed,
    _without_weights,
    defended_by,
    knowing,
    skips_back,
    undone,
)
from lightleak.attacks.draws import Rows
from lightleak.audit.ensemble import ensemble
from lightleak.defences import DEFENCES, DPSGD, MID, MIDRE, SSF, LoFt, NegLS, RoLSS, TrapMID, plan
from lightleak.defences.midre import GREY
from lightleak.defences.trapmid import Traps
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.low_rank import LowRank
from lightleak.models.zoo import build
from lightleak.study.tasks import Given, Rendered, Undone, source
from lightleak.surgery import find_skips, fuse, recipe, remove_skips, scale_skips
from lightleak.training import Recipe


def rows(count, seed=0):
    return Rows(seed, torch.zeros(count, dtype=torch.long), torch.arange(count))


def test_every_defence_and_every_guard_has_a_row():
    assert set(ADAPTIVE) == {*DEFENCES, *GUARDS, "noise"}
    assert [name for name, row in ADAPTIVE.items() if not row] == ["dp"]


def test_the_attack_is_the_plain_one_but_for_what_is_known():
    plain = PPA(steps=7)
    assert Knowing("nothing").attack(plain) == plain
    found = Knowing("both", margin=True, alignment=EOT).attack(plain)
    assert (found.steps, found.loss, found.alignment) == (7, "max-margin", EOT)


def linear(images, _):
    """A loss whose gradient in the image is one everywhere, so that what a copy lost shows in the gradient."""
    return images.flatten(1).sum(1), images.new_zeros(len(images), 2)


def test_smooth_copies_lose_a_fine_pattern_and_keep_the_rest():
    fine = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float().expand(1, 3, 8, 8)
    coarse = (torch.arange(8) >= 4).float().expand(1, 3, 8, 8)
    seen = []

    def keep(images, each):
        seen.append(images.detach())
        return linear(images, each)

    for pattern, low, high in ((fine, 0.0, 0.02), (coarse, 0.3, 0.6)):
        LowPassed(copies=4).averaged(pattern, keep, rows(1))
        assert low <= float(seen[-1].std()) <= high


def test_erased_copies_each_lose_a_square_of_their_own():
    seen = []

    def keep(images, each):
        seen.append(images.detach())
        return linear(images, each)

    images = torch.zeros(2, 3, 32, 32)
    Erased(copies=5).averaged(images, keep, rows(2))
    (copies,) = seen
    grey = (copies - torch.tensor(GREY).view(1, 3, 1, 1)).abs().amax(1) < 1e-6
    areas = grey.flatten(1).sum(1)
    assert len(copies) == 10
    assert int(areas.min()) >= 100
    assert len({tuple(each.flatten().tolist()) for each in grey}) == 10
    Erased(copies=5).averaged(images, keep, rows(2))
    assert torch.equal(seen[0], seen[1])


def test_the_gradient_is_the_mean_over_the_targets_own_noise():
    noisy = MID().apply(tiny_classifier()).eval()
    oracle = Oracle(noisy)
    assert oracle.noisy
    images = torch.rand(2, 3, 32, 32)

    def identity(shown, each):
        logits = oracle.logits(shown, each)
        return logits[:, 0], logits

    _, answers = EOT.averaged(images, identity, rows(2))
    singles = [oracle.logits(images, rows(2).at(torch.arange(2), torch.full((2,), n))).detach() for n in range(8)]
    assert torch.allclose(answers, torch.stack(singles).mean(0), atol=1e-5)
    assert not torch.allclose(singles[0], singles[1])
    steady = undone(noisy, "mean draw")
    assert not Oracle(steady).noisy


def test_tanh_is_looked_through():
    target = LoFt(rank=4).apply(tiny_classifier()).eval()
    through = undone(target, "straight tanh")
    images = torch.rand(3, 3, 32, 32)
    assert torch.allclose(through(images), target(images), atol=1e-6)
    (head,) = [module for module in through.net.modules() if isinstance(module, LowRank)]
    with torch.no_grad():
        dict(head.named_parameters())["down.bias"].add_(100)

    def slope(straight):
        head.straight = straight
        shown = images.clone().requires_grad_()
        (found,) = torch.autograd.grad(through(shown)[:, 0].sum(), shown)
        return float(found.abs().sum())

    assert slope(False) < 1e-2 * slope(True)  # saturated
    with pytest.raises(UserError, match="LoFt or CALoR"):
        undone(tiny_classifier(), "straight tanh")


def test_removed_skips_come_back_where_no_projection_is_missing():
    net = build("timm:resnet18", 4, 32).eval()
    cut = RoLSS().apply(net).eval()
    back = skips_back(cut)
    names = {skip.name for skip in find_skips(back.net, back.example)}
    assert "layer4.1.add" in names  # an identity
    assert "layer4.0.add" not in names  # its projection's weights are gone
    (step,) = [change for change in back.changes if change.get("factor")]
    assert (step["factor"], step["skips"][0][0]) == (0.2, "layer4.1.add")
    images = torch.rand(2, 3, 32, 32)
    own, theirs = cut.net.state_dict(), back.net.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in own.items())
    assert not torch.allclose(cut(images), back(images))


@pytest.mark.parametrize("steps", [("*attn*",), ("*mlp*",), ("*attn*", 1), ("blocks.0.*", "blocks.1.*")])
def test_the_skips_that_were_removed_come_back_and_no_others(steps):
    """Of a block that loses the first of two joins, the second is called as the first was."""
    net = build("timm:vit_tiny_patch16_224", 4, 32).eval()
    whole = {skip.name: skip for skip in find_skips(net.net, net.example)}
    cut, left = net, dict(whole)
    for where in steps:  # by position: what is counted anew keeps its order
        now = find_skips(cut.net, cut.example)
        after = remove_skips(cut.net, where, cut.example, wake=False)
        taken = {skip[0] for skip in recipe(after)[-1]["skips"]}
        left = {name: each for (name, each), skip in zip(left.items(), now, strict=True) if skip.name not in taken}
        cut = cut.with_net(after).eval()
    gone = [name for name in whole if name not in left]
    wanted = net.with_net(scale_skips(net.net, 0.2, gone, net.example, wake=False)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(cut(images), wanted(images), atol=1e-4)
    assert torch.allclose(skips_back(cut)(images), wanted(images), atol=1e-5)


def test_a_sum_comes_back_though_the_projection_beside_it_is_lost():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.project = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
            self.c = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            x = self.b(torch.relu(self.a(x))) + self.project(x)
            return x + self.c(torch.relu(x))

    joins = find_skips(nn.Sequential(Block(), nn.Conv2d(3, 3, 1)), torch.rand(2, 3, 8, 8))
    assert [skip.projection for skip in joins] == [("0.project",), ()]
    assert [skip.name for skip in _without_weights(joins, {"0.project.weight"})] == ["0.add"]
    assert [skip.name for skip in _without_weights(joins, {"0.gain"})] == ["0.add", "0.add_2"]


def test_scaled_skips_count_in_full_again():
    net = build("timm:resnet10t", 4, 32).eval()
    images = torch.rand(2, 3, 32, 32)
    weak = SSF(0.3).apply(net).eval()
    assert not torch.allclose(weak(images), net(images), atol=1e-5)
    assert torch.allclose(undone(weak, "skips back")(images), net(images), atol=1e-5)


def test_what_cannot_be_put_back_says_why():
    with pytest.raises(UserError, match="projections are gone"):
        skips_back(RoLSS().apply(build("timm:resnet10t", 4, 32)))
    with pytest.raises(UserError, match="--uncut"):
        skips_back(tiny_classifier())
    with pytest.raises(UserError, match="only a copy"):
        skips_back(RoLSS().apply(build("timm:resnet10t", 4, 32)), "timm:resnet14t")


def test_a_checkpoint_tells_its_defences():
    assert defended_by(tiny_classifier()) == ()
    assert defended_by(SSF().apply(tiny_classifier())) == ("ssf",)
    assert defended_by(MID().apply(RoLSS().apply(tiny_classifier())), noisy=True) == ("rolss", "mid")
    assert defended_by(tiny_classifier(), noisy=True) == ("noise",)
    trapped = Traps(TrapMID(), Recipe(), tiny_classifier()).finish(tiny_classifier())
    assert defended_by(trapped) == ("trapmid",)
    assert plan((NegLS(), RoLSS()), Recipe()).names == ("negls", "rolss")
    told = tiny_classifier()
    told.record["defences"] = ["tts", "negls", "of another version"]
    assert defended_by(RoLSS().apply(told)) == ("tts", "negls")
    assert plan((DPSGD(),), Recipe()).names == ("dp",)


def test_who_knows_of_squares_knows_their_size():
    target = tiny_classifier()
    target.record = {"defences": ["midre", "negls"]}
    assert defended_by(target) == ("midre", "negls")  # older records tell no settings
    target.record["defence_settings"] = dict(plan((MIDRE(),), Recipe()).settings)
    assert defended_by(target) == ("midre", "negls")
    target.record["defence_settings"] = dict(plan((MIDRE(least=0.3, most=0.8),), Recipe()).settings)
    assert defended_by(target) == ("midre(least=0.3, most=0.8)", "negls")
    (through, *_) = knowing(defended_by(target))
    assert through.alignment == Erased(copies=8, least=0.3, most=0.8)
    assert knowing(["midre-0.8"])[0].alignment == Erased(copies=8, most=0.8)
    assert knowing(["midre"])[0].alignment == Erased(copies=8)
    with pytest.raises(UserError, match="nothing is known"):
        knowing(["negls(alpha=-1)"])


def test_what_was_fused_was_not_defended():
    net = build("timm:repvgg_a0", 4, 32).eval()
    assert defended_by(net.with_net(fuse(net.net))) == ()
    assert defended_by(RoLSS().apply(net)) == ("rolss",)


def test_privacy_is_what_the_record_says_was_spent():
    private = DPSGD().apply(tiny_classifier())
    assert private.changes
    assert defended_by(private) == ()
    private.record = {"defences": ["dp", "rolss"]}  # plain steps since: nothing is bounded any more
    assert defended_by(private) == ("rolss",)
    private.record = {"defences": ["dp", "rolss"], "privacy": {"epsilon": 8.0}}
    assert defended_by(private) == ("dp", "rolss")
    private.record = {"privacy": {"epsilon": 8.0}}
    assert defended_by(private) == ("dp",)


def test_what_is_known_is_known_once():
    found = knowing(("rolss", "ssf", "negls", "loft"))
    assert len(found) == len(set(found))
    with pytest.raises(UserError, match="'rols'"):
        knowing(("rols",))


@pytest.mark.parametrize(
    ("names", "undo", "margin", "alignment"),
    [
        (("rolss", "negls"), "skips back", True, None),
        (("negls", "rolss"), "skips back", True, None),
        (("rolss", "mid"), "skips back", False, EOT),  # not two changes of the network
        (("rolss", "trapmid"), "skips back", True, LowPassed(copies=8)),
        (("ssf", "bido", "loft"), "skips back", True, TAA),
    ],
)
def test_who_knows_of_several_defences_undoes_all_at_once(names, undo, margin, alignment):
    (both,) = [each for each in knowing(names) if " and " in each.name]
    assert (both.undo, both.margin, both.alignment) == (undo, margin, alignment)
    found = both.attack(PPA())
    assert (found.loss == "max-margin", found.alignment) == (margin, alignment)


@pytest.mark.parametrize(
    "names", [("rolss",), ("rolss", "ssf"), ("negls", "loft"), ("negls", "labels"), ("dp", "bido")]
)
def test_what_one_attack_does_already_or_none_can_is_not_done_again(names):
    assert not any(" and " in each.name for each in knowing(names))


POPULATION = source("faces", people=4, images=4, size=32, public_people=2, public_images=2, judge_images=2)
GIVEN = Given(POPULATION, "0" * 64, file="x.safetensors")


@pytest.mark.parametrize(
    ("defended", "members", "untried"),
    [
        (("ssf",), {"PPA, skips scaled back in", "PPA on a copy with its skips"}, set()),
        (("rolss",), {"PPA on a copy with its skips"}, {"skips scaled back in"}),
        (("mid",), {"PPA, averaged over the noise", "PPA, the mean of the noise"}, set()),
        (("negls",), {"PPA, max-margin", "PPA on a copy by labels"}, set()),
        (("atat", "midre"), {"PPA, averaged over smooth views", "PPA, through the same squares"}, set()),
        (("trapmid",), {"PPA, trapdoor avoidance"}, set()),
        (("dp",), set(), set()),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_an_audit_takes_what_fits_by_itself(defended, members, untried):
    net: Classifier = build("timm:resnet10t", 4, 32)
    change = {"ssf": SSF(), "rolss": RoLSS(), "mid": MID()}.get(defended[0])
    net = change.apply(net) if change else net
    uncut = "timm:resnet10t" if {"ssf", "rolss"} & set(defended) else None
    prior = Rendered(POPULATION)
    group = ensemble(GIVEN, "gradients", "tiny", prior, uncut=uncut, defended=defended, model=net)
    names = [one.name for one in group.members]
    assert members <= set(names)
    assert untried <= set(group.untried)
    assert len({one.task.key for one in group.members}) == len(names)
    plain = ensemble(GIVEN, "gradients", "tiny", prior)
    assert {one.name for one in plain.members} <= set(names)
    behind = ensemble(GIVEN, "scores", "tiny", prior, uncut=uncut, defended=defended, model=net)
    assert not [one for one in behind.members if one.sees == "gradients"]
    assert all(isinstance(one.task.target, Undone) for one in group.members if "scaled back" in one.name)


def test_a_network_of_no_names_is_attacked_as_declared():
    own = Classifier(TinyNet(4), size=32, classes=4)
    group = ensemble(GIVEN, "gradients", "tiny", Rendered(POPULATION), defended=("rolss",), model=own)
    assert "--uncut" in group.untried["skips scaled back in"]
    assert "--uncut" in group.untried["a copy with its skips"]
