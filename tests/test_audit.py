"""The audit by its public door: somebody's own network, pictures in folders, a record and a page."""

# ruff: noqa: ARG001

import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from sklearn.datasets import load_sample_image

from browser import Browser
from lightleak import cli, priors
from lightleak.attacks import ATTACKS, PPA
from lightleak.attacks.guards import LabelsOnly, Rounded, TopK
from lightleak.attacks.surrogate import Lessons
from lightleak.audit import (
    BUDGETS,
    Brought,
    Order,
    answer,
    cost,
    ensemble,
    finish,
    load,
    prepare,
    recognisers,
    verify,
)
from lightleak.audit.answer import Found
from lightleak.audit.brought import examine, normalised
from lightleak.audit.exposures import EXPOSURES, compared
from lightleak.audit.measure import Embed, JudgeQuality, _spread
from lightleak.audit.page import BROWSERS, page, percent
from lightleak.audit.record import seal_of
from lightleak.audit.report import _subjects, _together
from lightleak.cli.arguments import Own
from lightleak.cli.audit import guarded
from lightleak.data import faces
from lightleak.data.population import Images, Population
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.metrics import evidence
from lightleak.metrics.evaluate import reference
from lightleak.models.classifier import Classifier, save
from lightleak.models.own import made, own
from lightleak.priors import ConditionalPrior, RenderedPrior, StyleGAN2Prior
from lightleak.priors.conditional64 import ConditionalGenerator, ProjectionDiscriminator
from lightleak.priors.fit import WganGp
from lightleak.priors.stylegan2 import Generator
from lightleak.study import Store, run
from lightleak.study.tasks import Invert, Score, Surrogate, ready, source
from lightleak.terminal import console

PEOPLE = 8  # six are the fewest of whom a leak can be sure
TINY = BUDGETS["tiny"]  # as it is; tests make it smaller
SOURCE = '''
import torch
from torch import nn


class Memory(nn.Module):
    """A network that keeps its training pictures and tells people apart by the nearest one."""

    def __init__(self, classes=8, each=14):
        super().__init__()
        self.shape = (classes, each)
        self.pictures = nn.Parameter(torch.zeros(classes * each, 3 * 16 * 16))

    def forward(self, images):
        seen = nn.functional.adaptive_avg_pool2d(images, 16).flatten(1)
        apart = torch.cdist(seen, self.pictures).square().unflatten(1, self.shape)
        return (-apart / 4).logsumexp(2)


def make_model():
    return Memory()


class Small(nn.Module):
    """A plain convolutional network for images in [0, 1]."""

    input_size, mean, std = (3, 32, 32), (0.0,) * 3, (1.0,) * 3

    def __init__(self, classes=5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(48 * 16, classes),
        )

    def forward(self, images):
        return self.body(images)


class Pictures(nn.Module):
    """No embedding."""

    def forward(self, images):
        return images


class Blind(nn.Module):
    """An embedding that hardly knows anybody: how bright the picture is, and how much so at the top."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.mean(1), (2, 1)).flatten(1)


class Coarse(nn.Module):
    """Another embedding that nobody trained: the picture, smaller, in grey, less its mean."""

    def forward(self, images):
        seen = nn.functional.adaptive_avg_pool2d(images.mean(1), 6).flatten(1)
        return seen - seen.mean(1, keepdim=True)


class Colours(nn.Module):
    """An embedding that nobody trained: the picture, small, less its mean."""

    def forward(self, images):
        seen = nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        return seen - seen.mean(1, keepdim=True)
'''


def remembered(images: Images) -> torch.Tensor:
    """What a Memory of these pictures (in [-1, 1], sorted by person) holds."""
    return torch.nn.functional.adaptive_avg_pool2d(images.floats() * 2 - 1, 16).flatten(1)


