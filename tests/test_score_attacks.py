"""Black-box attacks by scores: golden values of their steps, and targets whose best latent is known."""

import math
from dataclasses import replace

import pytest
import torch

from lightleak.attacks import GMI, RLBMI, SMILE, SSD, Alignment, Knowledge, MirrorBlackBox, Oracle
from lightleak.attacks.draws import Streams
from lightleak.attacks.evolution import Evolution, Rates
from lightleak.attacks.guards import Rounded, TopK
from lightleak.attacks.mirror_black_box import parents, share_of, weights
from lightleak.attacks.rlbmi import Bandit, confidence_and_reward
from lightleak.attacks.smile import ramp
from lightleak.errors import UserError
from toy_targets import LATENTS, Plain, balls, classifier_of, oracle_of, rng

CENTRES = 0.5 * torch.randn(3, LATENTS, generator=rng(1)).sign()
SLOPES = torch.randn(2, LATENTS, generator=rng(2)).sign()


def mirror(**changes):
    return MirrorBlackBox(**({"queries": 1900, "samples": 300, "population": 20, "enough": None} | changes))


# ---------------------------------------------------------------------------------------------------------------------
# MIRROR


def test_golden_parents_and_shares():
    confidence = torch.tensor([[0.5, 0.05, 0.01]])
    assert torch.allclose(weights(confidence), torch.tensor([[0.892857, 0.089286, 0.017857]]), atol=1e-6)
    share = share_of(torch.tensor(0.5), torch.tensor(0.05))
    assert share.item() == pytest.approx(0.909091, abs=1e-6)
    assert torch.isfinite(share_of(torch.zeros(2), torch.zeros(2))).all()


def test_parents_are_drawn_by_their_weights():
    confidence = torch.tensor([[0.5, 0.05, 0.01, 0.0], [0.0, 0.0, 0.0, 0.0]])
    streams = Streams(0, torch.tensor([3, 4]), torch.tensor([0, 0]))
    chosen = torch.cat(parents(confidence, 20_000, streams, torch.arange(2)), 1)
    shares = torch.stack([(chosen == place).double().mean(1) for place in range(4)], 1)
    assert torch.allclose(shares[0], weights(confidence)[0].double(), atol=0.006)
    assert torch.allclose(shares[1], torch.full((4,), 0.25).double(), atol=0.01)


def test_mirror_finds_the_corner_of_the_box():
    """A linear target is surest at the corner of the box that its slopes point to: +-kappa in every latent."""

    def logits(latents):
        return torch.cat([latents @ SLOPES.T / 2, torch.zeros(len(latents), 1) + 4], 1)

    oracle = oracle_of(logits, 3, "scores")
    result = mirror(queries=19 * 150).run(oracle, Plain(), torch.arange(2), rng())
    best = torch.tensor([logits(SLOPES[c : c + 1]).softmax(1)[0, c] for c in (0, 1)])
    assert (result.confidence > 0.9 * best).all()
    assert (result.latents.abs() <= 1 + 1e-6).all() or (result.latents * SLOPES).mean() > 0.85
    assert ((result.latents * SLOPES) > 0.6).all()


def test_mirror_spends_its_budget_to_the_query():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = mirror(queries=1903).run(oracle, Plain(), torch.arange(3), rng())
    assert result.queries == oracle.queries == 300 + 3 * 1903
    assert result.shared == 300
    curve = result.per_class["curve"]
    assert curve.shape == (3, 102, 2)
    assert curve[:, -1, 0].tolist() == [1903] * 3
    assert (curve.diff(dim=1) >= 0).all()
    assert torch.allclose(curve[:, -1, 1], result.confidence)


def test_mirror_stops_where_it_is_confident_enough():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = mirror(enough=0.5).run(oracle, Plain(), torch.arange(3), rng())
    assert (result.confidence >= 0.5).all()
    assert result.queries < 300 + 3 * 1900
    spent = result.per_class["curve"][:, -1, 0]
    assert result.queries == 300 + spent.sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 998}, "at least 999"),
        ({"population": 1}, "population"),
        ({"population": 10, "samples": 5}, "population"),
        ({"enough": 1.5}, "enough"),
        ({"kappa": 0.0}, "kappa"),
    ],
)
def test_bad_settings_of_mirror_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        MirrorBlackBox(**settings)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Separable CMA-ES, and SMILE


