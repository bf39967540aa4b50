"""People asked which picture shows somebody better: the page in a real browser, the answers, what they prefer."""

import csv
import http.client
import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from browser import Browser
from lightleak import cli
from lightleak.attacks import Reconstruction
from lightleak.data import faces
from lightleak.errors import UserError
from lightleak.raters import Answer, Answers, Questions, Serving, pairs_to_rate, preference
from lightleak.raters.preference import agreement
from lightleak.report import read
from lightleak.report.study import NOTE
from lightleak.study.pairs import Pairs, read_pairs
from test_collect import evaluated

TITLES = ("no defence", "RoLSS")


@pytest.fixture
def study(tmp_path) -> Path:
    """A study's folder with five pairs, as the task Pairs leaves them."""
    folder = tmp_path / "study" / "Pairs" / "abc"
    folder.mkdir(parents=True)
    form, key = [["pair", "person", "left", "right"]], [["pair", "class", "left", "right"]]
    for number in range(5):
        name = f"{number:04d}"
        for place, what in enumerate(("person", "left", "right")):
            Image.new("RGB", (16, 16), (40 * number, 80 * place, 90)).save(folder / f"{name}-{what}.png")
        form.append([name, *(f"{name}-{what}.png" for what in ("person", "left", "right"))])
        key.append([name, str(number), *(TITLES if number % 2 else TITLES[::-1])])
    for file, rows in (("form.csv", form), ("key.csv", key)):
        with (folder / file).open("w", newline="") as out:
            csv.writer(out).writerows(rows)
    (folder / "result.json").write_text(json.dumps({"targets": TITLES}))
    return tmp_path / "study"


@contextmanager
def served(questions: Questions):
    with Serving(questions) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()


def said(serving: Serving, path: str, body: dict | None = None, **headers: str):
    """Status and body of a request to the server."""
    connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=20)
    given = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(
        "GET" if body is None else "POST", path, None if body is None else json.dumps(body), given | headers
    )
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer, text


def test_raters_use_the_page_in_a_browser(study, tmp_path):
    asked = pairs_to_rate(study)
    answers = Answers(asked.folder)
    with served(Questions(asked.pairs, answers)) as serving, Browser(tmp_path / "profile") as browser:
        browser.go(serving.address)
        browser.until("!!document.getElementById('name') && document.activeElement.id === 'name'")
        browser.write("Ada L.")
        browser.press("Enter", "\r")
        shown = "document.querySelector('#count').innerText"
        for number, key in enumerate(["ArrowLeft", "ArrowRight", "ArrowLeft"]):
            browser.until(f"!document.getElementById('rate').hidden && {shown}.startsWith('{number} of 5')")
            assert browser.sees("[...document.images].every(one => one.naturalWidth === 16)")
            browser.press(key)
        browser.until(f"{shown}.startsWith('3 of 5')")
        browser.go("about:blank")
        browser.go(serving.address + "#Ada%20L.")  # what a reload, or a bookmark, finds
        browser.until(f"!!document.querySelector('#count') && {shown}.startsWith('3 of 5')")
        for number in (3, 4):
            browser.until(f"{shown}.startsWith('{number} of 5') && !document.getElementById('rate').hidden")
            if number == 3:
                browser.picture(tmp_path / "page.png")
            browser.sees("document.querySelector('[data-side=right]').click()")
        browser.until("!document.getElementById('end').hidden")
        assert "all 5 pairs are done" in browser.sees("document.body.innerText")
        # a second rater, whose time is up
        serving.questions.seconds = 0.3
        browser.sees("document.getElementById('other').click()")
        browser.write("Grace")
        browser.press("Enter", "\r")
        browser.until("!document.getElementById('late').hidden")
    found = answers.read()
    ada = [found["Ada L.", pair.name] for pair in asked.pairs]
    in_order = sorted(ada, key=lambda one: list(found).index(("Ada L.", one.pair)))
    assert [one.side for one in in_order] == ["left", "right", "left", "right", "right"]
    late = [one for one in found.values() if one.rater == "Grace"]
    assert [(one.chosen, one.side) for one in late] == [(None, None)]


