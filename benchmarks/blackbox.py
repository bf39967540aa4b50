"""Searches by queries against plain transcriptions of the published loops, in one run, on the same weights and draws.

- brep: one class after the other, 32 points at a time, with the graphs of both networks, and the soft score of every
  new centre (its 34th query); the judge that the published code asks as well is left out;
- mirror: one class after the other, children made one by one and shown in batches of 32, the elite shown again;
- evolution: one class after the other, one candidate at a time, as SMILE's refinement asks and tells;
- rlb: one class after the other, point by point; each is shown twice, as a state and as an action, and followed by one
  update of critics, actor and temperature and by an extra point, which is shown as well. The actor's network, whose
  input has no part in the reward, and the target networks are left out.

Ours: all classes of a batch at once, nothing but queries, no graphs. Both draw the same numbers; where the published
code differs from the paper (docs/attacks), the transcription does as ours, so that answers can be compared.

First both must find the same: radii and centres, best confidences. Then they are timed in turn; ratios of medians. RLB
is compared by its published rounds, a point and an update, and then timed with the rounds that it has here as well.

    python benchmarks/blackbox.py                  # 32 people, 64 pixels, three rounds
    python benchmarks/blackbox.py --quick          # 4 people, 32 pixels, a quarter of the queries, one round
"""

import argparse
import copy
import math
import os
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not count as work

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.attacks import BREPMI, RLBMI, SMILE, Attack, Common, MirrorBlackBox, Oracle
from lightleak.attacks.draws import keyed, seed_of
from lightleak.attacks.evolution import Evolution, Rates
from lightleak.models.classifier import Classifier
from lightleak.models.zoo import build
from lightleak.priors.gan64 import Critic, GanPrior, Generator
from lightleak.study.costs import in_turn


@dataclass(frozen=True)
class World:
    """A target and a prior that have learnt nothing, but that the target names every class of some sample."""

    target: Classifier
    prior: GanPrior
    classes: Tensor
    samples: Tensor

    @classmethod
    def of(cls, people: int, size: int, samples: int) -> "World":
        """Each class's weights are the direction of one sample's features."""
        torch.manual_seed(0)
        target = build("face:ir18-narrow", people, size).eval()
        prior = GanPrior(Generator(size, 16, 100), Critic(size, 16))
        latents = prior.sample(samples, torch.Generator().manual_seed(1))
        with torch.no_grad():
            features, _ = target.features_and_logits(prior.decode(latents))
            apart = features - features.mean(0)
            last = [module for module in target.net.modules() if isinstance(module, nn.Linear)][-1]
            scale = 8 / apart[:people].square().sum(1).mean()
            last.weight.copy_(scale * apart[:people])
            last.bias.copy_(-scale * apart[:people] @ features.mean(0) - scale * apart[:people].square().sum(1) / 2)
        return cls(target, prior, torch.arange(people), latents)

    def table(self, said: str, kappa: float | None) -> Common:
        """What an attack would have prepared; it is common to both sides, and not timed."""
        latents = self.samples if kappa is None else self.samples.clamp(-kappa, kappa)
        oracle = Oracle(self.target, "scores")
        with torch.no_grad():
            told = torch.cat([oracle.scores(self.prior.decode(part)) for part in latents.split(256)])
        return Common({"latents": latents, "said": told.argmax(1) if said == "labels" else told}, RUN, 0)


CLOCK = time.process_time
RUN = seed_of(torch.Generator().manual_seed(0))  # what a run with this generator draws by


def ours(world: World, attack: Attack, table: Common, access: str) -> tuple[Tensor, Tensor]:
    """What we find: latents, and the last of what the curve says."""
    rng = torch.Generator().manual_seed(0)
    found = attack.run(Oracle(world.target, access), world.prior, world.classes, rng, common=table)
    ((_, curve),) = found.per_class.items()
    return found.latents, curve[:, -1, 1]