def write(folder: Path, images: Images, names) -> list[str]:
    """Pictures as files; returns their names below the folder."""
    files = []
    for number, (picture, label) in enumerate(zip(images.pixels, images.labels.tolist())):
        place = folder / names(label) / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place)
        files.append(f"{names(label)}/{number:04d}.png")
    return files


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Eight people and fifty strangers as PNG files, a network that knows the eight, one that knows eight others."""
    folder = tmp_path_factory.mktemp("theirs")
    made = faces.population(
        people=PEOPLE, images=34, size=32, strength=0.25, noise=0.02, public_people=PEOPLE + 50, public_images=14,
        validation_images=1, test_images=1, judge_images=1, seed=5,
    )  # fmt: skip
    write(folder / "people", made.train, lambda label: f"p{label:02d}")
    place = torch.arange(len(made.train)) % 34
    mine, others = made.train.at(place < 14), made.public.at(made.public.labels < PEOPLE)
    write(folder / "others", made.public.at(made.public.labels >= PEOPLE), lambda label: f"s{label:02d}")
    (folder / "mine.py").write_text(SOURCE)
    (folder / "names.txt").write_text("".join(f"p{label:02d}\n" for label in range(PEOPLE)))
    listed = [f"people/p{int(label):02d}/{i:04d}.png" for i, label in enumerate(made.train.labels) if i % 34 < 14]
    (folder / "trained-on.txt").write_text("\n".join(listed))
    for name, images in (("knows", mine), ("strange", others)):
        torch.save({"epoch": 3, "state_dict": {"module.pictures": remembered(images)}}, folder / f"{name}.pt")
    return folder


@pytest.fixture
def small(monkeypatch):
    """The tiny budget, tinier."""
    tiny = BUDGETS["tiny"]
    attack = PPA(candidates=60, attempts=2, keep=1, steps=25, rate=0.05, views=4, batch=48)
    lessons = Lessons(epochs=1, batch=64, pretrained=False)
    variants = {"PPA": attack}
    small = replace(tiny, attack=attack, variants=variants, lessons=lessons, student="timm:test_resnet", judges=())
    monkeypatch.setitem(BUDGETS, "tiny", small)
    return small


def order(world: Path, weights: str = "knows", **more) -> Order:
    brought = Brought(str(world / f"{weights}.pt"), f"{world}/mine.py:make_model", size=32)
    settings = {"private": "all", "public": f"folder:{world}/others", "classes": str(world / "names.txt")}
    given = {
        "train_list": world / "trained-on.txt",
        "recogniser": f"{world}/mine.py:Colours",
        "prior": "rendered",
        "rate": 0.1,
        "settings": settings,
    }
    return Order(brought, f"folder:{world}/people", **(given | more))


def audited(told: Order, out: Path):
    prepared, store = prepare(told, out), Store(out / "work")
    assert not run(prepared.tasks, store)
    return prepared, finish(prepared, store, out, "lightleak audit", pdf=False)


@pytest.fixture(scope="session")
def memorised(world, tmp_path_factory):
    """A finished audit of the network that knows these people."""
    with pytest.MonkeyPatch.context() as patch:
        small.__wrapped__(patch)  # pyright: ignore
        patch.setenv("LIGHTLEAK_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("audit")
        prepared, answer = audited(order(world), out)
    return out, prepared, answer


def test_a_model_that_knows_them_leaks_near_its_ceiling(memorised):
    out, _, answer = memorised
    assert answer.verdict == "leak shown"
    assert answer.shown > PEOPLE / 2 > answer.null_shown
    assert answer.above_ceiling.value >= 0.6
    record = load(out)
    assert record["answer"]["sentence"].startswith(
        f"Of {PEOPLE} people, the attack's images show {answer.shown} to an "
    )
    assert {one["name"] for one in record["members"]} >= {"PPA", "guess", "pixels"}
    assert any(one["sees"] == "labels" and not one["null"] for one in record["members"])
    # This network keeps its pictures: they come out pixel by pixel, without any prior, so the control is no null.
    assert any("pixel by pixel" in one for one in record["warnings"])


def test_several_recognisers_are_heard_and_the_first_that_is_fit_decides(world, memorised, tmp_path, small):
    """The first named hardly knows photographs and is passed over, whatever it saw; the numbers are made again here."""
    names = ("Blind", "Colours", "Coarse")
    declared = {"variants": "an int8 copy", "privacy": "epsilon 8, delta 1e-5, for one person more or less"}
    told = order(world, recogniser=tuple(f"{world}/mine.py:{name}" for name in names), declared=declared)
    shutil.copytree(memorised[0] / "work", tmp_path / "work")  # the same attacks; what is measured of them is new
    prepared, found = audited(told, tmp_path)
    assert found == memorised[2]  # which Colours alone decided
    record, store = load(tmp_path), Store(tmp_path / "work")
    section = record["recognisers"]
    assert [row["decides"] for row in section["each"]] == [False, True, False]
    assert [row["fit"] for row in section["each"]][:2] == [False, True]
    attacks, shown = [one.name for one in prepared.ensemble.attacks], {}
    for number, (name, row) in enumerate(zip(names, section["each"])):
        network, calibration = made(f"{world}/mine.py:{name}").eval(), row["calibration"]
        galleries = prepared.embeds[number].load(store)
        for attack in attacks:
            for person, image in prepared.measures[attack].images(store).items():
                one = network(image[None].float() / 255)[0].double()
                mine = galleries["gallery.features"][galleries["gallery.labels"] == person].double()
                best = max(float(one @ each / one.norm() / each.norm()) for each in mine)
                shown.setdefault(name, {})[attack, person] = best > calibration["threshold"]
        assert row["shown"] == sum(shown[name][member, who] for who, member in enumerate(found.chosen))
    same = {name: np.mean([shown[name][each] == shown["Colours"][each] for each in shown[name]]) for name in names}
    third = np.mean([shown["Blind"][each] == shown["Coarse"][each] for each in shown["Blind"]])
    for name, row in zip(names, section["each"]):
        assert row["agrees_with_the_deciding"] == (None if name == "Colours" else pytest.approx(same[name]))
    assert section["agreement"] == pytest.approx((same["Blind"] + same["Coarse"] + third) / 3)
    assert record["verification"]["title"] == section["each"][1]["title"] == prepared.embeds[1].recogniser.title
    assert record["hashes"]["recogniser"]["sha256"] == section["each"][1]["sha256"]
    page = " ".join((tmp_path / "audit.html").read_text().split())
    assert "What each recogniser says" in page
    assert (record["release"]["variants"], record["measures"]["privacy_declared"]) == tuple(declared.values())
    assert all(words in page for words in declared.values())
    assert all(f"own network {name} (mine.py" in page for name in names)
    assert sum("named first, own network Blind" in one for one in record["warnings"]) == 1
    with pytest.raises(UserError, match="is named twice"):
        prepare(replace(told, recogniser=(f"{world}/mine.py:Blind",) * 2), tmp_path)


def test_without_a_recogniser_nobody_is_heard(world, memorised, tmp_path, small):
    shutil.copytree(memorised[0] / "work", tmp_path / "work")
    _, found = audited(order(world, recogniser=None), tmp_path)
    record = load(tmp_path)
    assert (found.by, found.verdict) == ("nobody", "cannot tell")
    assert record["recognisers"]["each"] == []
    assert record["verification"] == {"missing": "no recogniser took part"}
    assert not {"recogniser", "recognisers"} & set(record["hashes"])
    assert "What each recogniser says" not in (tmp_path / "audit.html").read_text()


def test_several_recognisers_are_named_after_one_flag(world, small, capsys):
    mine = ["audit", "--net", f"{world}/mine.py:make_model", "--weights", f"{world}/knows.pt", "--size", "32",
            "--data", f"folder:{world}/people", "--public", f"folder:{world}/others", "--dry-run",
            "--prior", "rendered", "--recogniser"]  # fmt: skip
    cli.main([*mine, f"{world}/mine.py:Colours", f"{world}/mine.py:Coarse"])
    assert "nothing was run" in capsys.readouterr().out
    for names in (["none", f"{world}/mine.py:Colours"], [f"{world}/mine.py:Colours", "auto"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*mine, *names])
        assert end.value.code == 2
        assert "or alone none or auto" in " ".join(capsys.readouterr().err.split())


def test_which_recogniser_decides_is_known_before_any_attack():
    calibrated = {"calibration": {}, "verified": "whatever it sees"}
    fit, unfit, unknown = calibrated | {"ceiling": 0.8}, calibrated | {"ceiling": 0.79}, calibrated | {"ceiling": None}
    none = {"missing": "too few strangers"}
    for told, first in [
        ([fit, fit], 0), ([unfit, fit], 1), ([none, unknown, unfit, fit, fit], 3), ([unfit, unknown], 0),
        ([none, unfit], 1), ([none, none], 0), ([], 0),
    ]:  # fmt: skip
        assert recognisers.deciding(told) == first


def test_recognisers_that_disagree_are_one_warning():
    sees = {"PPA": "gradients", "guess": "scores"}

    def said(name, verified, ceiling=1.0):
        embed = EMBED | {"ceiling": ceiling, "held_out": [ceiling] * 12}
        found = [_found("PPA", verified=_some(verified)), _found("guess", True, _some(0))]
        return recognisers.Opinion(name, "0" * 64, embed, found, answer.answer(found, sees, embed, FIT, 12))

    (line,) = recognisers.warnings([said("One", 6), said("Two", 0)], 0)
    assert line == (
        "The recognisers disagree: One says leak shown (6 of 12); Two says no leak shown (0 of 12). The answer rests "
        "on One, the first named that is fit."
    )
    assert recognisers.warnings([said("one", 6), said("two", 5)], 0) == []
    assert recognisers.warnings([said("one", 6), said("two", 0, ceiling=0.1)], 0) == []  # it cannot tell
    first, second = recognisers.warnings([said("bad", 7, ceiling=0.5), said("good", 0)], 1)
    assert "bad, is unfit for these pictures (it knows 50% of held-out photographs); the answer rests on good" in first
    assert "bad says leak shown (7 of 12), though it is unfit" in second


def test_the_page_says_the_answer_first_and_carries_itself(memorised):
    out, _, answer = memorised
    page = (out / "audit.html").read_text()
    body = re.sub(r"<[^>]+>", " ", page[page.index("<h1>") :])
    assert " ".join(body.split()).startswith(" ".join(answer.sentence.replace("'", "&#39;").split()))
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "@media print" in page
    for word in ("EDPB", "NIST", "ATLAS", "AISVS", "27090", "membership inference", "not run"):
        assert word in page


def test_on_paper_no_table_is_cut_and_no_word_is_torn(memorised, tmp_path):
    """With as many members and judges as the standard budget has, every exposure, and several recognisers."""
    out, prepared, _ = memorised
    record = load(out)
    one = record["members"][0]
    judges = dict.fromkeys(BUDGETS["standard"].judges, 0.97)
    record["judges"]["accuracy"] = judges
    names = [f"PPA, max-margin, TAA, by somebody who knows all {number}" for number in range(14)]
    record["members"] = [one | {"name": name, "judges": judges} for name in names]
    row = {"shown": 3, "share": one["share"], "queries": 100_000, "less_than_granted": one["share"]}
    record["exposures"] = [{"exposure": name, **row} for name in EXPOSURES]
    heard = record["recognisers"]["each"][0] | {"verdict": "resemblance shown", "agrees_with_the_deciding": 0.87}
    titles = (
        "ArcFace (backbone.pth, sha256 01234567)",
        "dlib's ResNet (dlib_face_recognition_resnet_model_v1.dat, sha)",
    )
    record["recognisers"]["each"] = [heard | {"title": title} for title in titles]
    record["recognisers"]["each"].append({"title": "AdaFace", "decides": False, "fit": False, "missing": "so few"})
    file = tmp_path / "audit.html"
    file.write_text(page(record, {}, prepared.population.class_names))
    with Browser(tmp_path / "profile") as browser:
        browser.on_paper(688)
        browser.go(file.as_uri())
        browser.until("document.readyState === 'complete' && document.querySelectorAll('table').length === 6")
        wide = "[...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().right)"
        assert max(browser.sees(wide)) <= 688
        lines = """[...document.querySelectorAll('thead th, td')].filter(cell => {
          const words = document.createRange(), text = cell.firstChild;
          return text && text.nodeType === 3 && text.textContent.trim().split(/[\\s\u200b]+/).some(word => {
            const at = text.textContent.indexOf(word);
            words.setStart(text, at); words.setEnd(text, at + word.length);
            return new Set([...words.getClientRects()].map(one => one.top)).size > 1; });
        }).map(cell => cell.textContent)"""
        assert browser.sees(lines) == []


def test_every_field_of_the_record_is_documented_and_no_other(memorised):
    """Names in the documentation's tables are fields of the record; each section's are listed under its heading."""
    record = load(memorised[0])
    text = (Path(__file__).parent.parent / "docs" / "audit-record.md").read_text()
    parts = re.split(r"^## (.*)$", text, flags=re.M)[1:]
    written = {}
    for heading, part in zip(parts[::2], parts[1::2]):
        for name in re.findall(r"`(\w+)`", heading):
            written[name] = set(re.findall(r"`(\w+)`", part))
    every = set(re.findall(r"`(\w+)`", text))
    assert every >= set(record)
    for section, fields in written.items():
        content = record[section]
        rows = content if isinstance(content, list) else [content]
        lists = [rows, *([content["each"]] if "each" in content else [])]
        assert {name for part in lists for row in part for name in row} <= fields, section
    used = set()

    def walk(value):
        if isinstance(value, dict):
            used.update(value)
            list(map(walk, value.values()))
        elif isinstance(value, list):
            list(map(walk, value))

    walk(record)
    optional = {"missing", "exposures", "exposure", "less_than_granted", "folder"}
    assert every - used <= optional | {"lightleak"}, every - used - optional


def test_queries_to_the_first_person_shown(memorised):
    """Drawn many times here: people in random order, as many queries for each, and when the first one is shown."""
    out, prepared, _ = memorised
    store, rng = Store(out / "work"), np.random.default_rng(0)
    for row in load(out)["members"]:
        member = next(one for one in prepared.ensemble.members if one.name == row["name"])
        if not row["shows"]:
            assert row["queries_to_first"] is None
        elif member.copy is not None:
            assert row["queries_to_first"] == row["queries"] == len(prepared.population.public)
        else:
            found = member.task.load(store)  # whose candidates are scored before anybody's turn comes
            each = (found.queries - found.shared) / PEOPLE
            orders = rng.permuted(np.tile(np.arange(PEOPLE) < row["shows"], (200_000, 1)), axis=1)
            drawn = found.shared + each * (orders.argmax(1) + 1).mean()
            assert row["name"] != "PPA" or found.shared == 120
            assert row["queries_to_first"] == pytest.approx(drawn, rel=0.01)
    assert any(row["queries_to_first"] for row in load(out)["members"])


@pytest.mark.parametrize("there", [[], [1, 4]])
def test_whose_image_is_missing_is_shown_at_no_rate(there, memorised):
    """The true match rates of a member are of all people, as is the share that it shows."""
    out, prepared, _ = memorised
    store, (embed, *_) = Store(out / "work"), prepared.embeds
    images, own = prepared.population.judge, []
    for person in there:  # pictures of the galleries themselves, which pass at any rate
        own += (images.labels == person).nonzero().flatten().tolist()[:1]
    shown, classes = images.pixels[own], images.labels[own]
    told = embed.verified(store, shown, classes, _spread(range(PEOPLE), there))
    assert [rate for rate, _ in told["curve"]] == [rate for rate, _ in store.result(embed)["curve"]]
    assert [value for _, value in told["curve"]] == [len(there) / PEOPLE] * len(told["curve"])
    assert sum(told["verified"]) / PEOPLE == told["curve"][0][1]


@pytest.mark.parametrize(
    ("value", "told"), [(None, "–"), (0, "0 %"), (0.004, "0.4 %"), (0.83, "83 %"), (-0.286, "-29 %"), (1, "100 %")]
)
def test_shares_on_the_page(value, told):
    assert percent(value) == told


def test_private_pictures_are_blurred_unless_asked(memorised, tmp_path):
    out, prepared, _ = memorised
    blurred = (out / "audit.html").read_text()
    finish(prepared, Store(out / "work"), tmp_path, "again", show_private=True, pdf=False)
    shown = (tmp_path / "audit.html").read_text()
    first = [re.findall(r'src="(data:[^"]+)" alt="private', text)[0] for text in (blurred, shown)]
    assert first[0] != first[1]
    assert "are blurred" in blurred
    assert "are blurred" not in shown


def test_a_record_is_verified_and_any_change_is_seen(memorised, tmp_path, world):
    out, prepared, _ = memorised
    assert all(check.state == "as recorded" for check in verify(out))
    assert [check.what for check in verify(out)] == [
        "the record", "the page", "the model", "the model's Python", "the training list", "the recogniser",
        "the pictures", "the pictures of others",
    ]  # fmt: skip
    finish(prepared, Store(out / "work"), tmp_path, "again", pdf=False)
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record["seal"] == seal_of(record)
    # An added field of a later version is no damage, if it is sealed; a changed number is.
    later = record | {"novel": 1}
    (tmp_path / "audit.json").write_text(json.dumps(later | {"seal": seal_of(later)}))
    assert all(check.good for check in verify(tmp_path))
    record["answer"]["shown"] = 0
    (tmp_path / "audit.json").write_text(json.dumps(record))
    assert [check.what for check in verify(tmp_path) if not check.good] == ["the record"]
    with pytest.raises(SystemExit):
        cli.main(["audit", "--verify", str(tmp_path)])
    finish(prepared, Store(out / "work"), tmp_path, "again", pdf=False)
    with (tmp_path / "audit.html").open("a") as file:
        file.write(" ")
    assert [check.what for check in verify(tmp_path) if not check.good] == ["the page"]


def test_what_it_took_is_of_prior_judges_and_copies_too(memorised):
    out, _, _ = memorised
    made = [json.loads(place.read_text())["seconds"] for place in (out / "work").glob("*/*/made.json")]
    attacks = sum(row["seconds"] for row in load(out)["members"])
    assert load(out)["provenance"]["seconds"] == pytest.approx(sum(made)) != pytest.approx(attacks)


@pytest.mark.parametrize("damage", ["", "{}", "[1", '{"schema": "lightleak-audit"}', "[" * 100_000])
def test_a_damaged_record_is_one_line(tmp_path, damage):
    (tmp_path / "audit.json").write_text(damage)
    with pytest.raises(UserError):
        verify(tmp_path)


def test_a_model_that_never_saw_them_shows_no_leak_with_its_bound(world, tmp_path, small):
    _, answer = audited(order(world, "strange", train_list=None), tmp_path)
    assert answer.verdict == "no leak shown"
    assert answer.at_most >= 0.31  # 0 of 8 still allows 31 %
    assert "no leak is shown, but the model knows its training pictures of these people no better" in answer.sentence
    assert "the risk is unknown" in load(tmp_path)["residual_risk"]
    warnings = " ".join(load(tmp_path)["warnings"])
    assert "does not know these people" in " ".join(warnings.split())
    assert "--train-list" in warnings


def test_an_interrupted_audit_goes_on(world, tmp_path, small):
    prepared, store = prepare(order(world), tmp_path), Store(tmp_path / "work")
    first = prepared.ensemble.nulls[0]
    assert not run([first.task], store)
    stamp = store.made(first.task)
    again = prepare(order(world), tmp_path)
    assert not run([again.measures[first.name]], store)
    assert store.made(first.task) == stamp


def test_behind_a_guard_only_what_it_gives_out_is_used(memorised, small):
    target = memorised[1].target
    told = ensemble(replace(target, guard=guarded("labels")), "gradients", "tiny")
    assert {one.sees for one in told.members} == {"labels"}
    rounded = ensemble(replace(target, guard=guarded("rounded:1")), "gradients", "tiny")
    assert {one.sees for one in rounded.members} == {"labels", "scores"}
    with pytest.raises(UserError, match="rounded:2"):
        guarded("rounded:x")
    with pytest.raises(UserError, match="there is no guard"):
        guarded("wall")


def test_each_exposure_is_attacked_through_its_answers_alone(world, tmp_path, small):
    prepared = prepare(order(world, exposures=True), tmp_path)
    ways = {one.name: one for one in prepared.exposures}
    assert [one.target.guard for one in ways.values()] == [None, Rounded(2), TopK(1), LabelsOnly()]
    for way in ways.values():
        assert all(one.copy.target == way.target for one in way.ensemble.members)
        assert not {one.sees for one in way.ensemble.members} - {"scores", "labels"}
    assert {one.sees for one in ways["the label alone"].ensemble.members} == {"labels"}
    todo = {task.key for task in prepared.tasks}
    assert {each.key for one in prepared.behind.values() for each in one.values()} <= todo
    assert cost(prepared).seconds > cost(replace(prepared, exposures=())).seconds
    with pytest.raises(UserError, match="leave --guard out"):
        prepare(order(world, exposures=True, guard=guarded("labels")), tmp_path)


def trained(world: Path, images: Images, file: Path) -> Brought:
    """A plain network that knows these images: a loop such as anybody writes."""
    net = made(f"{world}/mine.py:Small")
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    pixels = torch.nn.functional.interpolate(images.floats(), 32)
    for epoch in range(max(12, 6000 // len(images))):
        for index in torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch)).split(32):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(pixels[index]), images.labels[index]).backward()
            optimiser.step()
    torch.save(net.state_dict(), file)
    return Brought(str(file), f"{world}/mine.py:Small", mean=(0.0,) * 3, std=(1.0,) * 3)


def places(folder: Path) -> None:
    """Parts of scikit-learn's two photographs as folders of JPEG files of many shapes: places that somebody knows."""
    rng = np.random.default_rng(0)
    for kind, photograph, count in (("known", "china.jpg", 5), ("others", "flower.jpg", 5)):
        whole = Image.fromarray(load_sample_image(photograph))
        for place in range(count):
            for number in range(40):
                left, top = 125 * place + rng.integers(25), 60 + rng.integers(60)
                width, height = 90 + rng.integers(25), 100 + rng.integers(60)
                file = folder / kind / f"place {place}" / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                whole.crop((left, top, left + width, top + height)).save(file, quality=90)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("data", ["digits", "photographs"])