def test_what_is_kept_is_the_target_whose_picture_was_seen(study):
    asked = pairs_to_rate(study)
    answers = Answers(asked.folder)
    files = {
        path.read_bytes(): (pair.name, title) for pair in asked.pairs for path, title in zip(pair.pictures, TITLES)
    }
    with served(Questions(asked.pairs, answers)) as serving:
        home = f"/{serving.token}"
        while (told := json.loads(said(serving, f"{home}/next?rater=Bo")[1]))["place"] is not None:
            shown = said(serving, f"{home}/picture/Bo/{told['place']}/right")[1]
            said(serving, f"{home}/answer", {"rater": "Bo", "place": told["place"], "side": "right"})
            pair, title = files[shown]
            assert answers.read()["Bo", pair].chosen == title
        assert told["done"] == 5


def test_nobody_else_is_answered(study):
    asked = pairs_to_rate(study)
    with served(Questions(asked.pairs, Answers(asked.folder))) as serving:
        assert serving.server_address[0] == "127.0.0.1"
        home = f"/{serving.token}"
        assert len(serving.token) >= 20
        page, text = said(serving, f"{home}/")
        assert page.status == 200
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert not re.search(rb"https?://|(src|href)=\"[^\"]", text)  # nothing is fetched from elsewhere
        wrong = ["/", "/next?rater=a", f"/{serving.token[:-1]}/", f"{home}/picture/a/0/key", f"{home}/picture/a/9/left"]
        wrong += [f"{home}/picture/a/0/..%2f..%2fkey.csv", f"{home}/../key.csv", f"{home}/key.csv"]
        assert {said(serving, path)[0].status for path in wrong} == {404}
        assert said(serving, f"{home}/", Host=f"evil.example:{serving.server_port}")[0].status == 404  # rebinding
        answer = {"rater": "a", "place": 0, "side": "left"}
        bad = [
            answer | {"place": 7},
            answer | {"side": "up"},
            answer | {"rater": " "},
            answer | {"rater": "a" * 41},
            {},
        ]
        for body in [*bad, answer | {"place": True}]:
            refused, told = said(serving, f"{home}/answer", body)
            assert refused.status == 400
            assert json.loads(told)["error"]
        assert said(serving, f"{home}/answer", answer, **{"Content-Type": "text/plain"})[0].status == 400
        assert not Answers(asked.folder).read()


def test_each_rater_has_an_own_order_and_sides_that_a_stop_does_not_change(study):
    asked = pairs_to_rate(study)
    kept = Answers(asked.folder)
    questions = Questions(asked.pairs, kept)
    seen = {rater: [(q.pair.name, q.swapped) for q in questions.order(rater)] for rater in map(str, range(20))}
    assert len({tuple(order) for order in seen.values()}) > 15
    assert all(sorted(name for name, _ in order) == [pair.name for pair in asked.pairs] for order in seen.values())
    assert 30 < sum(swapped for order in seen.values() for _, swapped in order) < 70
    assert questions.answer("3", 0, "left")
    assert not questions.answer("3", 0, "right")  # the first counts
    again = Questions(asked.pairs, Answers(asked.folder))
    question, _, done = again.next("3")
    assert (question.place, done) == (1, 1)
    assert [(q.pair.name, q.swapped) for q in again.order("3")] == seen["3"]


def test_the_time_of_a_pair_is_kept_here_and_not_on_the_page(study):
    now = [0.0]
    asked = pairs_to_rate(study)
    questions = Questions(asked.pairs, kept := Answers(asked.folder), 60, lambda: now[0])
    assert questions.next("a")[1] == 60
    now[0] = 20
    assert questions.next("a")[1] == 40  # a reloaded page begins no new time
    now[0] = 70
    questions.answer("a", 0, "left")
    (answer,) = kept.read().values()
    assert (answer.chosen, answer.seconds) == (None, 60)