def plain_brep(generator, target, attack: BREPMI, table: Common, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The published loop, class by class."""
    latents, labels = table.tensors["latents"], table.tensors["said"]
    found, radii = [], []
    for label in classes.tolist():
        own = keyed(RUN + 1, label, 0)
        z, radius, noted = latents[labels == label][0], attack.radius, None
        for _ in range(attack.steps):
            offsets = torch.randn(attack.points, len(z), generator=own)
            offsets = radius * offsets / offsets.norm(dim=1, keepdim=True)
            signs = torch.where(target(generator(z + offsets)).argmax(1) == label, 1, -1)
            step, grown = min(radius / 3, 3), bool(signs.sum() > 0.75 * attack.points)
            if grown:
                noted, radius = z, radius * attack.growth
            move = (((signs - 1) / 2)[:, None] * offsets).mean(0) / radius
            moved = (z + step * move).clamp(-attack.kappa, attack.kappa)
            if target(generator(moved[None])).argmax(1).item() == label:
                z = moved
            target(generator(z[None])).softmax(1)[0, label].item()  # only logged
        found.append(z if noted is None else noted)
        radii.append(radius)
    return torch.stack(found), torch.tensor(radii)


@torch.no_grad()
def plain_mirror(generator, target, attack: MirrorBlackBox, table: Common, classes: Tensor) -> tuple[Tensor, Tensor]:
    """A genetic search class by class, child by child."""
    latents, scores = table.tensors["latents"], table.tensors["said"]
    count, found, sure = attack.population - 1, [], []
    for label in classes.tolist():
        own = keyed(RUN + 1, label, 0)
        first = scores[:, label].topk(attack.population).indices
        people, confidence = latents[first], scores[first, label]
        for _ in range(attack.steps):
            edges = (confidence / confidence.sum()).double().cumsum(0)
            chosen = torch.searchsorted(edges, torch.rand(2 * count, generator=own).double() * edges[-1], right=True)
            chance = torch.rand(3, count, latents.shape[1], generator=own)
            children = []
            for number in range(count):
                one, other = (int(chosen[at].clamp(max=count)) for at in (number, count + number))
                share = confidence[one] / (confidence[one] + confidence[other])
                child = torch.where(chance[0, number] < share, people[one], people[other])
                move = attack.strength * (2 * chance[2, number] - 1) * (chance[1, number] < attack.mutated)
                children.append((child + move).clamp(-attack.kappa, attack.kappa))
            everybody = torch.stack([people[confidence.argmax()], *children])
            said = torch.cat([target(generator(part)).softmax(1)[:, label] for part in everybody[1:].split(32)])
            target(generator(everybody[:1]))  # the elite is asked about again
            people, confidence = everybody, torch.cat([confidence.max()[None], said])
        found.append(people[confidence.argmax()])
        sure.append(confidence.max())
    return torch.stack(found), torch.stack(sure)


@torch.no_grad()
def plain_evolution(generator, target, attack: SMILE, table: Common, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Evolution class by class, one candidate at a time."""
    latents, scores = table.tensors["latents"], table.tensors["said"]
    rates, found, sure = Rates.of(latents.shape[1], attack.population), [], []
    for label in classes.tolist():
        own = keyed(RUN + 1, label, 0)
        start = scores[:, label].argmax()
        best, top = latents[start], scores[start, label]
        state = Evolution.at(best[None] / attack.kappa, attack.spread)
        for _ in range(attack.steps):
            normals = torch.randn(1, attack.population, latents.shape[1], generator=own)
            said = []
            for candidate in (attack.kappa * state.candidates(normals)[0]).clamp(-attack.kappa, attack.kappa):
                said.append(target(generator(candidate[None])).softmax(1)[0, label])
                if said[-1] > top:
                    best, top = candidate, said[-1]
            state = state.after(normals, torch.stack(said)[None], rates).within(torch.tensor(-1.0), torch.tensor(1.0))
        found.append(best)
        sure.append(top)
    return torch.stack(found), torch.stack(sure)


def plain_rlb(generator, target, attack: RLBMI, table: Common, classes: Tensor) -> tuple[Tensor, Tensor]:
    """An actor and two critics class by class, point by point, with an update after each."""
    size, found, sure = table.tensors["latents"].shape[1], [], []
    for label in classes.tolist():
        own, extra = keyed(RUN + 1, label, 0), keyed(RUN + 2, label, 0)
        mean = (0.1 * torch.randn(size, generator=own)).requires_grad_()
        spread = torch.zeros(size, requires_grad=True)
        heat = torch.tensor(math.log(attack.temperature), requires_grad=True)
        critics = nn.ModuleList(critic_of(size, own) for _ in range(2))
        adams = [torch.optim.Adam(part, attack.rate) for part in (critics.parameters(), [mean, spread], [heat])]
        memory, rewards = torch.empty(attack.queries, size), torch.empty(attack.queries)
        best, top = torch.zeros(size), torch.zeros(())
        for episode in range(attack.queries):
            with torch.no_grad():
                memory[episode] = acted(mean, spread, 1, own)[0][0]
            state, action = (
                target(generator(attack.kappa * memory[episode][None]))[0].log_softmax(0).detach() for _ in range(2)
            )
            mine, other = state[label].exp(), state[torch.arange(len(state)) != label].max().exp()
            rewards[episode] = 2 * state[label] + 2 * action[label] + 8 * (mine - other).clamp(min=1e-7).log()
            if mine > top:
                best, top = attack.kappa * memory[episode], mine
            if attack.sample <= episode + 1 < attack.queries:
                chosen = torch.randint(episode + 1, (attack.sample,), generator=own)
                losses = [F.mse_loss(critic(memory[chosen])[:, 0], rewards[chosen]) for critic in critics]
                descend(adams[0], sum(losses))
                actions, likelihood = acted(mean, spread, attack.sample, own)
                worth = torch.minimum(*(critic(actions)[:, 0] for critic in critics))
                descend(adams[1], (heat.exp().detach() * likelihood - worth).mean())
                descend(adams[2], -heat * (likelihood.detach() - size).mean())
            shown = attack.kappa * acted(mean, spread, 1, extra)[0].detach()
            target(generator(shown)).softmax(1)[0, label].item()  # only logged; the release may return it
        found.append(best)
        sure.append(top)
    return torch.stack(found), torch.stack(sure)


def critic_of(size: int, own: torch.Generator) -> nn.Module:
    """Three layers, drawn as PyTorch draws them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((size, 256, 256, 1)):
        layer, reach = nn.Linear(inputs, outputs), inputs**-0.5
        with torch.no_grad():
            layer.weight.copy_(reach * (2 * torch.rand(inputs, outputs, generator=own) - 1).T)
            layer.bias.copy_(reach * (2 * torch.rand(outputs, generator=own) - 1))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def acted(mean: Tensor, spread: Tensor, count: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
    """Actions of an actor, count x size, and the logarithm of how likely they are."""
    normal = torch.distributions.Normal(mean, spread.clamp(-5, 2).exp())
    raw = mean + normal.scale * torch.randn(count, len(mean), generator=own)
    bent = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return raw.tanh(), (normal.log_prob(raw) - bent).sum(1)


def descend(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update; a gradient that another loss left is dropped."""
    adam.zero_grad()
    loss.backward()
    adam.step()


JOBS: dict[str, tuple[Any, str, Any]] = {
    "brep": (plain_brep, "labels", BREPMI(queries=33 * 20, samples=1, radius=1.0)),
    "mirror": (plain_mirror, "scores", MirrorBlackBox(queries=99 * 6, population=100, samples=128, enough=None)),
    "evolution": (plain_evolution, "scores", SMILE(queries=16 * 20, surrogate=False, samples=1)),
    "rlb": (plain_rlb, "scores", RLBMI(queries=320, actions=1, updates=1)),
}
ROUNDS = {"rlb": RLBMI(queries=320)}  # with the rounds that it has here

QUICK: dict[str, dict[str, Any]] = {
    "brep": {"queries": 33 * 5},
    "mirror": {"queries": 99 * 2},
    "evolution": {"queries": 16 * 5},
    "rlb": {"queries": 96, "sample": 64},
}


def agreement(world: World, generator, target, name: str, attack: Attack, table: Common) -> int:
    """How many classes both sides find the same for."""
    plain, access, _ = JOBS[name]
    one = ours(world, attack, table, access)
    other = plain(generator, target, attack, table, world.classes)
    places, said = (
        [torch.allclose(a, b, atol=1e-3) for a, b in zip(mine, theirs.detach(), strict=True)]
        for mine, theirs in zip(one, other, strict=True)
    )
    return sum(a and b for a, b in zip(places, said, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, help="rounds to time (default: three, of --quick one)")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    chosen = parser.parse_args()
    people, size, rounds = (4, 32, 1) if chosen.quick else (32, 64, 3)
    rounds = chosen.rounds or rounds
    world = World.of(people, size, 128)
    generator, target = copy.deepcopy(world.prior.generator), copy.deepcopy(world.target)
    for net in (generator, target):
        net.requires_grad_()
    for name in chosen.jobs:
        plain, access, attack = JOBS[name]
        quick = QUICK[name] if chosen.quick else {}
        attack = replace(attack, **({"samples": len(world.samples)} if hasattr(attack, "samples") else {}), **quick)
        other_rounds = replace(ROUNDS[name], **quick) if name in ROUNDS else attack
        table = world.table(access, 1.5 if name == "brep" else None)
        same = agreement(world, generator, target, name, attack, table)
        if same < 0.9 * people:  # a comparison of nearly equal confidences may fall either way
            raise SystemExit(f"{name}: only {same} of {people} searches end at the same place; nothing is timed")

        def theirs(plain=plain, attack=attack, table=table):
            return plain(generator, target, attack, table, world.classes)

        def own(attack=attack, table=table, access=access):
            return ours(world, attack, table, access)

        def rounded(attack=other_rounds, table=table, access=access):
            return ours(world, attack, table, access)

        slow, fast, *more = in_turn([theirs, own, *([rounded] if name in ROUNDS else [])], rounds, clock=CLOCK)
        print(
            f"{name}: {people} people at {size} pixels, {attack.queries} queries each: {same} of {people} end at the "
            f"same place; ours is {slow / fast:.2f} times as fast ({fast:.1f} s against {slow:.1f} s of processor time)"
        )
        for seconds in more:
            print(f"{name}, with its own rounds: {slow / seconds:.2f} times as fast ({seconds:.1f} s)")


if __name__ == "__main__":
    main()