def plain_cma(mean, step, sampled, fitness, generations):
    """One search, number by number, from the tutorial's formulas (Hansen 2016), variances as Ros and Hansen's."""
    n, size = len(mean), sampled.shape[1]
    mu = size // 2
    w = [math.log((size + 1) / 2) - math.log(i) for i in range(1, mu + 1)]
    w = [x / sum(w) for x in w]
    mueff = 1 / sum(x * x for x in w)
    cs, cc = (mueff + 2) / (n + mueff + 5), (4 + mueff / n) / (n + 4 + 2 * mueff / n)
    ds = 1 + 2 * max(0, math.sqrt((mueff - 1) / (n + 1)) - 1) + cs
    c1 = 2 / ((n + 1.3) ** 2 + mueff)
    cmu = min(1 - c1, 2 * (mueff - 2 + 1 / mueff) / ((n + 2) ** 2 + mueff))
    c1, cmu = c1 * (n + 2) / 3, min(1 - c1 * (n + 2) / 3, cmu * (n + 2) / 3)
    chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    c, ps, pc = [1.0] * n, [0.0] * n, [0.0] * n
    for t in range(generations):
        people = [[mean[i] + step * math.sqrt(c[i]) * float(z[i]) for i in range(n)] for z in sampled[t]]
        order = sorted(range(size), key=lambda k: -fitness(people[k]))[:mu]
        old = list(mean)
        mean = [sum(w[j] * people[k][i] for j, k in enumerate(order)) for i in range(n)]
        y = [(mean[i] - old[i]) / step for i in range(n)]
        ps = [(1 - cs) * ps[i] + math.sqrt(cs * (2 - cs) * mueff) * y[i] / math.sqrt(c[i]) for i in range(n)]
        length = math.sqrt(sum(x * x for x in ps))
        h = float(length / math.sqrt(1 - (1 - cs) ** (2 * (t + 1))) < (1.4 + 2 / (n + 1)) * chi)
        pc = [(1 - cc) * pc[i] + h * math.sqrt(cc * (2 - cc) * mueff) * y[i] for i in range(n)]
        for i in range(n):
            rank = sum(w[j] * ((people[k][i] - old[i]) / step) ** 2 for j, k in enumerate(order))
            c[i] = (1 - c1 - cmu) * c[i] + c1 * (pc[i] ** 2 + (1 - h) * cc * (2 - cc) * c[i]) + cmu * rank
        step *= math.exp(cs / ds * (length / chi - 1))
    return mean, step, c


def test_evolution_equals_the_tutorials_formulas():
    n, size, generations = 5, 8, 40
    scales = torch.tensor([1.0, 3.0, 0.3, 10.0, 0.5])
    sampled = torch.randn(2, generations, size, n, generator=rng(3), dtype=torch.float64)
    state = Evolution.at(torch.stack([torch.ones(n), 2 * torch.ones(n)]).double(), 0.5)
    state = replace(state, step=state.step.double())
    for t in range(generations):
        people = state.candidates(sampled[:, t])
        state = state.after(sampled[:, t], -(scales * people).square().sum(2), Rates.of(n, size))
    for search, start in enumerate((1.0, 2.0)):
        mean, step, variances = plain_cma(
            [start] * n,
            0.5,
            sampled[search],
            lambda x: -sum((float(s) * v) ** 2 for s, v in zip(scales, x, strict=True)),
            generations,
        )
        assert state.mean[search].tolist() == pytest.approx(mean, rel=1e-3, abs=1e-5)
        assert float(state.step[search]) == pytest.approx(step, rel=1e-3)
        assert state.variances[search].tolist() == pytest.approx(variances, rel=1e-3)


def test_evolution_learns_unequal_scales_and_ignores_nan():
    """300 searches at once: a quadratic whose axes differ a thousandfold in curvature; a third of answers are NaN."""
    n, size, generator = 8, 12, rng(4)
    scales = torch.logspace(0, 1.5, n)
    state = Evolution.at(torch.ones(300, n), 0.5)
    for _ in range(250):
        normals = torch.randn(300, size, n, generator=generator)
        fitness = -(scales * state.candidates(normals)).square().sum(2)
        fitness[:, ::3] = torch.nan
        state = state.after(normals, fitness, Rates.of(n, size))
    assert (scales * state.mean).square().sum(1).max() < 1e-3
    assert state.step.isfinite().all()


def test_golden_ramp():
    """MIRROR's rate of 0.25."""
    assert ramp(0.0) == 0
    shares = (0.025, 0.05, 0.5, 0.75, 0.8, 0.9, 1.0)
    assert [0.25 * ramp(t) for t in shares] == pytest.approx([0.125, 0.25, 0.25, 0.25, 0.226127, 0.086373, 0], abs=1e-6)