def test_half_a_line_of_a_crash_counts_as_none_and_loses_nothing(study):
    kept = Answers(pairs_to_rate(study).folder)
    kept.add(Answer("a", "0000", "RoLSS", "left", 1.0))
    with kept.path.open("ab") as file:
        file.write(b'{"rater": "a", "pair": "00')
    assert list(kept.read()) == [("a", "0000")]
    assert kept.add(Answer("a", "0001", "RoLSS", "left", 1.0))
    assert list(kept.read()) == [("a", "0000"), ("a", "0001")]
    kept.path.write_text("nonsense\n" + kept.path.read_text())
    with pytest.raises(UserError, match="line 1 is no answer"):
        kept.read()


def told(table, pairs):
    """Answers of a table raters x pairs: 1 the first target, 0 the second, None no answer in time, - not asked."""
    marks = {"1": TITLES[0], "0": TITLES[1], ".": None}
    return {
        (str(rater), pair.name): Answer(str(rater), pair.name, marks[mark], "left", 1.0)
        for rater, row in enumerate(table) for pair, mark in zip(pairs, row) if mark != "-"
    }  # fmt: skip


def test_preference_and_agreement(study):
    pairs = pairs_to_rate(study).pairs
    found = preference(pairs, told(["11110", "1110.", "11-00"], pairs))
    assert (found.answers, found.unanswered, found.pairs) == (13, 1, 5)
    assert found.share.value == pytest.approx(9 / 13)
    assert found.share.low < 9 / 13 < found.share.high
    whole = preference(pairs, told(["11110", "11100", "11000"], pairs))
    one = preference(pairs, told(["11100"], pairs))
    assert whole.share.value == one.share.value == 0.6
    assert one.alpha is None
    assert "two raters" in one.why_no_alpha
    alike = preference(pairs, told(["11111", "11111"], pairs))
    assert "no variation" in alike.why_no_alpha
    assert 0.3 < alike.share.low < 1  # all alike is not certain
    assert whole.left.value == 1.0
    assert preference(pairs, told(["....."], pairs)).share is None
    with pytest.raises(UserError, match="neither"):
        preference(pairs, {("a", "0000"): Answer("a", "0000", "other", "left", 1.0)})


def test_alpha_against_its_definition():
    """Krippendorff's own example of nominal data (2011, section B), and a count of coinciding pairs done by hand."""
    nan = np.nan
    table = np.array([
        [nan, nan, nan, nan, nan, 3, 4, 1, 2, 1, 1, 3, 3, nan, 3],
        [1, nan, 2, 1, 3, 3, 4, 3, nan, nan, nan, nan, nan, nan, nan],
        [nan, nan, 2, 1, 3, 4, 4, nan, 2, 1, 1, 3, 3, nan, 4],
    ])  # fmt: skip
    assert agreement(table)[0] == pytest.approx(0.691, abs=5e-4)
    # two raters, four pairs, agreeing on three: observed 1/4; of 8 values five 1 and three 0: expected 2*15/56
    assert agreement(np.array([[1, 1, 0, 1], [1, 1, 0, 0.0]]))[0] == pytest.approx(1 - (1 / 4) / (30 / 56))


def test_pairs_that_cannot_be_asked_about_are_one_line(study, tmp_path):
    with pytest.raises(UserError, match="holds no pairs"):
        pairs_to_rate(tmp_path / "nothing")
    place = study / "Pairs" / "abc"
    assert pairs_to_rate(place).folder == pairs_to_rate(study).folder == study / "raters" / "abc"
    (place / "result.json").unlink()
    assert read_pairs(place)[0].targets == tuple(sorted(TITLES))  # copied without the task's result
    (place / "0003-left.png").unlink()
    with pytest.raises(UserError, match=r"0003-left\.png is missing"):
        pairs_to_rate(study)
    (place / "key.csv").write_text("pair,class,left,right\n")
    with pytest.raises(UserError, match="different pairs"):
        pairs_to_rate(study)


