"""A person is not her family: what look-alikes give away of each other, and how it is kept apart."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.conftest import tiny_classifier
from torch import Tensor

from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data import faces
from lightleak.errors import UserError
from lightleak.metrics import truth
from lightleak.metrics.evaluate import FAMILY, evaluate, family_only
from lightleak.metrics.evaluation import Evaluation
from lightleak.priors.rendered import RenderedPrior
from lightleak.study import Store, run
from lightleak.study.tasks import source

PEOPLE, ALIKE = 24, 4
PRIOR = RenderedPrior(size=32)


def private(seed: int = 0) -> Tensor:
    return torch.stack([faces._identity(seed, "private", i, ALIKE, 0.35) for i in range(PEOPLE)])


def groups() -> Tensor:
    return torch.arange(PEOPLE) // ALIKE


def told(found: Tensor, classes: Tensor | None = None) -> truth.Truth:
    classes = torch.arange(PEOPLE) if classes is None else classes
    return truth.compare(found, classes, private(), groups=groups())


def test_family_and_member_agree_with_a_plain_loop() -> None:
    rng = torch.Generator().manual_seed(3)
    classes = torch.randint(PEOPLE, (200,), generator=rng)
    found = (private()[classes] + 0.4 * torch.randn(200, len(faces.FACTORS), generator=rng)).clamp(-1, 1)
    got = told(found, classes)
    seen, known = truth.portraits(found), truth.portraits(private())
    family, member = [], []
    for picture, label in zip(seen, classes.tolist()):
        distance = (known - picture).square().mean(1)
        family.append(int(distance.argmin()) // ALIKE == label // ALIKE)
        mine = distance[label // ALIKE * ALIKE : (label // ALIKE + 1) * ALIKE]
        member.append(int(mine.argmin()) == label % ALIKE)
    assert got.family is not None
    assert got.member is not None
    assert got.family.tolist() == family
    assert got.member.tolist() == member
    assert 0.2 < sum(family) / 200 < 1
    assert torch.equal(got.rank == 0, got.family & got.member)  # known is: the right family, and there the right one


def test_knowing_the_family_alone_names_one_member_in_each() -> None:
    """The centre is nearest to one of its members, whoever is asked for: exactly chance, 1 in k."""
    grouped = faces.families(PEOPLE, ALIKE)
    assert grouped is not None
    got = told(grouped[1][grouped[0]])
    assert got.member is not None
    assert got.family is not None
    assert got.member.view(-1, ALIKE).sum(1).tolist() == [1] * (PEOPLE // ALIKE)
    assert float(got.family.double().mean()) > 0.9
    assert float(got.verified.double().mean()) > 0.1  # far above the nominal 0.001: verified is not the person


def test_twins_are_no_right_member_but_of_the_right_family() -> None:
    people = private()
    people[1] = people[0]
    got = truth.compare(people, torch.arange(PEOPLE), people, groups=groups())
    assert got.member is not None
    assert got.family is not None
    assert got.member.tolist() == [False, False] + [True] * (PEOPLE - 2)
    assert got.family.all()


def test_a_look_alike_passes_as_often_as_the_family_s_match_rate_says() -> None:
    alike = truth.families(private(), groups())
    assert alike is not None
    assert alike.person == pytest.approx(1 / ALIKE)
    handed = [(i, j) for i in range(PEOPLE) for j in range(PEOPLE) if i != j and i // ALIKE == j // ALIKE]
    given, meant = (torch.tensor(side) for side in zip(*handed))
    got = told(private()[given], meant)
    assert alike.match_rate == pytest.approx(float(got.verified.double().mean()))
    assert alike.error == pytest.approx(float(got.error.mean()), rel=1e-5)
    assert alike.match_rate > 20 * truth.yardstick().false_match_rate
    assert truth.families(private(), torch.arange(PEOPLE)) is None


@pytest.mark.parametrize("which", [None, [0, 5], [4, 5]])
def test_families_of_other_sizes_are_drawn_from_person_by_person(which) -> None:
    """One of the right family, drawn at random, scores what handing each member for each attacked person scores."""
    people, grouped = private()[: ALIKE + 2], torch.tensor([0] * ALIKE + [1] * 2)
    alike = truth.families(people, grouped, which=None if which is None else torch.tensor(which))
    assert alike is not None
    scores = []
    for person in range(len(people)) if which is None else which:
        own = (grouped == grouped[person]).nonzero().flatten()
        got = truth.compare(people[own], torch.full_like(own, person), people, groups=grouped)
        assert got.member is not None
        scores.append([float(each.double().mean()) for each in (got.member, got.verified, got.error)])
    wanted = torch.tensor(scores).mean(0).tolist()
    assert [alike.person, alike.verified, alike.apart] == pytest.approx(wanted, abs=1e-5)


def test_families_follow_from_the_settings_alone() -> None:
    assert faces.families(PEOPLE, 1) is None
    grouped = faces.families(people=PEOPLE, lookalikes=ALIKE, seed=5, jitter=0.35, images=3)
    assert grouped is not None
    assert torch.equal(grouped[0], groups())
    for i in (0, 7, 23):
        assert torch.equal(grouped[1][i // ALIKE], faces._identity(5, "private", i, ALIKE, 0.0))


SMALL: dict[str, Any] = {"people": 8, "lookalikes": 4, "images": 2, "size": 32, "public_people": 2, "public_images": 1}
SPLITS: dict[str, Any] = {"validation_images": 1, "test_images": 2, "judge_images": 1, "seed": 3}


def test_a_population_knows_its_families_also_when_it_was_stored_without(tmp_path) -> None:
    drawn = faces.population(**SMALL, **SPLITS)
    assert drawn.families is not None
    assert drawn.families.tolist() == [0] * 4 + [1] * 4
    store, task = Store(tmp_path), source("faces", **SMALL, **SPLITS)
    run([task], store)
    loaded = task.load(store)
    assert loaded.families is not None
    assert loaded.family_factors is not None
    assert drawn.family_factors is not None
    assert torch.equal(loaded.families, drawn.families)
    assert torch.equal(loaded.family_factors, drawn.family_factors)


@pytest.fixture(scope="module")
def evaluated() -> Evaluation:
    population = faces.population(**SMALL, **SPLITS)
    classes = torch.arange(8)
    assert population.factors is not None
    latents = torch.cat([population.factors, torch.zeros(8, len(faces.CIRCUMSTANCES))], 1)
    stolen = Reconstruction(PRIOR.decode(latents), classes, latents, torch.full((8,), 0.9))
    return evaluate(stolen, tiny_classifier(8), population, factors=PRIOR.factors_of)


def test_the_family_is_a_null_of_every_evaluation(evaluated: Evaluation) -> None:
    assert list(evaluated.nulls) == [FAMILY]
    null = evaluated.nulls[FAMILY]
    assert null.per_class["family@1"] == (1,) * 8
    assert sum(null.per_class["member@1"]) == 2
    assert evaluated.per_class["member@1"] == (1,) * 8
    assert (evaluated.chance["member@1"], evaluated.chance["family@1"]) == (0.25, 0.5)
    assert evaluated.families == (0,) * 4 + (1,) * 4
    assert evaluated.family_match_rate is not None
    assert evaluated.family_chance["true@1"] == 0.25
    assert evaluated.family_chance["verified"] == pytest.approx(0.25 + 0.75 * evaluated.family_match_rate)
    assert null.measures["judge_fid"] is None
    assert "no set" in null.missing["judge_fid"]
    assert null.measures["confidence"] is None
    assert Evaluation.from_json(evaluated.to_json()) == evaluated
    assert null.nulls == {}


def test_an_evaluation_from_before_families_is_still_read(evaluated: Evaluation) -> None:
    old = evaluated.to_json()
    for name in ("families", "family_match_rate", "family_chance"):
        del old[name]
    old["nulls"] = {}
    got = Evaluation.from_json(old)
    assert (got.families, got.family_match_rate, got.family_chance) == (None, None, {})


def test_where_nobody_looks_alike_there_is_no_family(tiny_population) -> None:
    with pytest.raises(UserError, match="look like"):
        family_only(replace(tiny_population, families=None), torch.arange(2))