def smile(**changes):
    return SMILE(**({"queries": 640, "samples": 200, "surrogate": False} | changes))


def test_evolution_comes_to_the_middle_of_a_ball():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = smile().run(oracle, Plain(), torch.arange(3), rng())
    assert ((result.latents - CENTRES).norm(dim=1) < 0.4).all()
    assert result.queries == oracle.queries == 200 + 3 * 640
    curve = result.per_class["curve"]
    assert curve[:, -1, 0].tolist() == [640] * 3
    assert (curve.diff(dim=1) >= 0).all()
    assert torch.allclose(curve[:, -1, 1], result.confidence)


@pytest.mark.parametrize("queries", [16, 17, 32, 40])
def test_a_last_generation_is_as_small_as_what_is_left(queries):
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = smile(queries=queries).run(oracle, Plain(), torch.tensor([2, 0]), rng())
    assert result.queries == 200 + 2 * queries
    assert result.per_class["curve"][:, -1, 0].tolist() == [queries] * 2


def test_a_good_surrogate_leads_there_without_queries():
    """The surrogate is the target itself here: its gradients come nearer than as many queries would."""
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    itself = Knowledge((classifier_of(balls(CENTRES, 2.0), 4),), None, None, (1.0,), access="scores")
    attack = smile(queries=17, surrogate=True)
    led = attack.run(oracle, Plain(), torch.arange(3), rng(), knowledge=itself)
    alone = smile(queries=17).run(oracle, Plain(), torch.arange(3), rng())
    distance = [(result.latents - CENTRES).norm(dim=1) for result in (led, alone)]
    assert (distance[0] < 0.3).all()
    assert (distance[0] < distance[1]).all()
    assert led.queries == alone.queries


@pytest.mark.parametrize("alone", [{"surrogate": False}, {"surrogate": True, "descent": 0}])
def test_evolution_alone_pays_for_no_sample_twice(alone):
    oracle, shown = oracle_of(balls(CENTRES, 2.0), 4, "scores"), []
    scores = oracle.scores
    oracle.scores = lambda images, rows: shown.append(images) or scores(images, rows)
    itself = Knowledge((classifier_of(balls(CENTRES, 2.0), 4),), None, None, (1.0,), access="scores")
    result = smile(queries=40, **alone).run(oracle, Plain(), torch.tensor([2, 0]), rng(), knowledge=itself)
    every = torch.cat(shown).flatten(1)
    assert len(every) == len(every.unique(dim=0)) == result.queries == 200 + 2 * 40


def test_a_surrogate_that_misses_is_not_followed():
    """Its gradients lead away: evolution goes on from the best sample, and the result is no worse than that."""
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    wrong = Knowledge((classifier_of(balls(-CENTRES, 2.0), 4),), None, None, (0.0,), access="scores")
    misled = smile(surrogate=True).run(oracle, Plain(), torch.arange(3), rng(), knowledge=wrong)
    start = smile(queries=0).run(oracle, Plain(), torch.arange(3), rng())
    assert (misled.confidence >= start.confidence).all()
    assert ((misled.latents - CENTRES).norm(dim=1) < 0.6).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 16}, "at least 17"),
        ({"queries": 15, "surrogate": False}, "at least 16"),
        ({"queries": 1001, "attempts": 2}, "evenly"),
        ({"population": 3}, "at least 4"),
        ({"attempts": 3000, "queries": 3000 * 17}, "samples"),
        ({"rate": 0.0}, "above 0"),
    ],
)
def test_bad_settings_of_smile_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        SMILE(**settings)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# RLB-MI


def test_golden_rewards():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).softmax(1).repeat(2, 1)
    confidence, reward = confidence_and_reward(scores, torch.tensor([0, 1])).T
    assert torch.allclose(confidence, scores[0, :2])
    assert reward.tolist() == pytest.approx([-8.951678, -134.705524], abs=1e-3)
    assert confidence_and_reward(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))[0].tolist() == [
        1.0,
        0.0,
    ]  # the highest there is
    assert confidence_and_reward(torch.tensor([[torch.nan, torch.nan]]), torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: oracle_of(balls(100 * CENTRES, 1e-3), 4, "scores"),  # sure that nobody is any of them
        lambda: Oracle(classifier_of(lambda latents: 0 * latents[:, :4], 4), "scores", guard=Rounded(0)),
        lambda: Oracle(classifier_of(balls(100 * CENTRES, 1e-3), 4), "scores", guard=TopK(1, "zero")),
    ],
)
def test_what_is_returned_of_no_confidence_at_all_was_shown(make):
    oracle, shown = make(), []
    scores = oracle.scores
    oracle.scores = lambda images, rows: shown.append(images) or scores(images, rows)
    attack = RLBMI(queries=24, actions=8, updates=0, sample=8, memory=24)
    result = attack.run(oracle, Plain(), torch.arange(3), rng())
    assert result.confidence.tolist() == [0.0] * 3
    assert result.per_class["curve"][:, :, 1].tolist() == [[0.0] * 4] * 3
    images = Plain().decode(result.latents).clamp(0, 1)
    assert all((torch.cat(shown) == image).flatten(1).all(1).any() for image in images)