def test_the_command_shows_what_was_answered(study, capsys):
    with pytest.raises(SystemExit):
        cli.main(["raters", str(study), "--results"])
    assert "nobody has answered" in capsys.readouterr().err
    pairs = pairs_to_rate(study).pairs
    for answer in told(["11110", "11100"], pairs).values():
        Answers(pairs_to_rate(study).folder).add(answer)
    cli.main(["raters", str(study), "--results"])
    words = " ".join(capsys.readouterr().out.split())
    assert "'no defence' was preferred to that from 'RoLSS' in 70.0 %" in words
    assert "Krippendorff's alpha: 0.57" in words
    assert "this is a habit" in words
    kept = json.loads((study / "raters" / "abc" / "preference.json").read_text())
    assert kept["share"]["value"] == 0.7


def test_what_raters_preferred_stands_on_the_studys_page(study, capsys):
    keys = [evaluated(study, title, 0.9, 0.5).name for title in TITLES]
    about = {"title": "T", "command": "c", "evaluations": keys, "pairs": ["abc"]}
    (study / NOTE).write_text(json.dumps(about))
    cli.main(["report", str(study)])
    assert "What people preferred" not in (study / "report.html").read_text()
    pairs = pairs_to_rate(study).pairs
    for answer in told(["11110", "1110."], pairs).values():
        Answers(pairs_to_rate(study).folder).add(answer)
    cli.main(["raters", str(study), "--results"])  # the page that is there is renewed
    assert f"{study / 'report.html'} shows them too" in " ".join(capsys.readouterr().out.split())
    page = " ".join((study / "report.html").read_text().split())
    assert "What people preferred" in page
    assert "2 people gave 9 answers to 5 pairs of pictures, and 1 times none within the time" in page
    assert "&#39;no defence&#39; was preferred to that from &#39;RoLSS&#39; in 77.8 %" in page
    assert "Krippendorff&#39;s alpha: " in page
    kept = read(study / "record.json").raters
    assert kept[1].startswith("the picture from 'no defence' was preferred")
    cli.main(["report", str(study)])
    assert "was preferred to that from" in " ".join(capsys.readouterr().out.split())


def paired(tmp_path, first, second, population):
    """The result of the task Pairs on two reconstructions of a population."""
    attacks = [
        SimpleNamespace(
            load=lambda _, found=found: found,
            target=SimpleNamespace(title=title, population=SimpleNamespace(load=lambda _: population)),
        )
        for title, found in zip(TITLES, (first, second))
    ]
    return Pairs(*attacks).run(None, tmp_path, lambda *_: None)  # pyright: ignore


def reconstructed(people, classes):
    count = len(classes)
    return Reconstruction(
        torch.full((count, 3, 16, 16), 0.5), torch.tensor(classes), torch.zeros(count, 2), torch.ones(count),
        people=people,
    )  # fmt: skip


def test_pairs_are_of_the_same_people_and_of_those_whom_both_targets_gave_away(tmp_path):
    worlds = [
        faces.population(people=3, images=1, size=32, public_people=1, public_images=1, judge_images=1,
                         validation_images=1, test_images=1, seed=seed)
        for seed in range(2)
    ]  # fmt: skip
    mine, theirs = (world.people for world in worlds)
    told = paired(tmp_path, reconstructed(mine, [0, 2]), reconstructed(mine, [1, 2, 0]), worlds[0])
    assert (told["pairs"], told["left_out"]) == (2, 1)
    assert [pair.name for pair in read_pairs(tmp_path)] == ["0000", "0001"]
    told = paired(tmp_path, reconstructed(mine, [0, 1, 2]), reconstructed(mine, [2]), worlds[0])
    assert (told["pairs"], told["left_out"]) == (1, 2)
    with pytest.raises(UserError, match="pairs are of the same people"):
        paired(tmp_path, reconstructed(mine, [0]), reconstructed(theirs, [0]), worlds[0])
