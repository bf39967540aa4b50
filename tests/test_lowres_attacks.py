"""GMI, KED-MI and LOMMA: golden values, losses against plain transcriptions, and priors that were really fitted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from conftest import tiny_classifier
from lightleak.attacks import GMI, KEDMI, LOMMA, Distillation, Guess, Knowledge, Oracle, Transfer, learn
from lightleak.attacks.draws import Rows, own_latents, own_normals, seed_of
from lightleak.attacks.gmi import moved
from lightleak.attacks.knowledge import SMALL, SMALL_TRANSFER
from lightleak.attacks.steps import negative_logit
from lightleak.attacks.surrogate import divergence
from lightleak.cli.attack import _knowledge, main
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.models.classifier import save
from lightleak.models.zoo import build
from lightleak.priors import GanPrior, RenderedPrior
from lightleak.priors.fit import KED_QUICK, QUICK, fit
from lightleak.priors.gan64 import Critic, Generator, InversionPrior, MinibatchDiscriminator

STUDENT = Distillation(students=("timm:test_efficientnet",), pretrained=False, epochs=2, batch=8, checkpoint_every=3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def learnt(tiny_target, tiny_population) -> Knowledge:
    return learn(Oracle(tiny_target), tiny_population.public, STUDENT, rng())


@pytest.fixture(scope="module")
def gan() -> GanPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GanPrior(Generator(32, 2, 7), Critic(32, 2))


@pytest.fixture(scope="module")
def specific() -> InversionPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InversionPrior(Generator(32, 2, 7), MinibatchDiscriminator(32, 2, 6, kernels=4, dimensions=3), 6)


def wave(rows: int, columns: int, size: float, a: float, b: float) -> torch.Tensor:
    return (size * torch.sin(a * torch.arange(rows * columns, dtype=torch.float64) + b)).view(rows, columns)


# Golden values


def test_golden_step_of_momentum():
    latents, velocity, slope = (torch.tensor(v) for v in ([0.5, -0.9], [0.1, -0.2], [3.0, 8.0]))
    latents, velocity = moved(latents, velocity, slope, 0.02, 0.9, 1.0)
    torch.testing.assert_close(velocity, torch.tensor([0.03, -0.34]))
    torch.testing.assert_close(latents, torch.tensor([0.467, -1.0]))


def test_golden_losses():
    loss = negative_logit(wave(3, 6, 3, 1.3, 0), torch.tensor([2, 0, 5])).mean()
    assert loss.item() == pytest.approx(-1.4054097, abs=1e-5)
    made = wave(3, 6, 2, 0.5, 1)
    assert F.softplus(-made.logsumexp(1)).mean().item() == pytest.approx(0.1262727, abs=1e-5)


# Plain transcriptions: one batch, means over it, parameters and all


def test_gmi_is_the_published_loop(tiny_target, gan):
    attack = GMI(attempts=1, steps=6, averaged=4, weight=100)
    classes = torch.tensor([0, 3, 5, 1])
    found = attack.run(Oracle(tiny_target), gan, classes, rng())
    seed = seed_of(rng())
    z = own_latents(gan, seed, classes, torch.zeros(4, dtype=torch.long)).requires_grad_()
    v = torch.zeros(4, 7)
    for _ in range(6):
        fake = gan.generator(z)
        prior_loss = -gan.critic(fake).mean()
        identity_loss = torch.nn.CrossEntropyLoss()(tiny_target(fake), classes)
        (slope,) = torch.autograd.grad(prior_loss + 100 * identity_loss, z)
        old = v.clone()
        v = 0.9 * v - 0.02 * slope
        z = torch.clamp(z.detach() + (-0.9 * old + 1.9 * v), -1, 1).requires_grad_()
    torch.testing.assert_close(found.latents, z.detach(), atol=1e-4, rtol=1e-4)
    assert found.queries == 4 * 6 + 4
    assert found.latents.abs().max() <= 1


@pytest.mark.parametrize("coupled", [0, 4])
def test_kedmi_is_the_published_loop(tiny_target, specific, coupled):
    attack = KEDMI(attempts=2, steps=5, coupled=coupled)
    classes = torch.tensor([0, 3, 5, 1])
    found = attack.run(Oracle(tiny_target), specific, classes, rng())
    seed = seed_of(rng())
    noise = own_normals(seed, classes, torch.zeros(4, dtype=torch.long), (5, 7))
    mu, log_variance = torch.zeros(4, 7, requires_grad=True), torch.ones(4, 7, requires_grad=True)
    adam = torch.optim.Adam([mu, log_variance], lr=0.02)
    for step in range(5):
        fake = specific.generator(noise[:, step] * torch.exp(0.5 * log_variance) + mu)
        if coupled:
            total = specific.discriminator(fake)[1].logsumexp(1)
        else:
            samples = specific.generator(torch.randn(5, 7, generator=rng()))
            groups = [torch.cat([one[None], samples]) for one in fake]
            total = torch.stack([specific.discriminator(group)[1][0].logsumexp(0) for group in groups])
        prior_loss = F.softplus(total).mean() - total.mean()
        loss = prior_loss + 100 * F.cross_entropy(tiny_target(fake), classes)
        adam.zero_grad()
        mu.grad, log_variance.grad = torch.autograd.grad(loss, [mu, log_variance])
        adam.step()
    draws = own_normals(seed + 1, classes.repeat_interleave(2), torch.tensor([0, 1] * 4), (7,))
    z = mu.detach().repeat_interleave(2, 0) + torch.exp(0.5 * log_variance.detach()).repeat_interleave(2, 0) * draws
    torch.testing.assert_close(found.latents, z, atol=2e-3, rtol=1e-3)
    assert found.classes.tolist() == [0, 0, 3, 3, 5, 5, 1, 1]
    assert found.queries == 4 * 5 + 8


@torch.no_grad()
@pytest.mark.parametrize(("drawn", "norm"), [(False, False), (True, False), (False, True)])
def test_lomma_s_identity_loss(tiny_target, learnt, drawn, norm):
    attack = LOMMA(drawn=drawn, norm=norm, regulariser=0.7)
    classes, attempts = torch.tensor([4, 2]), torch.tensor([0, 1])
    images = torch.rand(2, 3, 32, 32, generator=rng())
    losses, logits = attack.identity(Oracle(tiny_target), learnt, 9)(images, Rows(9, classes, attempts))
    torch.testing.assert_close(logits, tiny_target(images), atol=1e-4, rtol=1e-4)
    goal = learnt.mean[None].expand(2, -1)
    if drawn:
        goal = goal + learnt.spread * own_normals(11, classes, attempts, goal.shape[1:])
    features = tiny_target.features(images)
    for i, label in enumerate(classes.tolist()):
        models = [tiny_target, *learnt.students]
        logit = -sum(float(model(images[i : i + 1])[0, label]) for model in models) / len(models)
        squares = [(float(a) - float(b)) ** 2 for a, b in zip(features[i], goal[i], strict=True)]
        apart = sum(squares) if norm else sum(squares) / len(squares)
        assert losses[i].item() == pytest.approx(logit + 0.7 * apart, rel=1e-4)


def test_lomma_without_its_additions_is_the_other_attack(tiny_target, specific, gan):
    plain = {"loss": "cross-entropy", "regulariser": 0.0, "students": False}
    for around, prior, other in (
        ("kedmi", specific, KEDMI(attempts=2, steps=3, clip=1.0)),
        ("gmi", gan, GMI(attempts=2, steps=3)),
    ):
        attack = LOMMA(around=around, attempts=2, steps=3, **plain)  # pyright: ignore[reportArgumentType]
        assert not attack.needs().knowledge
        classes = torch.tensor([1, 4])
        ours, theirs = (each.run(Oracle(tiny_target), prior, classes, rng()) for each in (attack, other))
        assert torch.equal(ours.latents, theirs.latents)
        assert ours.latents.abs().max() <= 1


# Knowledge


def test_knowledge_is_what_the_target_says_of_public_images(tiny_target, tiny_population, learnt):
    public = tiny_population.public.floats()
    with torch.no_grad():
        features = tiny_target.features(public)
        teacher = tiny_target(public).argmax(1)
        student = learnt.students[0](public).argmax(1)
    torch.testing.assert_close(learnt.mean, features.mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(learnt.spread, features.std(0), atol=1e-4, rtol=1e-3)
    assert learnt.agreement[0] == pytest.approx((teacher == student).double().mean().item())
    assert learnt.queries == len(public)


def test_divergence_by_hand():
    student, teacher = wave(3, 6, 2, 0.9, 0.2), wave(3, 6, 3, 1.3, 0)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = sum(float(p[i, k] * (p[i, k].log() - q[i, k].log())) for i in range(3) for k in range(6)) / 3 / 4
    assert divergence(student, teacher, 2.0).item() == pytest.approx(expected)
    assert divergence(teacher, teacher, 1.0).item() == pytest.approx(0, abs=1e-12)


def weights(knowledge: Knowledge) -> list[torch.Tensor]:
    return [value for student in knowledge.students for value in student.state_dict().values()]


class StopError(Exception):
    pass


def test_a_stopped_distillation_goes_on_to_the_same_result(tiny_target, tiny_population, learnt, tmp_path):
    def stop(step, _total, **_):
        if step == 5:
            raise StopError

    before = torch.get_rng_state()
    with pytest.raises(StopError):
        learn(Oracle(tiny_target), tiny_population.public, STUDENT, rng(), tmp_path, stop)
    heard = []
    again = learn(
        Oracle(tiny_target),
        tiny_population.public,
        STUDENT,
        rng(),
        tmp_path,
        lambda step, total, **_: heard.append((step, total)),
    )
    assert torch.equal(before, torch.get_rng_state())
    assert heard == [(step, 8) for step in range(4, 9)]  # kept after the third step
    assert all(torch.equal(one, two) for one, two in zip(weights(learnt), weights(again), strict=True))
    other = tiny_classifier(seed=3)
    with pytest.raises(UserError, match="belongs to other images"):
        learn(Oracle(other), tiny_population.public, STUDENT, rng(), tmp_path)


def test_knowledge_survives_the_disk(learnt, tmp_path):
    learnt.save(tmp_path / "k")
    again = Knowledge.load(tmp_path / "k")
    assert all(torch.equal(one, two) for one, two in zip(weights(learnt), weights(again), strict=True))
    assert torch.equal(learnt.mean, again.mean)
    assert torch.equal(learnt.spread, again.spread)
    assert (again.agreement, again.queries) == (learnt.agreement, learnt.queries)
    with pytest.raises(UserError, match="there is no knowledge"):
        Knowledge.load(tmp_path)
    (tmp_path / "k" / "features.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match="holds no knowledge"):
        Knowledge.load(tmp_path / "k")


@pytest.fixture(scope="module")
def taught(tiny_target, tiny_population) -> Knowledge:
    return learn(Oracle(tiny_target), tiny_population.public, replace(STUDENT, epochs=20), rng())


def test_students_learn(taught, learnt):
    assert taught.agreement[0] > max(0.7, learnt.agreement[0])


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GMI(steps=-1, momentum=1.0), "steps at least 0; rate and clip"),
        (lambda: GMI(loss="cosine"), "there is no loss 'cosine'"),
        (lambda: KEDMI(attempts=0), "attempts and batch must be at least 1"),
        (lambda: KEDMI(clip=0.0), "rate and clip must be above 0"),
        (lambda: LOMMA(around="ppa"), "around kedmi or gmi, not 'ppa'"),  # pyright: ignore[reportArgumentType]
        (lambda: LOMMA(rate=0.0), "rate and clip must be above 0"),
        (lambda: LOMMA(regulariser=-1.0), "regulariser"),
        (
            lambda: Distillation(epochs=0, temperature=0),
            "epochs must be at least 1, not 0; temperature must be above 0",
        ),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_what_was_learnt_of_another_target_is_refused_on_the_command_line(tiny_target, tiny_judge, learnt, tmp_path):
    """Students of one network say nothing of the next in a row of them."""
    learnt.save(tmp_path)
    again = _knowledge(Oracle(tiny_target), tmp_path, lambda: pytest.fail("learnt anew"), SMALL, 0)
    assert again.target == weights_of(tiny_target.net)
    with pytest.raises(UserError, match="learnt of another target"):
        _knowledge(Oracle(tiny_judge), tmp_path, lambda: pytest.fail("learnt anew"), SMALL, 0)
    replace(learnt, target="").save(tmp_path)  # an older file, which does not say
    assert _knowledge(Oracle(tiny_judge), tmp_path, lambda: pytest.fail("learnt anew"), SMALL, 0).target == ""


def test_knowledge_that_was_learnt_otherwise_than_is_asked_for_is_refused(
    tiny_target, tiny_population, learnt, tmp_path, capsys
):
    learnt.save(tmp_path)
    oracle, public = Oracle(tiny_target), tiny_population.public

    def taken(lessons=SMALL, images=None, seed=0):
        return _knowledge(
            oracle, tmp_path, lambda: images or pytest.fail("nobody named images"), lessons, seed, bool(images)
        )

    for found in (taken(seed=7), taken(STUDENT), taken(replace(STUDENT, checkpoint_every=1)), taken(STUDENT, public)):
        assert found.made == learnt.made
    for lessons, images, message in (
        (replace(STUDENT, epochs=3), None, r"learnt otherwise \(epochs 2, not 3\); name another folder"),
        (replace(STUDENT, epochs=3), tiny_population.train, r"\(epochs 2, not 3; of other images\)"),
        (STUDENT, tiny_population.train, r"\(of other images\)"),
        (SMALL, public, r"\(students \('timm:test_efficientnet',\), not"),
        (SMALL_TRANSFER, public, "students"),
    ):
        with pytest.raises(UserError, match=message) as error:
            taken(lessons, images)
        assert "\n" not in str(error.value)
    capsys.readouterr()
    replace(learnt, made={}).save(tmp_path)  # an older file
    assert taken().made == {}
    assert not capsys.readouterr().out
    assert taken(replace(STUDENT, epochs=3)).made == {}
    assert "does not say how it was learnt" in " ".join(capsys.readouterr().out.split())
    assert oracle.queries == 0


@pytest.mark.parametrize(
    ("attack", "given", "message"),
    [
        (GMI(), {"distillation": STUDENT}, "GMI learns nothing beforehand; leave --distillation out"),
        (GMI(), {"transfer": Transfer()}, "GMI learns nothing beforehand; leave --transfer out"),
        (GMI(), {"distillation": STUDENT, "settings": {"people": "4"}}, "leave --settings, --distillation out"),
        (GMI(), {"public": "faces", "knowledge": Path("k")}, "leave --knowledge, --public out"),
        (
            LOMMA(around="gmi"),
            {"transfer": Transfer()},
            "learns from public images; leave --transfer out",
        ),
    ],
)
def test_options_of_learning_that_an_attack_does_not_use_are_refused(attack, given, message, tmp_path):
    save(build("timm:test_efficientnet", 4, 32).eval(), tmp_path / "target.safetensors")
    with pytest.raises(UserError, match=message):
        main(out=tmp_path / "found.safetensors", target=tmp_path / "target.safetensors", attack=attack, **given)


def test_lomma_asks_for_knowledge(tiny_target, gan, learnt):
    attack = LOMMA(around="gmi", attempts=1, steps=1)
    with pytest.raises(UserError, match="pass knowledge="):
        attack.run(Oracle(tiny_target), gan, torch.tensor([0]), rng())
    with pytest.raises(UserError, match="holds no students"):
        attack.run(Oracle(tiny_target), gan, torch.tensor([0]), rng(), knowledge=replace(learnt, students=()))


# With priors that were really fitted to the public images


@pytest.fixture(scope="module")
def fitted(tiny_target, tiny_population):
    """GMI's and KED-MI's priors, each for the tiny world."""
    wide = {"width": 8, "latents": 16, "warmup": 150, "steps": 30}
    public = tiny_population.public
    return {
        "gmi": fit(public, replace(QUICK, critic_width=8, **wide)),
        "kedmi": fit(public, replace(KED_QUICK, discriminator_width=8, **wide), target=Oracle(tiny_target).logits),
    }


@pytest.mark.parametrize("name", ["gmi", "kedmi"])
def test_each_beats_its_prior_and_the_null(name, fitted, tiny_target):
    host = name.split()[-1]
    common = {"attempts": 2, "steps": 60}
    attack = {
        "gmi": GMI(**common, averaged=10),
        "kedmi": KEDMI(**common, rate=0.1, log_variance=-2.0),
    }[name]
    classes, oracle = torch.arange(6), Oracle(tiny_target)
    found = attack.run(oracle, fitted[host], classes, rng())
    start = replace(attack, steps=0).run(oracle, fitted[host], classes, rng())
    null = Guess(keep=2).run(oracle, fitted[host], classes, rng())
    assert found.confidence.mean() > max(start.confidence.mean(), null.confidence.mean()) + 0.2
    assert math.isfinite(found.latents.abs().max())


def test_the_rendered_prior_serves_too(tiny_target):
    found = KEDMI(attempts=1, steps=2).run(Oracle(tiny_target), RenderedPrior(size=32), torch.tensor([0]), rng())
    assert found.images.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("around", ["gmi", "kedmi"])
def test_lomma_beats_its_prior_and_the_null_by_what_it_descends(around, fitted, tiny_target, learnt):
    """LOMMA raises the logit of the class, not its share: another class may rise with it."""
    attack = LOMMA(around=around, attempts=2, steps=60, averaged=10, rate=0.1 if around == "kedmi" else 0.02)
    classes = torch.arange(6)

    def logit(found):
        with torch.no_grad():
            return tiny_target(found.images).gather(1, found.classes[:, None]).mean()

    found = attack.run(Oracle(tiny_target), fitted[around], classes, rng(), knowledge=learnt)
    start = replace(attack, steps=0).run(Oracle(tiny_target), fitted[around], classes, rng(), knowledge=learnt)
    null = Guess(keep=2).run(Oracle(tiny_target), fitted[around], classes, rng())
    assert logit(found) > max(logit(start), logit(null)) + 0.5
