"""RLB-MI: reinforcement learning-based black-box model inversion (Han et al., CVPR 2023), as the bandit that it is.

    1. for each class an actor, a distribution over the prior's box, and two critics that foretell the reward of a point
    2. draw points from the actor and show their images to the target, a query each; the reward is
       4 log p_y + 8 log max(1e-7, p_y - the largest other)
    3. train the critics on what was shown, the actor to please the smaller of both and to stay uncertain
    4. go on at 2; return the point of which the target was most confident

In the released code an episode is one step long and the state has no part in the reward (alpha = 0): so there is no
state, no discount and no target network here. The actor is a normal distribution of each dimension, squashed into the
box by tanh. All classes of a batch are actors and critics of their own that are trained as one batch of matrices.

Deviations: many points a round (published: one, and an update after it); each dimension has its own noise (code: one
number for all); the entropy is summed over dimensions, as its goal, minus their number, is meant (code: averaged, so
that the temperature merely decays); the second half of the reward is of the same image, which is not asked about twice.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.draws import Rows, Streams
from lightleak.attacks.frame import Found, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.queries import ByQueries, Curve, answers_to, box_for, too_small
from lightleak.attacks.smile import better
from lightleak.errors import refuse
from lightleak.optimisers import fused
from lightleak.priors.prior import Prior

HIDDEN = 256  # units of each of the critics' two layers
FLOOR, CERTAIN = -5.0, 2.0  # logarithms of an actor's deviations


@dataclass(frozen=True)
class RLBMI(ByQueries):
    """RLB-MI by scores: an actor for each class, which learns where the target's reward is; defaults as published."""

    queries: int = 40_000  # for each class, shared evenly by its attempts
    attempts: int = 1  # actors for each class; the best point of each is returned
    actions: int = 64  # points that an actor draws a round
    updates: int = 8  # of actor and critics a round
    rate: float = 5e-4  # Adam's, of actor, critics and temperature
    sample: int = 256  # of what was shown, for an update
    memory: int = 10_000  # of what was shown, the latest that are learnt from
    temperature: float = 1.0  # at first: the weight of the entropy
    kappa: float = 1.0  # points lie within so many standard deviations of the prior
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "scores"

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.actions, self.sample, self.batch) < 1 or self.updates < 0:
            problems.append("attempts, actions, sample and batch must be at least 1, updates at least 0")
        elif self.memory < max(self.actions, self.sample):
            problems.append(f"the memory must hold a round and a sample, not {self.memory} points")
        else:
            problems += too_small(self, self.queries, self.actions, self.attempts)
        if not min(self.rate, self.temperature, self.kappa) > 0:
            problems.append("rate, temperature and kappa must be above 0")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "RLB-MI"

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Rounds that the budget pays, the last one perhaps a smaller one."""
        return -(-self.each // self.actions)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The point of each search of which the target was most confident."""

        def ask(images: Tensor, rows: Rows) -> Tensor:
            return confidence_and_reward(oracle.scores(images, rows), rows.classes)

        # 1. actors and critics
        (low, high), streams = box_for(prior, self.kappa, part), part.streams()
        bandit = Bandit(streams, len(part), prior.latents, self.rate, self.temperature)
        memory = torch.empty(len(part), min(self.memory, self.each), prior.latents, device=part.device)
        rewards = torch.empty(memory.shape[:2], device=part.device)
        best, nothing = torch.zeros_like(memory[:, 0]), torch.zeros_like(rewards[:, 0])
        confidence = nothing - 1  # whatever is shown is better, also where the target has no confidence in it
        curve, spent = Curve(part, self.steps), 0
        curve.add(0, torch.zeros_like(part.classes), nothing)
        for step in range(self.steps):
            # 2. points, and their rewards
            count = min(self.actions, self.each - spent)
            actions = bandit.act(count)
            latents = low + (high - low) * (actions + 1) / 2
            rows = part.rows(step).repeated(count)
            said = answers_to(ask, oracle, prior, latents.flatten(0, 1), rows, self.batch).unflatten(0, (len(part), -1))
            place = torch.arange(spent, spent + count, device=part.device) % memory.shape[1]  # over the oldest
            memory[:, place], rewards[:, place] = actions, said[:, :, 1]
            best, confidence = better(best, confidence, latents, said[:, :, 0])
            spent += count
            # 3. what they teach
            if spent >= self.sample and spent < self.each:
                for _ in range(self.updates):
                    bandit.learn(memory[:, :spent], rewards[:, :spent], self.sample)
            curve.add(step + 1, torch.full_like(part.classes, spent), confidence)
            tell(step + 1, confidence=float(confidence.mean()))
        # 4. the best point
        return Found(best, confidence=confidence, per_class={"curve": curve.table()})


