"""MI-Face: golden values on a toy that can be solved by hand, its end, its processing, and its place in a report."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightleak.attacks import Guess, MIFace, Oracle
from lightleak.attacks.miface import PRESETS, blurred, flatter
from lightleak.defences import RoLSS
from lightleak.errors import UserError
from lightleak.metrics.evaluate import evaluate
from lightleak.models.classifier import Classifier
from lightleak.priors import PixelsPrior, RenderedPrior
from lightleak.report.collect import NULLS
from lightleak.study.comparison import Setting, compare
from lightleak.study.tasks import source


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def toy() -> Classifier:
    """Logits Wx + b of one pixel's three colours."""
    head = nn.Linear(3, 4)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1, -0.5, 0], [0, 1, -0.5], [-0.5, 0, 1], [0.2, 0.2, 0.2]]))
        head.bias.copy_(torch.tensor([0, 0.1, -0.1, 0]))
    return wrapped(nn.Sequential(nn.Flatten(), head), 1, 4)


def wrapped(net: nn.Module, size: int, classes: int) -> Classifier:
    """A target that takes colours as they are."""
    return Classifier(net, size=size, classes=classes, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def found(target, classes, **settings):
    attack = MIFace(**{"start": "zeros", "patience": 20} | settings)
    return attack.run(Oracle(target), PixelsPrior(target.size), torch.tensor(classes), rng())


@pytest.mark.parametrize(
    ("steps", "colour", "confidence"), [(0, 0.0, 0.249376), (1, 0.020289, 0.253512), (2, 0.040769, 0.257726)]
)
def test_first_iterates_golden(toy, steps, colour, confidence):
    result = found(toy, [0], steps=steps, objective="probability")
    assert torch.allclose(result.latents, torch.tensor([[colour, 0, 0]]), atol=1e-6)
    assert result.confidence.item() == pytest.approx(confidence, abs=1e-6)


@pytest.mark.parametrize(("objective", "ends"), [("probability", (63, 61, 64)), ("log-probability", (36, 36, 35))])
def test_optimum_and_the_step_at_which_nothing_gets_better_golden(toy, objective, ends):
    for label, (end, confidence) in enumerate(zip(ends, (0.485957, 0.523653, 0.459625), strict=True)):
        result = found(toy, [label], steps=200, objective=objective)
        assert torch.equal(result.latents, torch.eye(3)[[label]])
        assert result.confidence.item() == pytest.approx(confidence, abs=1e-6)
        assert result.queries == end + 2  # one for each iterate, the start among them, and one to judge


@pytest.mark.parametrize(("objective", "confidence"), [("probability", 0.252338), ("log-probability", 0.259385)])
def test_a_flat_class_ends_by_steps_golden(toy, objective, confidence):
    together = found(toy, [3, 0], steps=199, objective=objective)  # 200 iterates
    alone = found(toy, [0], steps=199, objective=objective)
    assert together.queries == 200 + 1 + alone.queries  # who is finished asks no more
    assert together.confidence[0].item() == pytest.approx(confidence, abs=1e-5)


def test_many_classes_do_not_stop_it_at_once():
    """ART's rule stops after one update above 100 classes, where no confidence starts above a hundredth."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 101, bias=False))
    nn.init.eye_(net[1].weight)
    result = found(wrapped(net, 6, 101), [7], objective="log-probability")
    e = torch.tensor(1.0).exp()
    assert result.latents.argmax().item() == 7
    assert result.confidence.item() == pytest.approx(float(e / (e + 100)), rel=1e-4)  # one colour at 1, all others at 0


def test_the_best_iterate_comes_back_not_the_last(toy):
    """A huge rate jumps from the start to a corner that is worse."""
    start = found(toy, [3], start="grey", steps=0)
    result = found(toy, [3], start="grey", steps=5, rate=1e6)
    assert result.confidence >= start.confidence
    assert torch.equal(result.latents, start.latents)


def test_it_stops_where_the_target_is_confident_enough(toy):
    assert found(toy, [0], enough=0.7).queries < found(toy, [0], enough=0.6).queries
    assert found(toy, [0], enough=1.0).queries == 2


def test_a_target_that_answers_no_numbers_ends_at_once():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1) / x.flatten(1).sum(1, keepdim=True)  # black is no number

    result = found(wrapped(Broken(), 1, 3), [1])
    assert result.queries == 2
    assert torch.equal(result.latents, torch.zeros(1, 3))


def test_processing_in_closed_form():
    point = torch.zeros(1, 3, 5, 5)
    point[:, :, 2, 2] = 1
    kernel = torch.tensor([1.0, 2, 1])
    assert torch.allclose(blurred(point, 1.0)[0, 0, 1:4, 1:4], kernel[:, None] * kernel / 16)
    assert torch.allclose(blurred(point, 0.4), 0.6 * point + 0.4 * blurred(point, 1.0))
    flattened = flatter(point, 0.2)  # four neighbours pull by 0.05 each
    assert flattened[0, 0, 2, 2].item() == pytest.approx(0.8)
    assert flattened[0, 0, 2, 1].item() == pytest.approx(0.05)
    for process in (blurred, flatter):
        even = torch.full((2, 3, 4, 4), 0.3)
        assert torch.allclose(process(even, 0.5), even)
        noise = torch.rand(1, 3, 8, 8, generator=rng())
        after = process(noise, 0.3)
        assert sum(after.diff(dim=axis).abs().sum() for axis in (2, 3)) < sum(
            noise.diff(dim=axis).abs().sum() for axis in (2, 3)
        )
        assert torch.equal(process(noise, 0.0), noise)
    assert flatter(noise, 0.3).mean().item() == pytest.approx(noise.mean().item(), abs=1e-6)


def test_as_a_null_it_convinces_the_target_and_has_no_truth(tiny_target, tiny_judge, tiny_population):
    """Pixels are no factors, however many of them there are."""
    classes, painter = torch.arange(6), RenderedPrior(32)
    oracle = Oracle(tiny_target)
    noise = MIFace(steps=30, rate=1.0, start="noise").run(oracle, PixelsPrior(32), classes, rng())
    assert (noise.confidence > 0.9).all()
    guessed = Guess(keep=1).run(oracle, painter, classes, rng())
    told = evaluate(guessed, tiny_judge, tiny_population, prior=painter, nulls={"adversarial": noise})
    assert told.measures["verified"] is not None
    null = told.nulls["adversarial"]
    assert null.measures["hits@1"] is not None
    assert null.measures["verified"] is None
    assert null.measures["true@1"] is None
    assert "adversarial" in NULLS


def test_a_comparison_runs_it_beside_each_target_where_asked():
    setting = Setting(source("faces", people=4), attack=Guess(keep=1), adversarial=PRESETS["null"])
    for task in compare(setting, ((), (RoLSS(),))):
        null = task.nulls["adversarial"]
        assert null.target == task.found.target
        assert null.attack == PRESETS["null"]
        assert null in task.spare()
    assert "adversarial" not in compare(replace(setting, adversarial=None), ((),))[0].nulls


@pytest.mark.parametrize("process", ["blur", "total-variation"])
def test_processed_images_are_smoother(process):
    torch.manual_seed(0)
    target = wrapped(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 8, 3)

    def roughness(process):
        images = found(target, [0], start="grey", steps=30, process=process, strength=0.5).images
        return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()

    assert roughness(process) < 0.8 * roughness("none")


def test_one_clear_line(toy):
    for settings, message in (
        ({"objective": "prob"}, "no objective 'prob'; choose from log-probability"),
        ({"start": "mean"}, "no start 'mean'"),
        ({"process": "denoise"}, "no process 'denoise'"),
        ({"attempts": 3}, "use start noise"),
        ({"rate": float("nan")}, "rate must be above 0"),
    ):
        with pytest.raises(UserError, match=message):
            MIFace(**settings)
    oracle = Oracle(toy)
    with pytest.raises(UserError, match="pixels themselves, not with RenderedPrior"):
        MIFace().run(oracle, RenderedPrior(32), torch.tensor([0]), rng())
    assert oracle.queries == 0
