"""Which defence is real, hiding or a trade: records whose right verdict is known, and the page that says so."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightleak.attacks import LOKT, PPA, SSD, Guess, Transfer
from lightleak.attacks.adaptive import ADAPTIVE, Knowing, knowing
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import DEFENCES, DPSGD, BiDO, LoFt, NegLS, RoLSS
from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.priors.fit import Lokt
from lightleak.report import page, tables, to_csv, to_latex
from lightleak.report.answer import subject
from lightleak.report.attackers import groups_of, networks
from lightleak.report.knowing import collect_knowing
from lightleak.report.proof import Gap, Judged
from lightleak.report.results import Results
from lightleak.report.study import NOTE, pages, recorded, studied
from lightleak.study import Store, run
from lightleak.study.comparison import Setting, compare, compare_on_the_way
from lightleak.study.keys import plain
from lightleak.study.record import (
    AttackRecord,
    JudgeRecord,
    PopulationRecord,
    PriorRecord,
    Record,
    TargetRecord,
    specs_of,
)
from lightleak.study.tasks import Altered, Checkpoint, Copied, Guarded, Retrofitted, run_of, source
from lightleak.training import RECIPES, CheckpointCriterion

PEOPLE = 48
KEPT = (0.6, 0.75, 0.85)
WHITE, MARGIN = PPA(loss="poincare"), PPA(loss="max-margin")
LESSONS = Lessons(epochs=1, pretrained=False)


def setting(world=0, people=PEOPLE, seeds=(0, 1, 2)):
    faces = source("faces", people=people, size=48, lookalikes=2, public_people=8, seed=world)
    stops = tuple(CheckpointCriterion(accuracy=share) for share in KEPT)
    return Setting(faces, attack=WHITE, seeds=seeds, checkpoints=stops)


def record(held, target, attack, share, accuracy, classes=None):
    """An attack that finds about this share of the people, mostly the same ones in each training and by each attack."""
    task = replace(held, attack=attack).evaluated(target, {})
    people, mark = held.population.settings["people"], sum(map(ord, f"{target.title} {attack}"))
    always = torch.rand(people, generator=torch.Generator().manual_seed(7)).argsort().argsort() / people
    rng = torch.Generator().manual_seed(1000 * mark + 10 * target.seed + held.population.settings["seed"])
    own = tuple((always + 0.05 * torch.randn(people, generator=rng) < share).double().tolist())
    measures = {name: Measure(sum(own) / people) for name in ("hits@1", "true@1")}
    found = Evaluation(tuple(range(people)), people, measures, dict.fromkeys(measures, own), {}, {}, Measure(1.0))
    stopped = isinstance(target, Checkpoint)
    return Record(
        target=TargetRecord(
            target.title, target.key, target.seed, target.architecture, plain(target.recipe), accuracy,
            (accuracy,) * people, 20, run=run_of(target).title, moment=plain(target.moment) if stopped else None,
            defences={type(one).__name__: plain(one) for one in target.defences},
        ),
        population=PopulationRecord(
            target.population.key, "faces", 48, people, tuple(map(str, range(people))),
            settings=plain(target.population.settings),
        ),
        attack=AttackRecord(type(attack).__name__, attack.title, plain(attack), classes=classes),
        prior=PriorRecord("Rendered"),
        judge=JudgeRecord("timm:resnet14t", 1.0),
        evaluation=found,
        confidence=(0.5,) * people,
        task=f"Evaluate/{task.key}",
        specs=specs_of(task),
    )  # fmt: skip


def form_of(target, known: Knowing):
    """What somebody who knows attacks."""
    if known.undo is not None:
        return Altered(target, known.undo)
    if known.copy is not None:
        return Copied(target, known.copy, "timm:resnet18", known.lessons(LESSONS))
    return target


def undefended(held, poincare=0.9, margin=0.8, accuracy=0.92, leaks=(0.35, 0.6, 0.8), copies=(("gradients", 0.5),)):
    """No defence: found by both losses, by the first on its way, and by copies of it."""
    for seed in held.seeds:
        target = held.target((), seed)
        yield record(held, target, WHITE, poincare, accuracy)
        yield record(held, target, MARGIN, margin, accuracy)
        for place, (stop, leak) in enumerate(zip(KEPT, leaks)):
            yield record(held, Checkpoint(target, place), WHITE, leak, stop)
        for access, leak in copies:
            yield record(held, Copied(target, access, "timm:resnet18", LESSONS), WHITE, leak, 0.6)


def defended(held, defence, name, accuracy, shares, poincare, margin=None, learnt=0.6):
    """Defences, found by those who do not know them and, with `shares` by countermeasure, by those who do.

    `learnt`: what a copy is good for is not what the defence costs.
    """
    for seed in held.seeds:
        target = held.target(defence if isinstance(defence, tuple) else (defence,), seed)
        yield record(held, target, WHITE, poincare, accuracy)
        if margin is not None:
            yield record(held, target, MARGIN, margin, accuracy)
        for known in knowing([name] if isinstance(name, str) else name):
            form = form_of(target, known)
            copied = learnt if form is not target else accuracy
            if known.name in shares:
                yield record(held, form, known.attack(WHITE), shares[known.name], copied)


SKIPS, STUDENT, LABELS = "skips scaled back in", "a copy with its skips", "a copy by labels"
CASES = {  # the word, and what the attacks on the defended network find
    "real": ("real", RoLSS(), "rolss", 0.9, {SKIPS: 0.35, STUDENT: 0.3}, 0.3, 0.3),
    "real, as accurate": ("real", RoLSS(), "rolss", 0.94, {SKIPS: 0.35, STUDENT: 0.3}, 0.3, 0.3),
    "hiding": ("hiding", NegLS(), "negls", 0.92, {"max-margin": 0.88, LABELS: 0.5}, 0.2, None),
    "hiding at equal accuracy": ("hiding", RoLSS(), "rolss", 0.75, {SKIPS: 0.25, STUDENT: 0.58}, 0.2, 0.2),
    "a trade": ("a trade", RoLSS(), "rolss", 0.62, {SKIPS: 0.36, STUDENT: 0.37}, 0.36, 0.35),
    "nothing": ("cannot be told", RoLSS(), "rolss", 0.91, {SKIPS: 0.86, STUDENT: 0.88}, 0.87, 0.8),
    "nothing, and more leak": ("cannot be told", RoLSS(), "rolss", 0.92, {SKIPS: 0.99, STUDENT: 0.9}, 0.95, 0.9),
    "one who knows finds them": ("cannot be told", RoLSS(), "rolss", 0.92, {SKIPS: 0.88, STUDENT: 0.3}, 0.86, 0.8),
    "below every checkpoint": ("cannot be told", RoLSS(), "rolss", 0.4, {SKIPS: 0.1, STUDENT: 0.1}, 0.1, 0.1),
    "below them, and half of it for who knows": (
        "cannot be told", RoLSS(), "rolss", 0.4, {SKIPS: 0.45, STUDENT: 0.1}, 0.05, 0.05,
    ),
    "below them, and most of it for who knows": (
        "cannot be told", RoLSS(), "rolss", 0.4, {SKIPS: 0.7, STUDENT: 0.1}, 0.05, 0.05,
    ),
    "an attack that was always stronger": (
        "cannot be told", NegLS(), "negls", 0.92, {"max-margin": 0.8, LABELS: 0.5}, 0.9, None,
    ),
    "more than accuracy takes": ("cannot be told", RoLSS(), "rolss", 0.88, {SKIPS: 0.8, STUDENT: 0.8}, 0.8, 0.75),
}  # fmt: skip


def study(*cases, worlds=(0, 1), seeds=(0, 1, 2), base=None, people=PEOPLE):
    """The evaluations of several defences, by place."""
    found = []
    for world in worlds:
        held = setting(world, people, seeds)
        found += undefended(held, **(base or {}))
        for case in cases:
            _, *how = CASES[case] if isinstance(case, str) else case
            found += defended(held, *how)
    return {Path(str(place)): one for place, one in enumerate(found)}


def told(places, title="T"):
    (group,) = groups_of(places)
    return collect_knowing(group, title, "a command", ("hits@1", "true@1"))


def words(results):
    return {one.column: one.word for one in results.verdicts}


@pytest.mark.parametrize("case", CASES)
def test_the_right_word(case):
    results = told(study(case))
    assert words(results) == dict.fromkeys(("hits@1", "true@1"), CASES[case][0])
    (sentence,) = results.sentences
    assert sentence.startswith(results.rows[1].name)
    for one in results.verdicts:
        assert (one.p is None) == (one.word == "cannot be told")
        assert one.p is None or one.p < 0.05


SURE = Gap(1.0, 1.0, 1.0, 0.0)
WITHOUT = {  # a condition, and the case that gets another word without it
    "equal accuracy": ("a trade", {"Judged.at_equal": Judged.at_end}),
    "who knows": ("hiding", {"Judged.aware": Judged.ignorant}),
    "what is left for who knows": ("below them, and most of it for who knows", {"_shown": lambda *_: False}),
    "most of it": (
        "below them, and half of it for who knows",
        {"_shown": lambda *_: False, "Judged._back": lambda *_: SURE},
    ),
    "what stopping explains": ("more than accuracy takes", {"Judged._explained": lambda *_: SURE}),
}


@pytest.mark.parametrize("condition", WITHOUT)
def test_without_a_condition_a_case_gets_another_word(condition, monkeypatch):
    case, patches = WITHOUT[condition]
    places = study(case)
    for name, other in patches.items():
        assert CASES[case][0] in words(told(places)).values()  # all but the last alone change nothing
        monkeypatch.setattr(f"lightleak.report.proof.{name}", other)
    assert CASES[case][0] not in words(told(places)).values()


def test_a_difference_that_one_world_does_not_show_is_none_that_is_gone():
    """Who knows finds 30 points fewer in one world, and as many in the other: neither real nor hiding."""
    cases = ({"max-margin": 0.6, LABELS: 0.5}, {"max-margin": 0.88, LABELS: 0.5})
    both = [one for world, shares in enumerate(cases)
            for one in study(("", NegLS(), "negls", 0.92, shares, 0.2, None), worlds=(world,)).values()]  # fmt: skip
    results = told({Path(str(place)): one for place, one in enumerate(both)})
    assert set(words(results).values()) == {"cannot be told"}
    assert "in each of 2 worlds" in subject(results)
    (aware,) = [one for one in results.differences if one.column == "knowing hits@1"]
    assert aware.high is not None
    assert aware.high < 0


def test_an_attack_that_was_not_run_on_a_defended_network_is_none_that_it_withstands():
    """Max-margin finds 80 % of the undefended network, the Poincaré distance half of that, of either network."""
    base = {"poincare": 0.4, "margin": 0.8, "leaks": (0.1, 0.2, 0.3)}
    places = study(("", BiDO(), "bido", 0.92, {"averaged over views": 0.41}, 0.4, None), "real", base=base)
    results = told(places)
    assert [one.word for one in results.verdicts if one.row == "BiDO"] == ["cannot be told"] * 2
    (sentence,) = [text for text in results.sentences if text.startswith("BiDO")]
    assert sentence.endswith("Not tried: PPA (loss max-margin).")
    alone = [one for one in places.values() if one.target.run != "BiDO" or one.attack.settings["alignment"]]
    results = told({Path(str(place)): one for place, one in enumerate(alone)})
    assert {one.row for one in results.verdicts} == {"RoLSS"}
    why = "in no training was it attacked in all ways, and the undefended network in one of them"
    assert f"no verdict on BiDO: {why}" in results.notes


def test_a_copy_that_learnt_nothing_is_no_attacker():
    useless = ("", RoLSS(), "rolss", 0.92, {STUDENT: 0.02}, 0.2, 0.2, 0.1)
    results = told(study(useless))
    assert not results.verdicts
    assert results.summary.startswith("No defended network")
    why = "what those who know it attacked is worth too little to count: PPA on a copy with its skips (which names 10 %"
    assert any(note.startswith(f"no verdict on RoLSS: {why}") for note in results.notes)
    html = page(results)
    assert why in html
    results = told(study(("", NegLS(), "negls", 0.92, {"max-margin": 0.88, LABELS: 0.02}, 0.2, None, 0.1)))
    assert set(words(results).values()) == {"hiding"}
    assert results.sentences[0].endswith(
        "Worth too little to count: PPA on a copy by labels (which names 10 % of test images right)."
    )


def test_each_of_several_defences_must_be_known():
    """Max-margin knows NegLS, and nothing of RoLSS below it."""
    both = (RoLSS(), NegLS())
    results = told(study("real", ("", both, "negls", 0.92, {"max-margin": 0.3, LABELS: 0.2}, 0.2, None)))
    assert {one.row for one in results.verdicts} == {"RoLSS"}
    assert "no verdict on RoLSS + NegLS: nobody who knows RoLSS attacked it" in results.notes
    shares = {"max-margin": 0.3, LABELS: 0.2, STUDENT: 0.3}
    results = told(study(("", both, ("rolss", "negls"), 0.92, shares, 0.2, None)))
    assert set(words(results).values()) == {"real"}
    assert results.sentences[0].endswith("Not tried: skips scaled back in, skips scaled back in and max-margin.")


@pytest.mark.parametrize(("control", "word"), [(None, "cannot be told"), (0.9, "real"), (0.4, "hiding")])
def test_who_knows_reveals_what_is_hidden_if_that_finds_no_more_without_the_defence(control, word):
    """Averaging over views finds half of a network with BiDO; others a tenth of it, and half of the undefended."""
    base = {"poincare": 0.5, "margin": 0.45, "leaks": (0.1, 0.2, 0.3)}
    places = study(("", BiDO(), "bido", 0.92, {"averaged over views": 0.48}, 0.1, 0.1), base=base)
    (views,) = ADAPTIVE["bido"]
    if control is not None:
        more = [record(setting(world), setting(world).target((), seed), views.attack(WHITE), control, 0.92)
                for world in (0, 1) for seed in (0, 1, 2)]  # fmt: skip
        places |= {Path(f"c{place}"): one for place, one in enumerate(more)}
    results = told(places)
    assert set(words(results).values()) == {word}
    missing = "not run on the undefended network, so no proof that anything was hidden: averaged over views"
    assert (missing in results.notes) == (control is None)


def test_what_is_said_at_equal_accuracy_is_what_is_known_there():
    (sentence,) = told(study("hiding at equal accuracy")).sentences
    assert "fewer than the strongest attack on the undefended network, " in sentence
    assert "at equal natural accuracy (75 %), corrected p" in sentence
    below, real = study("below every checkpoint"), study("real")
    assert "of which no checkpoint is as little accurate as this network" in told(below).sentences[0]
    unstopped = {place: one for place, one in real.items() if one.target.moment is None}
    assert "than of the undefended network, no checkpoint of which was attacked" in told(unstopped).sentences[0]
    made = {place: one for place, one in real.items() if one.target.title != "RoLSS"}
    extra = [record(setting(world), Copied(setting(world).target((), seed), "gradients", "timm:resnet18", LESSONS),
                    WHITE, 0.5, 0.6) for world in (0, 1) for seed in (0, 1, 2)]  # fmt: skip
    results = told(made | {Path(f"e{place}"): one for place, one in enumerate(extra)})
    assert "how accurate this network is was not recorded in each training" in results.sentences[0]


def test_a_guard_is_held_against_attacks_that_it_does_not_allow():
    held = setting()
    behind = Guarded(held.target((), 0), SSD())
    copying = Copied(behind, "labels", "timm:resnet18", LESSONS)
    asking = replace(held, prior=Lokt(), transfer=Transfer())
    base = [record(asking, held.target((), 0), LOKT(), 0.5, 0.9), record(held, held.target((), 0), WHITE, 0.5, 0.9)]
    plainly, guarded = networks([*base, record(held, copying, WHITE, 0.5, 0.6)]).values()
    allowed = {one.first.attack.name: guarded.allows(one) for one in plainly.attacks.values()}
    assert allowed == {"Lokt": True, "PPA": False} or allowed == {"LOKT": True, "PPA": False}
    assert all(plainly.allows(one) for one in plainly.attacks.values())


def test_an_attack_that_was_always_stronger_knows_nothing():
    """Max-margin finds more than the Poincaré distance with and without NegLS: that hides nothing."""
    base = {"poincare": 0.4, "margin": 0.8, "leaks": (0.1, 0.2, 0.3)}
    weak = ("", NegLS(), "negls", 0.92, {"max-margin": 0.8, LABELS: 0.5}, 0.4, None)
    assert set(words(told(study(weak, base=base))).values()) == {"cannot be told"}
    hidden = ("", NegLS(), "negls", 0.92, {"max-margin": 0.8, LABELS: 0.5}, 0.05, None)
    assert set(words(told(study(hidden, base=base))).values()) == {"hiding"}
    # Both find somewhat fewer, the stronger too few fewer to be shown: knowing brings nothing that it did not before.
    base = {"poincare": 0.5, "margin": 0.9, "leaks": (0.1, 0.2, 0.3)}
    lower = ("", NegLS(), "negls", 0.92, {"max-margin": 0.84, LABELS: 0.5}, 0.38, None)
    assert set(words(told(study(lower, base=base))).values()) == {"cannot be told"}


def test_what_being_stopped_does_alone_is_no_defence():
    """Four points at equal accuracy are shown with so many people, and say nothing; without stopping they do."""
    few = {SKIPS: 0.755, STUDENT: 0.755}
    base = {"poincare": 0.8, "margin": 0.7, "accuracy": 0.86, "leaks": (0.35, 0.6, 0.795)}
    near = ("", RoLSS(), "rolss", 0.855, few, 0.755, 0.7)
    results = told(study(near, base=base, worlds=(0,), people=1200))
    level = results.levels[1].difference
    assert level.high is not None
    assert level.high < 0
    assert level.value > -0.05
    assert set(words(results).values()) == {"cannot be told"}
    same = ("", RoLSS(), "rolss", 0.86, few, 0.755, 0.7)
    assert set(words(told(study(same, base=base, worlds=(0,), people=1200))).values()) == {"real"}


def test_where_there_is_nothing_to_know_every_attack_counts():
    private = ("", DPSGD(epsilon=8.0), "dp", 0.9, {}, 0.3, 0.3)
    results = told(study("real", private, worlds=(0,)))
    assert [one.word for one in results.verdicts] == ["real"] * 4
    assert not groups_of(study(private, worlds=(0,)))


def test_one_training_speaks_of_no_defence_and_worlds_do():
    results = told(study("real", worlds=(0,), seeds=(0,)))
    assert set(words(results).values()) == {"cannot be told"}
    assert "one training of each speaks of these networks, not of the defence" in results.sentences[0]
    assert set(words(told(study("real", worlds=range(6), seeds=(0,)))).values()) == {"real"}
    assert set(words(told(study("real", worlds=(0,), seeds=(0, 1)))).values()) == {"real"}


def test_every_world_must_show_it():
    two = study("real")
    other = study("nothing", worlds=(1,))
    places = [one for one in two.values() if one.population.settings["seed"] == 0] + list(other.values())
    results = told({Path(str(place)): one for place, one in enumerate(places)})
    assert set(words(results).values()) == {"cannot be told"}
    (aware,) = [one for one in results.differences if one.column == "knowing hits@1"]
    assert aware.value < -0.1  # the mean over both
    assert aware.high is not None
    assert aware.high < 0  # all together would show it


def test_several_defences_share_one_table():
    cases = ("real", ("", NegLS(), "negls", 0.92, {"max-margin": 0.88, LABELS: 0.5}, 0.2, None),
             ("", LoFt(), "loft", 0.62, {"max-margin": 0.36, "straight through tanh": 0.35, LABELS: 0.3}, 0.36, None),
             ("", BiDO(), "bido", 0.91, {"averaged over views": 0.87}, 0.88, 0.8))  # fmt: skip
    results = told(study(*cases))
    found = {(one.row, one.column): one.word for one in results.verdicts}
    titles = [row.name for row in results.rows]
    assert titles[0] == "no defence"
    expected = dict(zip(titles[1:], ("real", "hiding", "a trade", "cannot be told"), strict=True))
    assert found == {(row, metric): word for row, word in expected.items() for metric in ("hits@1", "true@1")}
    said = " ".join(results.sentences)
    assert "by the judge it is real: the strongest attack (PPA, skips scaled back in, which knows it) finds 3" in said
    assert "by the truth it is hiding: PPA, max-margin, which knows it, finds " in said
    assert "fewer than of the undefended network, but" in said
    assert "By the truth, real: RoLSS; hiding: NegLS" in results.summary
    again = Results.from_json(json.loads(json.dumps(results.to_json())))
    assert again.verdicts == results.verdicts
    assert again.sentences == results.sentences
    html = page(again)
    assert "Which defence is real" in html
    assert "by the judge it is hiding" in html
    (table,) = [table for table in tables(again) if table.name == "verdicts"]
    head, *lines = to_csv(table).splitlines()
    assert head.startswith("name,kind,verdict hits@1,against hits@1,against hits@1 low")
    assert lines[0].startswith("RoLSS,target,real,-0.")
    assert r"RoLSS & real & $-$5" in to_latex(table)
    assert {one.name for one in tables(again)} == {"main", "verdicts", "differences", "equal-accuracy"}


def test_what_knows_a_defence_is_told_by_the_attack_and_its_target():
    held = setting()
    for name, ways in ADAPTIVE.items():
        if name not in ("negls", "loft", "trapmid", "mid", "midre", "atat"):
            continue
        kind = {"negls": NegLS, "loft": LoFt}.get(name, NegLS)
        target = held.target((kind(),), 0)
        for known in ways:
            one = record(held, form_of(target, known), known.attack(WHITE), 0.5, 0.9)
            renamed = replace(one, target=replace(one.target, defences={DEFENCES[name].__name__: {}}))
            (network,) = networks([renamed]).values()
            (attack,) = network.attacks.values()
            assert attack.known == known, (name, known.name)
            assert known.name in attack.label
    cut = held.target((RoLSS(),), 0)
    (network,) = networks([record(held, cut, MARGIN, 0.5, 0.9), record(held, cut, WHITE, 0.5, 0.9)]).values()
    assert {one.label for one in network.attacks.values()} == {"PPA (loss max-margin)", "PPA (loss poincare)"}
    assert not any(one.known for one in network.attacks.values())
    assert not network.known


def test_a_guard_is_known_by_whoever_votes():
    held, lokt = setting(), LOKT()
    behind = Guarded(held.target((), 0), SSD())
    voting = Copied(behind, "labels", "timm:resnet18", replace(LESSONS, votes=3))
    plainly = Copied(behind, "labels", "timm:resnet18", LESSONS)
    (network,) = networks([record(held, one, WHITE, 0.5, 0.9) for one in (voting, plainly)]).values()
    assert network.defences == ("ssd",)
    names = {one.known.name for one in network.attacks.values() if one.known}
    assert names == {"a copy by labels", "a copy by a vote of 3 labels"}
    asking = replace(held, prior=Lokt(), transfer=Transfer(lessons=replace(LESSONS, votes=3)))
    (network,) = networks([record(asking, behind, lokt, 0.5, 0.9)]).values()
    (attack,) = network.attacks.values()
    assert attack.known is not None
    assert (attack.known.votes, attack.label) == (3, "LOKT, a vote of 3")


def test_no_page_without_somebody_who_knows_or_without_the_undefended_network():
    whole = study("real", worlds=(0,))
    assert len(groups_of(whole)) == 1
    blind = {place: one for place, one in whole.items() if one.target.title in ("no defence", "RoLSS")}
    assert not groups_of(blind)
    assert not groups_of({place: one for place, one in whole.items() if one.target.run != "no defence"})
    assert not groups_of({})


def test_what_nobody_who_knows_attacked_has_no_verdict():
    held = setting()
    places = study("real", worlds=(0,))
    more = [record(held, Retrofitted(held.target((), seed)), WHITE, 0.3, 0.9) for seed in held.seeds]
    more += [record(held, held.target((BiDO(),), 0), Guess(), 0.1, 0.9)]  # a null is no attack
    results = told(places | {Path(f"r{place}"): one for place, one in enumerate(more)})
    assert [row.name for row in results.rows] == ["no defence", "RoLSS"]
    assert "no verdict on RoLSS, retrofitted: nobody who knows the defence attacked it" in results.notes
    part = {place: one for place, one in places.items() if "copy" not in one.target.title}
    assert told(part).sentences[0].endswith("Not tried: a copy with its skips.")


def test_the_page_is_among_a_studys_and_what_data_do_not_allow_is_said(tmp_path):
    places = study("real", "hiding", worlds=(0,))
    dark = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pictures = {"classes": torch.arange(2), "private": dark, "reconstructed": dark.clone()}
    for place, one in places.items():
        (tmp_path / "Evaluate" / str(place)).mkdir(parents=True)
        (tmp_path / "Evaluate" / str(place) / "result.json").write_text(json.dumps(one.to_json()))
        save_file(pictures, tmp_path / "Evaluate" / str(place) / "gallery.safetensors")
    (tmp_path / "Evaluate" / "gone").mkdir()
    (tmp_path / "Evaluate" / "gone" / "result.json").write_text('{"absent": "no skip can be put back"}')
    about = {"title": "T", "command": "c", "evaluations": [*map(str, places), "gone"], "primary": ["true@1"]}
    (tmp_path / NOTE).write_text(json.dumps(about))
    first, *_, last = pages(studied(tmp_path))
    assert "1 evaluations that these data do not allow: no skip can be put back" in first.notes
    assert last.title == "T (by attackers who know)"
    assert [one.word for one in last.verdicts if one.column == "true@1"] == ["real", "hiding"]
    assert last.primary == ("ignorant true@1", "knowing true@1")


@pytest.mark.slow
def test_a_miniature_from_training_to_the_page(tmp_path):
    """Networks with and without NegLS, attacked by who knows it and who does not, to the page."""
    population = source(
        "faces", people=4, images=6, size=32, lookalikes=2, public_people=4, public_images=10, judge_images=6
    )
    held = Setting(
        population,
        architecture="timm:test_resnet",
        recipe=replace(RECIPES["small"], epochs=2, batch=8),
        judge="timm:test_resnet",
        judge_recipe=replace(RECIPES["judge"], epochs=1, batch=8),
        attack=PPA(candidates=8, attempts=1, keep=1, steps=2, milestones=(), views=2),
        seeds=(0, 1),
        checkpoints=(CheckpointCriterion(accuracy=0.3),),
    )
    rows = ((), (NegLS(),))
    tasks = [*compare(held, rows), *compare_on_the_way(held, rows[:1])]
    for known in knowing(["negls"]):
        theirs = replace(held, attack=known.attack(held.attack))

        def forms(trained, known=known):
            lessons = known.lessons(Lessons(epochs=1, batch=8, pretrained=False))
            return (Copied(trained, known.copy, held.architecture, lessons) if known.copy else trained,)

        tasks += compare(theirs, rows[1:], forms)
    with recorded(tasks, tmp_path, "T", "a command"):
        assert not run(tasks, Store(tmp_path))
    *_, last = pages(studied(tmp_path))
    assert last.title == "T (by attackers who know)"
    assert [row.name for row in last.rows] == ["no defence", "NegLS"]
    assert {one.column for one in last.verdicts} == {"hits@1", "true@1"}
    assert "Which defence is real" in page(last)


# ---------------------------------------------------------------------------------------------------------------------
# Nothing depends on what stands first, or is missing


@pytest.mark.parametrize("order", [(1, 100), (100, 1)])
def test_copies_that_learnt_otherwise_are_two_attacks_whichever_is_read_first(order):
    places = [one for one in study("real").values() if "copy" not in one.target.title]
    for world in (0, 1):
        held = setting(world)
        for seed, epochs in product(held.seeds, order):
            lessons = Lessons(epochs=epochs, pretrained=False)
            for defence, few, many in (((RoLSS(),), 0.3, 0.95), ((), 0.5, 0.95)):
                copy = Copied(held.target(defence, seed), "gradients", "timm:resnet18", lessons)
                places.append(record(held, copy, WHITE, few if epochs == 1 else many, 0.6))
    results = told(dict(enumerate_(places)))
    assert "real" not in words(results).values()
    assert "a copy with its skips (target lessons epochs 100)" in results.sentences[0]


def test_an_attack_that_was_repeated_is_said_and_counts_once():
    found = list(study("real").values())
    again = [replace(one, attack=replace(one.attack, seed=9)) for one in found if one.target.moment is None]
    results = told(dict(enumerate_(found + again)))
    assert any(note.startswith(f"{len(again)} evaluations repeat an attack") for note in results.notes)
    assert words(results) == words(told(study("real")))


TRADED = ("", RoLSS(), "rolss", 0.75, {SKIPS: 0.5, STUDENT: 0.4}, 0.3, 0.62)
WEAK_STOPS = {"poincare": 0.4, "margin": 0.8, "leaks": (0.1, 0.2, 0.3)}


@pytest.mark.parametrize(
    ("case", "base"),
    [
        (TRADED, WEAK_STOPS),
        (
            ("", RoLSS(), "rolss", 0.75, {STUDENT: 0.6}, 0.1, 0.1),
            {"poincare": 0.4, "margin": 0.8, "leaks": (0.1, 0.35, 0.38)},
        ),
    ],
    ids=["a trade", "hiding"],
)
def test_a_weaker_attack_on_checkpoints_makes_neither_a_trade_nor_hiding(case, base):
    """Max-margin finds most of the undefended network, and was not run on its checkpoints."""
    results = told(study(case, base=base))
    assert set(words(results).values()) == {"cannot be told"}
    assert any("not by PPA (loss max-margin), which finds most at its end" in note for note in results.notes)
    assert all(level.p is None for level in results.levels if level.difference.value > 0)


def test_what_is_told_of_worlds_of_unequal_trainings_is_of_the_trainings_that_count():
    """Of five trainings in the first world two count; the other three leak more."""
    held = [setting(0, seeds=(0, 1, 2, 3, 4)), setting(1, seeds=(0, 1))]
    found = []
    for one in held:
        found += undefended(one)
        for seed in one.seeds:
            trained = one.target((RoLSS(),), seed)
            for form in (
                trained,
                Altered(trained, "skips back"),
                Copied(trained, "gradients", "timm:resnet18", LESSONS),
            ):
                found.append(record(one, form, WHITE, 0.2 if seed < 2 else 0.7, 0.9))
    results = told(dict(enumerate_(found)))
    row = next(row for row in results.rows if row.name == "RoLSS")
    leak = row.measures["knowing hits@1"]
    assert leak is not None
    assert f"finds {round(100 * leak.value)} % of people" in results.sentences[0]
    assert any(note.startswith("RoLSS: 4 of 7 trainings") for note in results.notes)


def enumerate_(records):
    return ((Path(str(place)), one) for place, one in enumerate(records))