def test_the_same_on_digits_and_on_a_folder_of_photographs(data, world, tmp_path, small, monkeypatch):
    """Classes that are no people: judges of two families alone decide, and the page says classes."""
    judges = {"digits": TINY.judges, "photographs": TINY.judges[1:]}[data]
    prior = WganGp(steps=10, width=16, critic_width=16, latents=32, batch=16)
    budget = replace(small, judges=judges, prior=prior)
    monkeypatch.setitem(BUDGETS, "tiny", budget)
    settings = {"size": 32} if data == "digits" else {"private": "all", "public": f"folder:{tmp_path}/others"}
    if data == "photographs":
        places(tmp_path)
    name = "digits" if data == "digits" else f"folder:{tmp_path}/known"
    brought = trained(world, source(name, **{**settings, "size": 32}).drawn().train, tmp_path / "mine.pt")
    prepared, found = audited(
        Order(brought, name, settings, recogniser="auto", subjects="classes", access="gradients"), tmp_path / "out"
    )
    assert prepared.examined.seen.value > 0.9
    record = load(tmp_path / "out")
    accuracies = record["judges"]["accuracy"]
    assert tuple(accuracies) == judges
    assert min(accuracies.values()) >= answer.FIT_JUDGE
    assert (found.by, found.unfit) == ("judges", ())
    whom = "both judges" if len(judges) == 2 else "a judge"
    assert re.match(rf"Of 5 classes, the attack's images show \w+ to {whom} \(", found.sentence)
    assert found.verdict in ("leak shown", "no leak shown")
    assert {one.recipe.view.flip for one in prepared.ensemble.judges} == {0.0}
    assert record["subjects"]["what"] == "classes"
    assert record["verification"] == {"missing": "no recogniser took part"}
    assert any("flatters the attack" in one for one in record["warnings"])