def bandit_of(searches=2, latents=5, **changes):
    streams = Streams(0, torch.arange(searches), torch.zeros(searches, dtype=torch.int64))
    return Bandit(streams, searches, latents, **({"rate": 5e-3, "temperature": 1.0} | changes))


def test_how_likely_an_action_is():
    """Against torch's own normal distribution, bent by its own tanh."""
    bandit = bandit_of()
    with torch.no_grad():
        bandit.spread.copy_(torch.linspace(-1, 0.5, 5))
        actions, likelihood = bandit._drawn(7)
        normal = torch.distributions.Normal(bandit.mean[:, None], bandit.spread.exp()[:, None])
        bent = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
        assert torch.allclose(likelihood, bent.log_prob(actions).sum(2), atol=1e-3)


def test_the_temperature_holds_the_entropy_at_its_goal():
    """It rises where the entropy is below minus the number of dimensions, and falls where it is above."""
    bandit = bandit_of()
    with torch.no_grad():
        bandit.spread.copy_(torch.tensor([[-4.0], [0.0]]).expand(2, 5))
    for _ in range(3):
        bandit.learn(torch.zeros(2, 64, 5), torch.zeros(2, 64), 32)
    narrow, wide = bandit.log_temperature.detach()
    assert narrow > 0 > wide


def test_critics_learn_what_actions_bring_and_the_actor_goes_there():
    """Rewards -|a - goal|^2 with another goal for each search."""
    goals = torch.tensor([[0.5, -0.5, 0.0, 0.3, -0.3], [-0.4, 0.2, 0.6, -0.2, 0.1]])
    bandit = bandit_of(temperature=0.1)
    seen, brought = [], []
    for _ in range(50):
        actions = bandit.act(32)
        seen.append(actions)
        brought.append(-10 * (actions - goals[:, None]).square().sum(2))
        for _ in range(6):
            bandit.learn(torch.cat(seen, 1), torch.cat(brought, 1), 64)
    actions = bandit.act(500)
    assert ((actions.mean(1) - goals).abs() < 0.25).all()
    right = -10 * (actions - goals[:, None]).square().sum(2)
    with torch.no_grad():
        for predicted in bandit.predicted_rewards(actions):
            assert (predicted - right).abs().mean() < 0.3 * right.std() + 0.5


def rlb(**changes):
    return RLBMI(**({"queries": 1290, "actions": 30, "updates": 6, "rate": 5e-3, "sample": 64} | changes))


def test_rlb_finds_more_than_as_many_random_points():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = rlb().run(oracle, Plain(), torch.arange(3), rng())
    assert result.queries == oracle.queries == 3 * 1290
    assert result.shared == 0
    drawn = rlb(updates=0).run(oracle_of(balls(CENTRES, 2.0), 4, "scores"), Plain(), torch.arange(3), rng())
    distance = [(found.latents - CENTRES).norm(dim=1).mean() for found in (result, drawn)]
    assert distance[0] < 0.75 * distance[1]
    curve = result.per_class["curve"]
    assert curve[:, -1, 0].tolist() == [1290] * 3
    assert torch.allclose(curve[:, -1, 1], result.confidence)
    assert (result.latents.abs() <= 1 + 1e-6).all()  # it never leaves the box


def test_a_last_round_is_as_small_as_what_is_left():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
    result = rlb(queries=167, memory=64).run(oracle, Plain(), torch.tensor([1]), rng())  # and over what was forgotten
    assert result.queries == 167


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 63}, "at least 64"),
        ({"queries": 129, "attempts": 2}, "evenly"),
        ({"actions": 0}, "actions"),
        ({"temperature": 0.0}, "temperature"),
        ({"memory": 100}, "memory"),
    ],
)
def test_bad_settings_of_rlb_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        RLBMI(**settings)
    assert "\n" not in str(error.value)


