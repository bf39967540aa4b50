"""Voting: a majority of labels over forms of each image, against a guard whose draw depends on the image."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightleak.attacks import SSD, Oracle, Smoothed
from lightleak.attacks.adaptive import LABELS, VOTES, knowing
from lightleak.attacks.knowledge import Transfer, learn
from lightleak.attacks.ssd import seen
from lightleak.attacks.surrogate import Lessons, as_logits, asked
from lightleak.attacks.votes import form, voted
from lightleak.audit.ensemble import ensemble
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.fingerprint import told
from lightleak.models.classifier import Classifier
from lightleak.priors.fit import LOKT_QUICK
from lightleak.study.keys import canonical
from lightleak.study.tasks import Copied, Given, Rendered, TrainTarget, source

SURE = 0.6  # of the first class, by the target below


class Constant(nn.Module):
    """The same two probabilities for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([SURE, 1 - SURE]).log())

    def forward(self, images):
        return self.logits.expand(len(images), 2)


def target():
    return Classifier(Constant(), size=32, classes=2, mean=(0.0,) * 3, std=(1.0,) * 3)


def smooth(count, size=32):
    """Images without fine detail."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=size, mode="bilinear")


@pytest.mark.parametrize(
    ("answers", "label"),
    [
        ((0, 1, 1), 1),
        ((2, 1, 0), 2),
        ((-1, 1, 0), 1),
        ((-1, -1, 3), 3),
        ((-1, -1, -1), -1),
        ((0, 1, 1, 0), 0),
        ((4,), 4),
    ],
)
def test_the_majority_counts_and_of_several_the_first(answers, label):
    said = iter(answers)
    assert (
        voted(lambda images: torch.tensor([next(said)] * len(images)), torch.rand(2, 3, 8, 8), len(answers)).tolist()
        == [label] * 2
    )


def test_forms_show_the_same_moved():
    images = torch.rand(3, 3, 64, 64)
    forms = [form(images, number) for number in range(9)]
    assert torch.equal(forms[0], images)
    assert torch.equal(forms[1][..., 2:], images[..., :-2])  # to the right by 1 / 32 of a side
    assert torch.equal(forms[1][..., 0], images[..., 0])  # the border again
    assert torch.equal(forms[2][..., 2:, :], images[..., :-2, :])
    assert torch.equal(forms[3][..., :-2], images[..., 2:])
    assert torch.equal(forms[8][..., :-4, :], images[..., 4:, :])
    assert len({one.numpy().tobytes() for one in forms}) == 9
    assert torch.equal(form(images[1:2], 5), forms[5][1:2])  # no image's form depends on the others


@pytest.mark.parametrize("size", [32, 48, 64, 224])
def test_a_guard_that_draws_by_the_image_draws_again_for_another_form(size):
    images = smooth(60, size)
    seeds = [seen(form(images, number)) for number in range(3)]
    fresh = [len({*each}) == 3 for each in zip(*seeds, strict=True)]
    assert sum(fresh) > 0.85 * len(fresh)


def test_a_vote_of_three_undoes_part_of_the_shield_as_the_binomial_says():
    """SSD whose budget reaches every mean answer names the first class with probability a; two of three agree on it
    with probability a^2 (3 - 2 a).
    """
    guard = SSD(epsilon=50.0, temperature=0.2, means=torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    images, oracle = smooth(4000), Oracle(target(), "labels", guard=guard)
    once, thrice = (float((voted(oracle.labels, images, votes) == 0).float().mean()) for votes in (1, 3))
    assert oracle.queries == 4 * len(images)
    a = 1 / (1 + torch.tensor((1 - 2 * SURE) / 0.2).exp().item())
    assert once == pytest.approx(a, abs=0.025)
    assert thrice == pytest.approx(a**2 * (3 - 2 * a), abs=0.025)
    assert thrice > once + 0.04
    part = voted(Oracle(target(), "labels", guard=guard).labels, images[5:9], 3)
    assert torch.equal(part, voted(oracle.labels, images[:20], 3)[5:9])


def test_smoothing_draws_other_noise_for_another_form():
    """A target at the edge: each image's answer is a coin, or none; of three forms more are answered than of one."""
    guard = Smoothed(sigma=0.3, number=5, alpha=0.2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.ones(3072), -torch.ones(3072)]))  # pyright: ignore
    edge = Classifier(net, size=32, classes=2, mean=(0.5,) * 3, std=(1.0,) * 3)
    oracle, images = Oracle(edge, "labels", guard=guard), smooth(300)
    images = images - images.mean((1, 2, 3), keepdim=True) + 0.5
    answered = [float((voted(oracle.labels, images, votes) >= 0).float().mean()) for votes in (1, 3)]
    assert answered[0] + 0.1 < answered[1]


def test_whatever_learns_of_labels_asks_so_often_and_counts_it():
    images = Images((255 * smooth(12)).byte(), torch.arange(12))
    lessons = Lessons(epochs=1, batch=4, pretrained=False, votes=3)
    oracle = Oracle(target(), "labels")
    found = learn(oracle, images, Transfer(("timm:test_resnet",), lessons=lessons), torch.Generator().manual_seed(0))
    assert found.queries == oracle.queries == 36
    teacher = Oracle(target(), "labels")
    heard = asked(teacher, replace(LOKT_QUICK, votes=3))
    heard(smooth(5))
    assert heard.count == teacher.queries == 15
    assert replace(LOKT_QUICK, votes=3).queries == 3 * LOKT_QUICK.queries
    assert asked(Oracle(target(), "labels"), LOKT_QUICK).each == 1
    with pytest.raises(UserError, match="a majority of 3 votes is one of labels; this oracle grants scores"):
        as_logits(Oracle(target(), "scores"), 3)
    with pytest.raises(UserError, match="votes must be at least 1, not 0"):
        Lessons(votes=0)


POPULATION = source("faces", people=4, images=4, size=32, public_people=2, public_images=2, judge_images=2)


def test_one_vote_is_what_it_was_in_keys_and_in_kept_states():
    for settings in (Lessons(), LOKT_QUICK):
        assert "votes" not in canonical(settings)["fields"]
        assert "votes" not in told(settings)
        assert "votes" in canonical(replace(settings, votes=3))["fields"]
        assert told(replace(settings, votes=3))["votes"] == 3
    plain = Copied(TrainTarget(POPULATION), "labels")
    voting = replace(plain, lessons=VOTES.lessons(plain.lessons))
    assert LABELS.lessons(plain.lessons) == plain.lessons
    assert plain.title == "no defence, a copy by its labels"
    assert voting.title == "no defence, a copy by its labels, a vote of 3"
    assert plain.key != voting.key


@pytest.mark.parametrize("access", ["labels", "scores"])
def test_an_audit_of_an_api_that_draws_votes_by_itself(access):
    assert VOTES in knowing(["ssd"])
    assert VOTES in knowing(["smoothed"])
    assert VOTES not in knowing(["rounded", "loft"])
    given = Given(POPULATION, "0" * 64, file="x.safetensors", guard=SSD())
    group = ensemble(given, access, "tiny", Rendered(POPULATION), defended=("ssd",))
    votes = {one.name: one.copy.lessons.votes for one in group.members if one.copy}
    assert votes["PPA on a copy by a vote of 3 labels"] == 3
    assert votes["PPA on a copy by labels"] == 1
    assert votes["guess"] == 1
    plain = ensemble(given, access, "tiny", Rendered(POPULATION), defended=())
    assert {one.task.key for one in plain.members} < {one.task.key for one in group.members}