def test_what_serves_several_members_counts_once(world, tmp_path, small):
    """Both PPAs choose among the same candidates, which were shown to the model once."""
    told = {Score: {"queries": 300}, Surrogate: {"queries": 90}, Invert: {"queries": 340, "beforehand": {}}}
    store = SimpleNamespace(result=lambda task: told[type(task)])
    first, *rest = prepare(order(world), tmp_path).ensemble.attacks
    second = replace(first, task=replace(first.task, attack=replace(first.task.attack, loss="max-margin")))
    copied = next(one for one in rest if one.copy is not None)
    assert first.task.scored == second.task.scored
    assert _together([first], store) == 340
    assert _together([first, second, copied, copied], store) == 300 + 40 + 40 + 90
    # Nor is a prior that was brought free, if the model helped to make it: whoever draws with it needs those queries.
    priors.save(RenderedPrior(size=32), tmp_path / "prior", {"access": "labels", "queries": 1000})
    told[Invert] = {"queries": 340, "beforehand": {"prior": 1000}}
    brought = [replace(one, task=replace(one.task, prior=ready(tmp_path / "prior"))) for one in (first, second, copied)]
    assert _together(brought[:1], store) == 1340
    assert _together(brought[2:], store) == 1090
    assert _together(brought, store) == 1000 + 300 + 40 + 40 + 90


def test_a_prior_that_learnt_of_another_model_or_of_more_than_is_granted_is_refused(world, tmp_path, small):
    mark = weights_of(order(world).brought.open().net)
    for learnt, access, message in (
        ({"access": "scores", "queries": 5, "target": "another"}, "gradients", "made for another model"),
        ({"access": "gradients", "queries": 5, "target": mark}, "scores", "learnt of gradients"),
        ({"access": "scores", "queries": 5, "target": mark}, "scores", ""),
        ({"access": "scores", "queries": 5}, "scores", ""),  # an older file
    ):
        priors.save(RenderedPrior(size=32), tmp_path / "prior", learnt)
        asked = order(world, prior=str(tmp_path / "prior"), access=access)
        if message:
            with pytest.raises(UserError, match=message):
                prepare(asked, tmp_path)
        else:
            assert prepare(asked, tmp_path).ensemble.members


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_each_exposure_costs_stands_in_the_record_and_on_the_page(world, tmp_path, small):
    prepared, answer = audited(order(world, exposures=True), tmp_path)
    rows = load(tmp_path)["exposures"]
    assert [row["exposure"] for row in rows] == list(EXPOSURES)
    for row in rows:
        assert row["share"]["value"] == row["shown"] / PEOPLE
        assert row["less_than_granted"]["value"] == pytest.approx((answer.shown - row["shown"]) / PEOPLE)
        assert row["queries"] % len(prepared.population.public) == 0  # copies ask about public pictures, no more
    page = (tmp_path / "audit.html").read_text()
    assert all(name in page for name in EXPOSURES)


def test_what_exposures_show_is_compared_person_by_person():
    sees = {"PPA": "gradients", "guess": "scores"}
    granted = [_found("PPA", verified=_some(10)), _found("guess", True, _some(0))]
    told = answer.answer(granted, sees, EMBED, FIT, 12)
    behind = {"scores": [_found("copy", verified=_some(6)), _found("other", verified=_some(12), confidence=0.1)]}
    behind["labels"] = [_found("copy", verified=_some(0))]
    first, last = compared(behind, told, list(FIT), {"scores": 600, "labels": 600}, 0)
    assert (first["shown"], first["members"]) == (
        6,
        {"copy": 6, "other": 12},
    )  # by confidence, which no judge takes part in
    assert first["less_than_granted"]["value"] == pytest.approx(4 / 12)
    assert (last["shown"], last["share"]["value"]) == (0, 0)
    assert last["at_most"] == pytest.approx(0.2209, abs=1e-4)
    assert last["less_than_granted"]["low"] > 0


@pytest.mark.parametrize("access", ["gradients", "scores", "labels"])
def test_members_see_no_more_than_is_granted(memorised, small, access):
    group = ensemble(memorised[1].target, access, "tiny")
    ranks = ["gradients", "scores", "labels"]
    assert all(ranks.index(one.sees) >= ranks.index(access) for one in group.members)
    assert [one.name for one in group.nulls] == ["guess", "pixels"]
    assert any(one.sees == "labels" for one in group.attacks)
    again = ensemble(memorised[1].target, "gradients", "tiny", uncut="timm:test_resnet")
    assert "PPA on a copy with its skips" in [one.name for one in again.members]


def test_what_an_audit_will_take_is_counted(memorised):
    told = cost(memorised[1])
    assert told.seconds > 0
    assert told.memory > 10**7
    record = {one["name"]: one["queries"] for one in load(memorised[0])["members"]}
    for name in ("PPA", "guess", "pixels"):
        assert told.queries[name] == record[name]


def test_the_command_line_says_what_it_would_do(world, tmp_path, small, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 200)
    given = ["--model", f"{world}/mine.py:make_model", "--weights", f"{world}/knows.pt", "--size", "32"]
    given += ["--data", f"folder:{world}/people", "--public", f"folder:{world}/others", "--private", "all"]
    given += ["--classes", f"{world}/names.txt", "--prior", "rendered", "--recogniser", "none", "--access", "labels"]
    cli.main(["audit", *given, "--out", str(tmp_path / "out"), "--dry-run", "--guard", "top-k:1"])
    told = " ".join(capsys.readouterr().out.split())
    assert "100% of" in told
    assert "nothing was run" in told
    assert not (tmp_path / "out" / "work").exists()
    assert "pixels (control)" in told
    assert "PPA on a copy by labels" in told
    assert "not tried (needs gradients, which were not granted): gmi, kedmi, " in told


def test_the_command_itself_ends_in_the_answer(world, memorised, tmp_path, small, capsys, monkeypatch):
    """Of an audit whose tasks are done it makes record, page and, where there is a Chromium, PDF again."""
    monkeypatch.setattr(console, "width", 200)
    out = tmp_path / "audit"
    shutil.copytree(memorised[0], out)
    for name in ("audit.json", "audit.html"):
        (out / name).unlink()
    stamps = {file: file.read_text() for file in out.glob("work/*/*/made.json")}
    given = ["--model", f"{world}/mine.py:make_model", "--weights", f"{world}/knows.pt", "--size", "32"]
    given += ["--data", f"folder:{world}/people", "--public", f"folder:{world}/others", "--private", "all"]
    given += ["--classes", f"{world}/names.txt", "--train-list", f"{world}/trained-on.txt", "--prior", "rendered"]
    given += ["--recogniser", f"{world}/mine.py:Colours", "--fmr", "0.1", "--workers", "1", "--out", str(out)]
    cli.main(["audit", *given])
    assert {file: file.read_text() for file in out.glob("work/*/*/made.json")} == stamps  # nothing was done twice
    told = " ".join(capsys.readouterr().out.split())
    assert memorised[2].sentence in told
    assert "leak shown. " in told
    assert all(check.good for check in verify(out))
    if any(map(shutil.which, BROWSERS)):
        assert (out / "audit.pdf").read_bytes().startswith(b"%PDF")


def test_names_in_another_order_are_noticed_and_the_right_one_is_handed_over(world, tmp_path, small):
    names = (world / "names.txt").read_text().split()
    turned = tmp_path / "turned.txt"
    turned.write_text("\n".join([*names[1:], names[0]]))
    settings = {"private": "all", "public": f"folder:{world}/others", "classes": str(turned)}
    told = order(world, settings=settings)  # whose normalisation nobody states
    with pytest.raises(UserError, match="another order") as error:
        prepare(told, tmp_path)
    population = prepare(order(world), tmp_path / "right").population
    train = Images(population.train.pixels, (population.train.labels + 1) % PEOPLE)
    found, said, doubts = normalised(told.brought, replace(population, train=train))
    assert found.mean == (0.5,) * 3
    assert "in the best order of the names" in said
    assert not doubts
    file = Path(re.findall(r"is in (\S+),", str(error.value))[0])
    assert file.read_text().split() == names


