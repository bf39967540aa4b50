"""Train a small classifier, invert it, and measure what leaked: the whole path in Python in about a minute."""

import torch

import lightleak as ll
from lightleak.data import faces
from lightleak.data.views import View
from lightleak.models.zoo import build
from lightleak.training import Recipe, train

# 1. Eight people whom only their owners know, and others who are public.
people = faces.population(people=8, images=12, size=32, strength=0.5, noise=0.02, public_people=8, judge_images=20)

# 2. A target with the skips of its last stage removed, and a judge that the attacker never meets.
recipe = Recipe(epochs=30, batch=16, rate=2e-3, milestones=(0.8,), view=View(scale=(0.9, 1.0)))
torch.manual_seed(0)
target = ll.defences.RoLSS().apply(build("timm:resnet10t", people.classes, people.size))
target = train(target, people.train, people.validation, recipe)
judge = train(build("timm:resnet18", people.classes, people.size), people.judge, people.validation, recipe, seed=1)

# 3. The attacker sees the target only through an oracle, and searches the latents of a prior.
prior = ll.PRIORS["rendered"](size=people.size, strength=0.5)
attack = ll.attacks.PPA(candidates=100, attempts=2, keep=1, steps=20, rate=0.05, views=8)
found = attack.run(ll.Oracle(target), prior, torch.arange(people.classes), torch.Generator().manual_seed(0))

# 4. What a judge sees in the reconstructions, and what is true.
evaluation = ll.evaluate(found, judge, people, factors=prior.factors_of)
for name in ("hits@1", "verified", "error"):
    measure = evaluation.measures[name]
    print(f"{name}: {measure.value:.2f} ({measure.low:.2f} to {measure.high:.2f})")
for warning in evaluation.warnings:
    print(f"note: {warning}")