def confidence_and_reward(scores: Tensor, classes: Tensor) -> Tensor:
    """Confidence and reward of each image, N x 2, of probabilities N x C; no number is no confidence."""
    scores = scores.nan_to_num(nan=0.0)
    mine = scores.gather(1, classes[:, None]).squeeze(1)
    other = scores.scatter(1, classes[:, None], -1.0).amax(1)
    margin = 8 * (mine - other).clamp(min=1e-7).log()
    return torch.stack([mine, 4 * mine.clamp(min=1e-30).log() + margin], 1)


class Bandit:
    """An actor and two critics for each search, with parameters of their own, trained together.

    A soft actor-critic (Haarnoja et al., 2018) of one step: losses are summed over searches, so none sees another.
    """

    def __init__(self, streams: Streams, searches: int, latents: int, rate: float, temperature: float) -> None:
        self.streams, self.everybody = streams, torch.arange(searches)
        self.mean = streams.normals(self.everybody, latents).mul_(0.1).requires_grad_()
        self.spread = torch.zeros_like(self.mean).requires_grad_()  # the logarithm of the deviation
        start = torch.full((searches,), temperature, device=streams.device).log()
        self.log_temperature = start.requires_grad_()
        sizes = (latents, HIDDEN, HIDDEN, 1)
        self.critics = [self._layer(*pair) for _ in range(2) for pair in pairwise(sizes)]
        flat = [tensor for layer in self.critics for tensor in layer]
        self.actor_adam = fused(torch.optim.Adam, [self.mean, self.spread], lr=rate)
        self.critic_adam = fused(torch.optim.Adam, flat, lr=rate)
        self.temperature_adam = fused(torch.optim.Adam, [self.log_temperature], lr=rate)

    def _layer(self, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        """A linear layer of each search, as PyTorch's start: even within the inverse root of its inputs."""
        reach = inputs**-0.5
        weight = self.streams.uniforms(self.everybody, inputs, outputs).mul_(2).sub_(1).mul_(reach)
        bias = self.streams.uniforms(self.everybody, 1, outputs).mul_(2).sub_(1).mul_(reach)
        return weight.requires_grad_(), bias.requires_grad_()

    @torch.no_grad()
    def act(self, count: int) -> Tensor:
        """Points that the actors draw, N x count x L in (-1, 1)."""
        return self._drawn(count)[0]

    def learn(self, actions: Tensor, rewards: Tensor, sample: int) -> None:
        """One update of critics, actors and temperatures, of actions N x M x L that brought rewards N x M."""
        index = self.streams.numbers(self.everybody, actions.shape[1], sample)
        seen = actions.gather(1, index[:, :, None].expand(-1, -1, actions.shape[2]))
        brought = rewards.gather(1, index)
        wrong = (
            torch.stack([(predicted - brought).square() for predicted in self.predicted_rewards(seen)]).mean(2).sum()
        )
        _step(self.critic_adam, wrong)
        drawn, likelihood = self._drawn(sample)
        worth = torch.minimum(*self.predicted_rewards(drawn))
        temperature = self.log_temperature.exp().detach()[:, None]
        _step(self.actor_adam, (temperature * likelihood - worth).mean(1).sum())
        goal = -float(actions.shape[2])
        surplus = (likelihood.detach() + goal).mean(1)
        _step(self.temperature_adam, -(self.log_temperature * surplus).sum())

    def predicted_rewards(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The rewards that both critics predict for actions N x M x L, N x M each."""
        found = []
        for layers in (self.critics[:3], self.critics[3:]):
            x = actions
            for number, (weight, bias) in enumerate(layers):
                x = torch.baddbmm(bias, x, weight)
                x = x.relu() if number < 2 else x
            found.append(x.squeeze(2))
        return found[0], found[1]

    def _drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Actions N x count x L, differentiable, and the logarithm of how likely the actors draw them, N x count."""
        noise = self.streams.normals(self.everybody, count, self.mean.shape[1])
        spread = self.spread.clamp(FLOOR, CERTAIN)[:, None]
        raw = self.mean[:, None] + spread.exp() * noise
        bent = 2 * (math.log(2) - raw - F.softplus(-2 * raw))  # log(1 - tanh^2), without cancellation
        likelihood = (-0.5 * noise.square() - spread - 0.5 * math.log(2 * math.pi) - bent).sum(2)
        return raw.tanh(), likelihood


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step along the gradient of the loss in the optimiser's own parameters."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = slope
    optimiser.step()


PRESETS = {
    "rlb-mi": RLBMI(),
    # The release's short script.
    "short": RLBMI(queries=10_000),
    # For the renderer and two cores.
    "rendered": RLBMI(queries=4_000, rate=2e-3),
}