def test_a_prior_of_classes_is_refused_before_anything_is_asked():
    class Of(Plain):
        classes = 4

    for attack in (mirror(), smile(), rlb()):
        oracle = oracle_of(balls(CENTRES, 2.0), 4, "scores")
        with pytest.raises(UserError, match="knows no classes"):
            attack.run(oracle, Of(), torch.arange(3), rng())
        assert oracle.queries == 0


# ---------------------------------------------------------------------------------------------------------------------
# Stopped, and gone on with


class StopError(Exception):
    pass


@pytest.mark.parametrize(("attempts", "batches"), [(1, ((1, 2), (4, 1), (3, None))), (4, ((2, 1), (3, 2), (16, None)))])
def test_batches_of_other_sizes_add_up_to_the_same_queries_and_curves(attempts, batches, tmp_path):
    """Each search is done, and counted, once, however often a run is stopped; `batches`: size, and how many of it."""
    attack = SMILE(queries=20 * attempts, attempts=attempts, samples=30, surrogate=False, population=4)

    def go(folder=None, watch=None, batch=16):
        oracle = oracle_of(balls(torch.cat([CENTRES, -CENTRES]), 1.0), 7, "scores")
        return replace(attack, batch=batch).run(oracle, Plain(), torch.arange(7), rng(), watch, folder=folder)

    whole = go()
    for batch, many in batches:
        begun = []

        def stop(step, total, begun=begun, many=many, **_):  # noqa: ARG001
            begun.append(len(list(tmp_path.glob("rows-*"))))
            if many is not None and begun[-1] == begun[0] + many:
                raise StopError

        if many is not None:
            with pytest.raises(StopError):
                go(tmp_path, stop, batch)
        else:
            found = go(tmp_path, stop, batch)
    assert found.classes.tolist() == whole.classes.tolist()
    assert found.queries == whole.queries
    assert torch.equal(found.per_class["curve"][:, :, 0], whole.per_class["curve"][:, :, 0])
    assert torch.allclose(found.latents, whole.latents, atol=1e-4)


def test_a_stopped_attack_goes_on_with_smaller_batches_of_whatever_it_shows(tmp_path):
    """Also those of its alignment, a setting within a setting."""
    attack = GMI(attempts=1, steps=2, batch=2, alignment=Alignment("noise", copies=3, batch=6))
    oracle = oracle_of(balls(torch.cat([CENTRES, -CENTRES]), 1.0), 7, "gradients")
    whole = attack.run(oracle, Plain(), torch.arange(6), rng())

    def stop(step, total, **_):
        if step > total / 2:
            raise StopError

    with pytest.raises(StopError):
        attack.run(oracle, Plain(), torch.arange(6), rng(), stop, folder=tmp_path)
    assert list(tmp_path.glob("rows-*"))
    smaller = replace(attack, batch=1, alignment=replace(attack.alignment, batch=2))
    found = smaller.run(oracle, Plain(), torch.arange(6), rng(), folder=tmp_path)
    assert torch.allclose(found.latents, whole.latents, atol=1e-4)
    other = replace(attack, alignment=replace(attack.alignment, copies=4))
    with pytest.raises(UserError, match=r"left \(alignment Alignment version \d\(.*copies=3.*, now Alignment version"):
        other.run(oracle, Plain(), torch.arange(6), rng(), folder=tmp_path)


def test_what_was_learnt_or_fitted_otherwise_is_another_attack(tmp_path):
    """Batches that one surrogate led to are not taken for those of another, nor behind a guard fitted otherwise."""
    target = classifier_of(balls(CENTRES, 1.0), 4)

    def go(folder, slopes=SLOPES, means=None, queries=5):
        student = classifier_of(lambda latents: latents @ slopes.T, 2)
        student.net.register_buffer("slopes", slopes)
        known = Knowledge((student,), None, None, (1.0,), access="scores")
        guard = None if means is None else SSD(means=means)
        attack = SMILE(queries=queries, samples=3, descent=2, population=4)
        oracle = Oracle(target, "scores", guard=guard)
        return attack.run(oracle, Plain(), torch.arange(2), rng(), knowledge=known, folder=folder)

    for way, one, other in (("slopes", SLOPES, -SLOPES), ("means", torch.eye(4), torch.eye(4).flip(0))):
        first = go(tmp_path / way, **{way: one})
        assert torch.equal(go(tmp_path / way, **{way: one.clone()}).latents, first.latents)
        with pytest.raises(UserError, match=r"another attack left \(of another target, prior, knowledge or classes\)"):
            go(tmp_path / way, **{way: other})
    with pytest.raises(UserError, match=r"another attack left \(queries 5, now 6\)"):
        go(tmp_path / "slopes", queries=6)