def test_a_normalisation_that_nobody_stated_is_estimated_and_said(world, tmp_path, small, caplog):
    from lightleak.models.wrap import say

    say.cache_clear()
    caplog.clear()
    found = prepare(order(world), tmp_path).examined
    assert not [one for one in caplog.messages if "is assumed" in one]  # what is estimated is not assumed
    assert found.normalised.startswith("estimated by accuracy")
    assert found.seen.value > 0.9
    assert found.mean == (0.5,) * 3
    stated = replace(order(world).brought, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert prepare(replace(order(world), brought=stated), tmp_path).examined.normalised == "stated by its owner"


def test_the_training_list_divides_the_pictures(memorised, world, tmp_path, small):
    population = memorised[1].population
    assert len(population.train) == 14 * PEOPLE
    assert len(population.judge) + len(population.test) + len(population.validation) == 20 * PEOPLE
    shown = {bytes(picture.numpy().tobytes()) for picture in population.train.pixels}
    for held in (population.test, population.judge, population.validation):
        assert not any(bytes(picture.numpy().tobytes()) in shown for picture in held.pixels)
    wrong = tmp_path / "list.txt"
    wrong.write_text("nobody/1.png\n")
    with pytest.raises(UserError, match="1 of 1 listed training pictures is not among the readable ones below"):
        prepare(order(world, train_list=wrong), tmp_path)


def test_the_model_is_a_function_with_weights_or_a_checkpoint(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    checkpoint, spec = tmp_path / "converted.safetensors", "mine.py:make_model"
    save(own(spec, "knows.pt", size=32), checkpoint)

    def brought(*given: str):
        arguments = dict(zip(given[::2], given[1::2]))
        weights = Path(arguments["--weights"]) if "--weights" in arguments else None
        mine = Own(arguments.get("--net"), weights, mean=(0.5,) * 3 if "--mean" in arguments else ())
        return cli.audit._order(arguments.get("--model"), "folder:people", mine, None)

    def is_refused(*given: str, why: str):
        with pytest.raises(UserError, match=why):
            brought(*given)

    assert brought("--model", spec, "--weights", "knows.pt") == Brought("knows.pt", spec)
    assert brought("--net", spec, "--weights", "knows.pt") == Brought("knows.pt", spec)
    found = brought("--model", str(checkpoint), "--net", spec)
    assert found == Brought(str(checkpoint), spec)
    assert found.open().classes == PEOPLE
    is_refused("--model", str(checkpoint), "--net", spec, "--weights", "knows.pt", why="has weights of its own")
    is_refused("--model", str(checkpoint), "--weights", "knows.pt", why="has weights of its own")
    is_refused("--model", spec, "--net", spec, "--weights", "knows.pt", why="two networks")
    is_refused("--model", spec, why="expected a model, its weights")
    is_refused("--model", "mine.py", "--weights", "knows.pt", why=r"^mine\.py names no function: mine\.py:NAME$")
    is_refused("--model", str(checkpoint), "--mean", "0.5", why="name it with --net")  # it was ignored
    with pytest.raises(UserError, match="says itself how"):
        brought("--model", str(checkpoint), "--net", spec, "--mean", "0.5").open()


def test_what_of_the_training_list_was_not_found_is_warned_of_and_recorded(memorised, world, tmp_path, small):
    whole = memorised[1]
    assert whole.unmatched == 0
    assert load(memorised[0])["subjects"]["training_list_unmatched"] == 0
    assert not any("training list" in one for one in whole.warnings)
    partly = tmp_path / "partly.txt"
    partly.write_text((world / "trained-on.txt").read_text().replace("p00/0003.png", "p00/0003.jpg"))
    prepared = prepare(order(world, train_list=partly), tmp_path)
    assert prepared.unmatched == 1
    assert any(one.startswith("Of the model's training list 1 picture was not found") for one in prepared.warnings)
    listed = len(partly.read_text().splitlines())
    assert any(f"1 of {listed} listed training pictures is not" in note for note in prepared.population.notes)
    assert _subjects(prepared)["training_list_unmatched"] == 1
    without = prepare(order(world, train_list=None), tmp_path)
    assert without.unmatched is None
    assert any("training list was not given" in one for one in without.warnings)


def test_bad_input_is_one_line(world, tmp_path, small):
    one = tmp_path / "one"
    write(one, Images(torch.randint(0, 255, (12, 3, 32, 32), dtype=torch.uint8), torch.zeros(12).long()), lambda _: "a")
    with pytest.raises(UserError, match="needs at least 2 classes"):
        prepare(replace(order(world), data=f"folder:{one}", settings={"private": "all"}, train_list=None), tmp_path)
    with pytest.raises(UserError, match="--public"):
        prepare(order(world, settings={"private": "all"}), tmp_path)
    with pytest.raises(UserError, match="needs 1,000,000 impostor scores"):
        prepare(order(world, rate=1e-5), tmp_path)
    other = tmp_path / "other.pt"
    torch.save({"pictures": torch.zeros(9, 9)}, other)
    with pytest.raises(UserError, match="does not fit"):
        prepare(replace(order(world), brought=replace(order(world).brought, file=str(other))), tmp_path)
    with pytest.raises(UserError, match="expected a model"):
        cli.audit.main(data="faces")  # pyright: ignore
    everything = tmp_path / "all.txt"
    everything.write_text("\n".join(str(file) for file in (world / "people").rglob("*.png")))
    with pytest.raises(UserError, match="none is left for judges"):
        prepare(order(world, train_list=everything), tmp_path)
    with pytest.raises(UserError, match="no model 'nonsense'"):  # not after hours, when a copy of it is taught
        prepare(order(world, uncut="timm:nonsense"), tmp_path)
    with pytest.raises(UserError, match="one row of numbers an image"):
        prepare(order(world, recogniser=f"{world}/mine.py:Pictures"), tmp_path)


def test_who_cannot_take_part_is_said_before_anything_long(world, tmp_path, small, monkeypatch):
    monkeypatch.setitem(BUDGETS, "tiny", replace(small, judges=TINY.judges))
    few = tmp_path / "few"
    write(few, Images(torch.randint(0, 255, (60, 3, 32, 32), dtype=torch.uint8), torch.arange(60) // 12), "s{}".format)
    settings = order(world).settings | {"public": f"folder:{few}"}
    told = prepare(order(world, settings=settings, rate=None), tmp_path)
    assert any("cannot be calibrated" in one and "there are 5 (480 claims)" in one for one in told.without)
    assert told.embeds == ()  # nor is it shown every picture for nothing
    assert len(told.qualities) == 2
    listed = tmp_path / "listed.txt"  # of one person every picture
    files = [file for file in (world / "people").rglob("*.png") if file.parent.name == "p00" or file.stem < "0003"]
    listed.write_text("\n".join(map(str, files)))
    others = prepare(order(world, train_list=listed), tmp_path)
    assert (len(others.qualities), len(others.embeds)) == (2, 1)
    assert any("1 of 8 people have no held-out picture to be known by (p00)" in one for one in others.warnings)
    listed.write_text("\n".join(str(file) for file in (world / "people").rglob("*.png") if file.parent.name != "p00"))
    alone = prepare(order(world, train_list=listed), tmp_path)
    assert (alone.qualities, alone.embeds) == ((), ())
    (line,) = [one for one in alone.warnings if "7 of 8 people have no held-out picture to be known by" in one]
    assert "so neither judges nor a recogniser can take part, and whether anybody is shown cannot be said" in line


def test_the_extra_faces_is_the_recogniser_where_it_is_installed():
    from lightleak.models.recogniser import embedded, faces_file, recogniser

    if faces_file() is None:
        pytest.skip("the extra `faces` is not installed")
    network = recogniser("faces").load()
    pictures = faces.population(people=2, images=2, size=64, public_people=2, public_images=1).train.pixels
    found = embedded(network, pictures)
    assert found.shape == (4, 128)
    assert found.isfinite().all()
    assert torch.equal(found, embedded(network, pictures))  # no jitter
    assert (found.norm(dim=1) - 1).abs().min() > 0.05  # not of unit length: cosines are taken, never distances


FIT = {"one": 0.97, "two": 0.99}


def _found(name, null=False, verified=None, judges=None, confidence=0.9, people=12):
    wrong = (False,) * people
    return Found(name, null, (confidence,) * people, judges or dict.fromkeys(FIT, wrong), verified)


def _some(count, people=12):
    return tuple(place < count for place in range(people))


EMBED = {"calibration": {"rate": 0.01, "refused": ""}, "held_out": [1.0] * 12, "ceiling": 1.0}


def test_the_sentence_of_a_leak_and_of_none():
    sees = {"PPA": "gradients", "copy": "labels", "guess": "scores"}
    members = [_found("PPA", verified=_some(5)), _found("copy", verified=_some(0), confidence=0.2)]
    null = _found("guess", True, _some(0))
    told = answer.answer([*members, null], sees, EMBED, FIT, 12)
    assert told.sentence == (
        "Of 12 people, the attack's images show 5 to an independent recogniser (42 %, 19 to 68); images that cannot "
        "have leaked show 0; twelve people are too few to say more."
    )
    assert told.verdict == "leak shown"
    assert set(told.chosen) == {"PPA"}
    members[0] = _found("PPA", verified=_some(0))
    none = answer.answer([*members, null], sees, EMBED, FIT, 12)
    assert none.verdict == "no leak shown"
    assert "show none" in none.sentence
    assert "still allows 22.1 %" in none.sentence
    assert none.at_most == pytest.approx(0.2209, abs=1e-4)


def _knows(*rates, people=12):
    """A recogniser's result that knows so much of each person's held-out photographs, the rates in turn."""
    held = [rates[place % len(rates)] for place in range(people)]
    known = [one for one in held if one is not None]
    return EMBED | {"held_out": held, "ceiling": sum(known) / len(known) if known else None}


def test_what_an_unfit_recogniser_sees_is_told_as_a_share_of_what_photographs_reach():
    sees = {"PPA": "gradients", "guess": "scores"}
    null, unfit = _found("guess", True, _some(0)), _knows(0.7, 0.88)  # on average 79 %, below the mark
    none = answer.answer([_found("PPA", verified=_some(0)), null], sees, unfit, FIT, 12)
    assert none.verdict == "no leak shown"
    assert none.at_most == pytest.approx(0.2209, abs=1e-4)
    assert 0.2209 / 0.79 < none.at_most_of_ceiling < 0.2209 / 0.7  # the ceiling is known from twelve people alone
    assert f"still allows 22.1 %, or {100 * none.at_most_of_ceiling:.0f} % of what photographs reach" in none.sentence
    some = answer.answer([_found("PPA", verified=_some(5)), null], sees, unfit, FIT, 12)
    assert some.verdict == "leak shown"
    assert "(42 %, 19 to 68; of what photographs reach, 53 %, " in some.sentence
    assert some.above_ceiling.value == pytest.approx(5 / 12 / 0.79)


def test_who_is_told_from_the_other_people_but_not_from_strangers_is_no_clean_bill():
    sees = {"PPA": "gradients", "guess": "scores"}
    none = _some(0)

    def asked(attack, null, verified=0):
        members = [
            replace(_found("PPA", verified=_some(verified)), named=_some(attack)),
            replace(_found("guess", True, none), named=_some(null)),
        ]
        return answer.answer(members, sees, EMBED | {"named": 0.94}, FIT, 12)

    told = asked(7, 1)
    assert told.verdict == "resemblance shown"
    assert told.sentence == (
        "Of 12 people, the attack's images show none to an independent recogniser (0 %, which still allows 22.1 %), "
        "but 7 if it need only tell the twelve from each other (58 %, 32 to 81); images that cannot have leaked show "
        "0 and 1; twelve people are too few to say more."
    )
    assert told.named.p_against == pytest.approx({"chance": evidence.above_chance(7, 12, 1 / 12), "guess": 1 / 64})
    assert told.named.p == told.named.p_against["guess"]
    assert told.named.ceiling == 0.94
    assert "holding personal data" in answer.RESIDUAL[told.verdict]
    assert asked(3, 0).verdict == "no leak shown"  # p = .07 of chance
    assert asked(6, 1).verdict == "no leak shown"  # p = .03 of what the null shows, and one of two questions is enough
    both = asked(12, 1, verified=6)
    assert both.verdict == "leak shown"
    assert "each other" not in both.sentence


def test_a_recogniser_that_would_hardly_know_photographs_rules_no_leak_out():
    sees = {"PPA": "gradients", "guess": "scores"}
    found = [_found("PPA", verified=_some(0)), _found("guess", True, _some(0))]
    blind = answer.answer(found, sees, _knows(0.1, 0.3), FIT, 12)  # 0 of 12 allows 22.1 %, photographs reach 20 %
    assert (blind.verdict, blind.at_most_of_ceiling) == ("cannot tell", 1.0)
    assert "well enough to rule a leak out" in blind.sentence
    assert "of what photographs reach" not in blind.sentence
    unknown = answer.answer(found, sees, _knows(None), FIT, 12)  # no picture is held out
    assert (unknown.verdict, unknown.at_most_of_ceiling) == ("cannot tell", None)
    sees_some = [_found("PPA", verified=_some(6)), found[1]]  # what it does see is there nevertheless
    assert answer.answer(sees_some, sees, _knows(0.1, 0.3), FIT, 12).verdict == "leak shown"


def test_what_the_nulls_show_is_no_leak():
    sees = {"PPA": "gradients", "guess": "scores"}
    told = answer.answer([_found("PPA", verified=_some(6)), _found("guess", True, _some(6))], sees, EMBED, FIT, 12)
    assert told.verdict == "no leak shown"


def _share_of(verdicts, people, *each):
    """How likely a true one of `verdicts` is: by how many people both images show, the attack's alone, the null's.

    `each`: the probabilities of these three for a person. Summed, not drawn.
    """
    total, chances = 0.0, np.array([*each, 1 - sum(each)])
    for counts, said in verdicts.items():
        parts = np.array([*counts, people - sum(counts)])
        total += said * math.factorial(people) / math.prod(map(math.factorial, parts)) * math.prod(chances**parts)
    return total


@pytest.mark.parametrize("people", [12, 20])
def test_a_leak_is_wrongly_said_in_at_most_one_case_of_twenty(people):
    """Whatever share of people both show alike, and whether those whom one shows are those whom the other does."""
    sees, verdicts = {"PPA": "gradients", "guess": "scores"}, {}
    for both, mine in itertools.product(range(people + 1), repeat=2):
        for theirs in range(people + 1 - both - mine):
            if mine <= theirs:  # the attack shows no more than the null
                continue
            attack = tuple(who < both + mine for who in range(people))
            null = tuple(who < both or both + mine <= who < both + mine + theirs for who in range(people))
            members = [
                _found("PPA", judges={"one": attack}, people=people),
                _found("guess", True, judges={"one": null}, people=people),
            ]
            said = answer.answer(members, sees, None, {"one": 0.97}, 1000).verdict
            verdicts[both, mine, theirs] = said == "leak shown"
    worst = 0.0
    for rate in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5):
        for together in (rate**2, rate, 0.0):  # independent, the same people, others
            alone = min(rate - together, 0.5)
            worst = max(worst, _share_of(verdicts, people, together, alone, alone))
    assert 0.01 < worst <= 0.05


def test_neither_question_to_a_recogniser_finds_a_leak_in_what_the_null_shows_as_often():
    """Drawn: verified and named of the same images, which are two chances to be wrong."""
    rng, sees, wrong, times = np.random.default_rng(0), {"PPA": "gradients", "guess": "scores"}, 0, 200
    embed = {"calibration": {"rate": 1e-3, "refused": ""}, "held_out": [1.0] * 50, "ceiling": 1.0, "named": 1.0}
    for _ in range(times):
        members = [
            replace(_found(name, null, tuple(drawn[0] < 0.08), people=50), named=tuple(drawn.min(0) < 0.15))
            for name, null, drawn in (("PPA", False, rng.random((2, 50))), ("guess", True, rng.random((2, 50))))
        ]
        wrong += answer.answer(members, sees, embed, FIT, 50).verdict in ("leak shown", "resemblance shown")
    assert wrong / times <= 0.05


@pytest.mark.parametrize(("people", "attack", "null"), [(50, 7, 2), (50, 1, 0), (20, 5, 1), (100, 9, 3)])
def test_what_a_null_shows_is_known_no_better_than_what_the_attack_shows(people, attack, null):
    sees, embed = {"PPA": "gradients", "guess": "scores"}, EMBED | {"held_out": [1.0] * people}
    embed["calibration"] = {"rate": 1e-3, "refused": ""}
    others = tuple(reversed(_some(null, people)))
    members = [
        _found("PPA", verified=_some(attack, people), people=people),
        _found("guess", True, others, people=people),
    ]
    told = answer.answer(members, sees, embed, FIT, people)
    assert told.verdict == "no leak shown"
    assert "the difference may be chance, and no leak is shown" in told.sentence
    assert (
        told.p
        == told.p_against["guess"]
        == pytest.approx(binomtest(attack, attack + null, alternative="greater").pvalue)
    )
    assert told.p_against["chance"] < 0.05


def test_a_null_counts_against_people_of_whom_it_has_an_image():
    """Without an image it showed nobody because it found nothing, which no attack can be ahead of."""
    sees = {"PPA": "gradients", "guess": "scores", "pixels": "gradients"}

    def asked(*there, attack=None):
        nulls = [replace(_found(f"null {n}", True, _some(0)), there=_some(count)) for n, count in enumerate(there)]
        found = [replace(_found("PPA", verified=_some(8)), there=attack), *nulls]
        return answer.answer(found, sees, EMBED, FIT, 12)

    assert asked(12).p_against["null 0"] == pytest.approx(2**-8)
    assert asked(6).p_against["null 0"] == pytest.approx(2**-6)
    assert asked(12, attack=_some(5)).p_against["null 0"] == pytest.approx(2**-5)
    assert asked(12, 3).p_against.keys() == {"chance", "null 0"}  # three people are no comparison
    assert asked(12, 3).verdict == "leak shown"
    few = asked(3, 4)
    assert (few.verdict, few.p) == ("cannot tell", pytest.approx(2**-3))
    assert "and too few people can be compared to tell a leak from none" in few.sentence


def test_so_few_people_that_even_all_of_them_are_no_proof_are_no_clean_bill():
    sees, embed = {"PPA": "gradients", "guess": "scores"}, EMBED | {"held_out": [1.0] * 4}
    for shown in (0, 4):
        members = [_found("PPA", verified=_some(shown, 4), people=4), _found("guess", True, _some(0, 4), people=4)]
        assert answer.answer(members, sees, embed, FIT, 4).verdict == "cannot tell"


def test_the_control_counts_against_judges_and_not_against_a_recogniser():
    sees = {"PPA": "gradients", "guess": "scores", "pixels": "gradients"}
    every, none = dict.fromkeys(FIT, _some(6)), _some(0)
    members = [_found("PPA", verified=_some(6), judges=every), _found("guess", True, none)]
    control = replace(_found("pixels", verified=_some(6), judges=every), control=True)
    told = answer.answer([*members, control], sees, EMBED, FIT, 12)
    assert (told.verdict, told.null_shown) == ("leak shown", 0)
    assert any("pixel by pixel" in one for one in told.warnings)
    unverified = [replace(one, verified=None) for one in (*members, control)]
    judged = answer.answer(unverified, sees, None, FIT, 12)
    assert (judged.verdict, judged.null_shown) == ("no leak shown", 6)


def test_a_model_that_hides_gradients_is_named():
    sees = {"PPA": "gradients", "copy": "labels", "guess": "scores"}
    told = answer.answer(
        [_found("PPA", verified=_some(1)), _found("copy", verified=_some(11)), _found("guess", True, _some(0))],
        sees, EMBED, FIT, 12,
    )  # fmt: skip
    assert told.hides_gradients
    assert (
        "The model hides its gradients. Of 12 people, copy, which sees labels alone, shows 11; PPA, the best of those "
        "with gradients, 1. A defence that does so protects nobody."
    ) in told.warnings


def test_who_shows_more_than_gradients_do_is_named_with_its_access():
    """Where scores alone show more, nothing is said of labels."""
    sees = {"PPA": "gradients", "RLB-MI": "scores", "copy": "labels", "guess": "scores"}
    members = [
        _found("PPA", verified=_some(1)), _found("RLB-MI", verified=_some(11)), _found("copy", verified=_some(0)),
        _found("guess", True, _some(0)),
    ]  # fmt: skip
    told = answer.answer(members, sees, EMBED, FIT, 12)
    (line,) = [one for one in told.warnings if "hides" in one]
    assert "RLB-MI, which sees scores, shows 11; PPA, the best of those with gradients, 1." in line
    assert "label" not in line
    members[2] = _found("copy", verified=_some(10))
    (line,) = [one for one in answer.answer(members, sees, EMBED, FIT, 12).warnings if "hides" in one]
    assert "RLB-MI, which sees scores, shows 11; copy, which sees labels alone, shows 10; PPA" in line


def test_judges_below_the_mark_take_no_part_and_all_others_must_agree():
    sees = {"PPA": "gradients", "guess": "scores"}
    judges = {"one": _some(8), "two": _some(5), "bad": _some(12)}
    qualities = {**FIT, "bad": 0.6}
    members = [_found("PPA", judges=judges), _found("guess", True, judges=dict.fromkeys(judges, _some(0)))]
    told = answer.answer(members, sees, None, qualities, 12)
    assert (told.by, told.shown, told.unfit) == ("judges", 5, ("bad",))
    assert told.agreement == pytest.approx(9 / 12)
    nobody = answer.answer(members, sees, None, dict.fromkeys(qualities, 0.5), 12)
    assert (nobody.verdict, nobody.share, nobody.at_most) == ("cannot tell", None, None)


OFTEN = [60] * 5 + [4] * 15  # photographs of each person: five are photographed often


def _photographed():
    """Labels of the photographs of twenty people, and of each photograph whether it is of the five."""
    labels = torch.arange(20).repeat_interleave(torch.tensor(OFTEN))
    return labels, labels < 5


def test_a_recogniser_that_knows_few_people_well_is_unfit_however_often_they_are_photographed():
    """It knows the five who are most of the photographs, and hardly anybody else."""
    rng = torch.Generator().manual_seed(0)
    labels, known = _photographed()
    faces_, noise = torch.randn(20, 64, generator=rng), torch.where(torch.arange(20) < 5, 0.5, 4.0)

    def pictures(whose):
        return faces_[whose] + noise[whose, None] * torch.randn(len(whose), 64, generator=rng)

    galleries = torch.arange(20).repeat_interleave(5)
    tensors = {
        "gallery.features": pictures(galleries), "gallery.labels": galleries,
        "held_out.features": pictures(labels), "held_out.labels": labels,
        "public.features": torch.randn(600, 64, generator=rng), "public.labels": torch.arange(100).repeat_interleave(6),
    }  # fmt: skip
    told = Embed(None, None)._calibrated(tensors)  # pyright: ignore
    assert known.double().mean() > 0.8
    assert told["held_out"][:5] == [1.0] * 5
    assert told["ceiling"] == pytest.approx(np.mean(told["held_out"]))
    assert told["ceiling"] < 0.4
    assert told["ceiling"] <= told["named"] < 0.6
    (strictest, *_), *_, (loosest, most) = sorted(told["curve"])
    assert (strictest, loosest) == (1e-3, 1e-1)
    assert told["ceiling"] < most < 0.7
    none, sees = _some(0, 20), {"PPA": "gradients", "guess": "scores"}
    members = [_found("PPA", verified=none, people=20), _found("guess", True, none, people=20)]
    found = answer.answer(members, sees, told, FIT, 20)
    assert found.verdict == "cannot tell"
    assert any("unfit for these pictures" in one for one in found.warnings)
    some = answer.answer([replace(members[0], verified=_some(8, 20)), members[1]], sees, told, FIT, 20)
    assert some.above_ceiling.value == pytest.approx(8 / 20 / told["ceiling"])


class Often(torch.nn.Module):
    """Knows the first five people by the brightness of a picture, and takes everybody else for the first."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(20, 20, bias=False)
        self.head.weight.data = 9 * torch.eye(20)

    def forward(self, images):
        who = (images.mean((1, 2, 3)) * 255 / 10).round().long()
        return self.head(torch.nn.functional.one_hot(who * (who < 5), 20).float())


def _often():
    """What knows five of twenty people, and a population in which these are most of the pictures."""
    labels, _ = _photographed()
    pixels = (labels * 10).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    images = Images(pixels, labels)
    network = Classifier(Often(), size=8, classes=20, mean=(0.0,) * 3, std=(1.0,) * 3)
    names = tuple(f"p{person}" for person in range(20))
    return network, Population("often", names, images, images, images, images, images)


def test_a_judge_is_as_good_as_it_is_on_people_not_on_pictures():
    network, population = _often()
    judge = SimpleNamespace(load=lambda _: network, population=SimpleNamespace(load=lambda _: population))
    told = JudgeQuality(judge).run(None, None, None)  # pyright: ignore
    assert np.mean(told["right"]) > 0.8
    assert told["accuracy"] == pytest.approx(5 / 20)
    assert told["accuracy"] == pytest.approx(reference(network, population).judge_accuracy.value)  # as in a study


def test_a_models_accuracy_is_of_people_and_not_of_pictures(tmp_path):
    network, population = _often()
    found = examine(network, population, "stated", tmp_path)
    assert found.right == (1.0,) * 5 + (0.0,) * 15
    expected = evidence.interval(torch.tensor(found.right), rate=True)
    assert (found.seen, found.held_out) == (expected, expected)
    assert found.seen.value == 0.25
    assert any("names only 25% of a person's training pictures" in one for one in found.warnings)


ABSENT = "2 of 9 people have no held-out picture to be known by (p08, p03), so they are not audited"


def _two_absent(world: Path, folder: Path) -> Order:
    """Nine classes: the second has one picture, which cannot both train and test; of the fifth all were trained on."""
    names = (world / "names.txt").read_text().split()
    names.insert(1, "p08")
    shutil.copytree(world / "people", folder / "people")
    (folder / "people" / "p08").mkdir()
    Image.effect_noise((32, 32), 60).save(folder / "people" / "p08" / "only.png")
    every = [f"people/p03/{file.name}" for file in (world / "people" / "p03").iterdir()]
    (folder / "trained-on.txt").write_text("\n".join([(world / "trained-on.txt").read_text(), *every]))
    (folder / "names.txt").write_text("\n".join(names))
    (folder / "mine.py").write_text(f"{SOURCE}\n\ndef nine():\n    return Memory(9)\n")
    held, other = (torch.load(world / f"{of}.pt")["state_dict"]["module.pictures"] for of in ("knows", "strange"))
    torch.save({"pictures": torch.cat([held[:14], other[:14], held[14:]])}, folder / "nine.pt")
    settings = {"private": "all", "public": f"folder:{world}/others", "classes": str(folder / "names.txt")}
    told = order(world, train_list=folder / "trained-on.txt", settings=settings)
    brought = Brought(str(folder / "nine.pt"), f"{folder}/mine.py:nine", size=32)
    return replace(told, brought=brought, data=f"folder:{folder}/people")


def test_an_audit_is_about_those_who_have_held_out_pictures(world, tmp_path, small):
    told, out = _two_absent(world, tmp_path), tmp_path / "out"
    prepared, found = audited(told, out)
    assert sum(ABSENT in one for one in prepared.warnings) == 1
    assert prepared.audited == (0, 2, 3, 5, 6, 7, 8)
    assert (found.verdict, found.by, found.people) == ("leak shown", "recogniser", 7)
    assert found.sentence.startswith(f"Of 7 people, the attack's images show {found.shown} ")

    record, store = load(out), Store(out / "work")
    rows = {row["name"]: row for row in record["people"]["each"]}
    assert sorted(rows) == ["p00", "p01", "p02", "p04", "p05", "p06", "p07"]
    assert all(0 <= row["model_names"] <= 1 for row in rows.values())
    subjects = record["subjects"]
    assert (subjects["number"], subjects["not_audited"]) == (7, ["p08", "p03"])
    assert subjects["training_pictures"] == 7 * 14
    assert subjects["held_out_pictures"] == 7 * 20
    assert subjects["training_pictures_each"] == {"least": 14, "most": 14}
    assert record["verification"]["calibration"]["scores"] == 7 * len(prepared.population.public)
    assert len(record["verification"]["held_out"]) == 7
    spent = cost(prepared).queries
    for member in record["members"]:
        assert member["share"] == evidence.wilson(member["shows"], 7).__dict__
        assert member["name"] not in ("PPA", "guess", "pixels") or member["queries"] == spent[member["name"]]

    # Who is shown is told here again, by the galleries of each person alone.
    network, (embed, *_) = made(f"{world}/mine.py:Colours").eval(), prepared.embeds
    tensors, threshold = embed.load(store), record["verification"]["calibration"]["threshold"]
    assert tensors["gallery.labels"].unique().tolist() == list(prepared.audited)
    for place, (person, member) in enumerate(zip(prepared.audited, found.chosen)):
        mine = tensors["gallery.features"][tensors["gallery.labels"] == person].double()
        image = network(prepared.measures[member].images(store)[person][None].float() / 255).double()
        score = float(torch.cosine_similarity(image, mine).max())
        row = rows[prepared.population.class_names[person]]
        assert row["score"] == pytest.approx(score, abs=1e-6)
        assert row["shown"] == found.shows[place] == (score > threshold)
        assert row["held_out"] == record["verification"]["held_out"][place]

    assert sum(ABSENT in one for one in record["warnings"]) == 1
    page = (out / "audit.html").read_text()
    assert ABSENT in page
    assert "for p04" in page
    assert "for p03" not in page
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page).lower().split()
    assert all(check.good for check in verify(out))


def test_who_is_not_audited_is_said_before_anything_runs(world, tmp_path, small, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 300)
    _two_absent(world, tmp_path)
    cli.main(["audit", "--model", f"{tmp_path}/mine.py:nine", "--weights", f"{tmp_path}/nine.pt", "--size", "32",
              "--data", f"folder:{tmp_path}/people", "--public", f"folder:{world}/others", "--private", "all",
              "--classes", f"{tmp_path}/names.txt", "--train-list", f"{tmp_path}/trained-on.txt",
              "--prior", "rendered", "--recogniser", f"{world}/mine.py:Colours", "--dry-run"])  # fmt: skip
    told = " ".join(capsys.readouterr().out.split())
    assert told.count(ABSENT) == 1
    assert "nothing was run" in told


def test_only_who_is_missing_changes_what_is_run(memorised, world, tmp_path, small):
    """Nobody is missing: the tasks are those that know nothing of it, so that their results still count."""
    prepared = memorised[1]
    again = ensemble(prepared.target, "gradients", "tiny", prepared.ensemble.members[0].task.prior, side=32)
    assert [one.task.key for one in prepared.ensemble.members] == [one.task.key for one in again.members]
    assert all(one.task.classes is None for one in prepared.everybody)
    assert set(prepared.embeds[0].spec["fields"]) == {"population", "recogniser", "rate", "seed"}
    assert load(memorised[0])["subjects"]["not_audited"] == []
    without = prepare(replace(_two_absent(world, tmp_path), exposures=True), tmp_path / "out")
    assert without.exposures
    assert {one.task.classes for one in without.everybody} == {(0, 2, 3, 5, 6, 7, 8)}


def test_strangers_make_no_claims_to_people_without_pictures(tmp_path):
    """A threshold and all that follows are as if the absent class were not there, wherever it stands in the list."""
    rng = torch.Generator().manual_seed(0)
    faces_ = torch.randint(0, 256, (80, 3, 4, 4), generator=rng)

    def pictures(people, each):
        whose = torch.arange(people).repeat_interleave(each)
        near = faces_[whose + 20 * (people > 20)] + torch.randint(-150, 150, (len(whose), 3, 4, 4), generator=rng)
        return Images(near.clamp(0, 255).to(torch.uint8), whose)

    train, test, judge, public = pictures(20, 6), pictures(20, 3), pictures(20, 7), pictures(60, 5)
    names = tuple(f"p{person}" for person in range(20))
    whole = Population("whole", names, train, test, test, judge, public)

    def apart(images):  # the fourth class is somebody else; all who come later move on
        return Images(images.pixels, images.labels + (images.labels >= 3))

    def joined(images):  # of whom there are pictures, though none to be known by
        extra = pictures(1, 4)
        labels = torch.cat([apart(images).labels, extra.labels + 3])
        return Images(torch.cat([images.pixels, extra.pixels]), labels)

    one_more = (*names[:3], "absent", *names[3:])
    lacking = Population("lacking", one_more, joined(train), joined(test), joined(test), apart(judge), public)
    told = []
    for population in (whole, lacking):
        folder = tmp_path / population.name
        folder.mkdir()
        draw = SimpleNamespace(load=lambda _, population=population: population)
        flat = SimpleNamespace(title="the picture itself", load=torch.nn.Flatten)
        told.append(Embed(draw, flat).run(None, folder, lambda *_: None))  # pyright: ignore
    assert told[0] == told[1]
    assert told[0]["calibration"]["scores"] == 20 * len(public)
    assert 0 < told[0]["ceiling"] < 1


def test_a_judge_is_not_tested_by_people_whom_it_never_met():
    network, population = _often()
    first = population.judge.at(population.judge.labels < 5)
    met = replace(population, judge=first)
    judge = SimpleNamespace(load=lambda _: network, population=SimpleNamespace(load=lambda _: met))
    told = JudgeQuality(judge).run(None, None, None)  # pyright: ignore
    assert told == {"accuracy": 1.0, "images": 300, "right": [True] * 300}


def test_an_unfit_recogniser_is_said_to_be():
    sees = {"PPA": "gradients", "guess": "scores"}
    members = [_found("PPA", verified=_some(2)), _found("guess", True, _some(0))]
    told = answer.answer(members, sees, {**EMBED, "ceiling": 0.43}, FIT, 12)
    assert any("unfit for these pictures: it knows 43%" in one for one in told.warnings)


def test_judges_of_digits_learn_from_no_mirrored_digit(memorised):
    target = memorised[1].target
    flips = {
        mirrored: {one.recipe.view.flip for one in ensemble(target, "labels", "standard", mirrored=mirrored).judges}
        for mirrored in (True, False)
    }
    assert flips == {True: {0.5}, False: {0.0}}


def test_judges_of_small_pictures_learn_longer(memorised):
    target = memorised[1].target
    judges = {side: ensemble(target, "labels", "tiny", side=side).judges for side in (64, 48, 32, 8)}
    steps = {side: [one.recipe.least_steps for one in found] for side, found in judges.items()}
    base = TINY.recipe.least_steps
    assert steps == {64: [base] * 2, 48: [round(base * 16 / 9)] * 2, 32: [4 * base] * 2, 8: [4 * base] * 2}


def test_every_budget_and_access_is_an_ensemble(memorised):
    target = memorised[1].target
    for budget in ("standard", "thorough"):
        for access in ("gradients", "scores", "labels"):
            group = ensemble(target, access, budget)
            assert len({one.name for one in group.members}) == len(group.members)
            assert len(group.judges) >= 2
            told = {type(one.attack).__name__ for one in group.members}
            told |= {ATTACKS[name].__name__ for name in group.untried}
            assert told == {kind.__name__ for kind in ATTACKS.values()}  # each is tried, or it is said why not
            assert not any(one.attack.needs().pixels for one in group.members)  # these priors are no pixels


def test_a_prior_that_was_brought_decides_what_is_tried(memorised, tmp_path):
    """A StyleGAN2 without its discriminator serves IF-GMI, as no fitted GAN does, and none that asks what is real."""
    target = memorised[1].target
    stylegan = StyleGAN2Prior(Generator(64, latents=6, styles=5, depth=2, base=128, widest=8))
    priors.save(stylegan, tmp_path / "stylegan")
    group = ensemble(target, "gradients", "standard", ready(tmp_path / "stylegan"))
    told = {type(one.attack).__name__ for one in group.members}
    assert {"PPA", "IFGMI", "VMI"} <= told
    assert {ATTACKS[name].__name__ for name, why in group.untried.items() if "no discriminator" in why} == {
        "GMI", "KEDMI", "LOMMA",
    }  # fmt: skip
    named = ConditionalPrior(ConditionalGenerator(32, 4, 8, classes=6), ProjectionDiscriminator(32, 2, classes=6))
    priors.save(named, tmp_path / "people")
    with pytest.raises(UserError, match="PPA searches a prior that knows no classes"):
        ensemble(target, "labels", "tiny", ready(tmp_path / "people"))


def test_every_command_of_the_page_on_your_own_model(world, tmp_path, small, monkeypatch, memorised, capsys):
    text = (Path(__file__).parent.parent / "docs" / "your-own-model.md").read_text()
    commands = re.findall(r"^lightleak (audit .*)$", text, re.M)
    assert len(commands) == 4
    monkeypatch.chdir(world)
    for command in commands:
        cli.main(command.replace("runs/audit", str(memorised[0])).split())
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("nothing was run") == 3
    assert "as recorded the record" in told
