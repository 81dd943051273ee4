"""The form from its first page to the downloaded file in Chromium: by keyboard alone, as a screen reader tells it."""

import json

import pytest

from kdutils.human_study.design import SCALE, TASKS, Study
from kdutils.human_study.forms import completion_code, write_study
from kdutils.human_study.plan import draw_plan
from kdutils.human_study.ratings import read_ratings
from tests.chromium import Chromium
from tests.test_human_study import texts_for

PERSON = "5f3c1a9e7b2d4c6e8f0a1b2c"
ITEMS = TASKS["rating"]
FOCUS = "document.activeElement"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A written study of four raters with four texts and one check each: (folder, plan)."""
    folder, texts = tmp_path_factory.mktemp("form"), texts_for(4, 2)
    study = Study("tiny-1", consent="I was told.", return_to="us@example.org", ask=("age",))
    return folder, write_study(folder, study, draw_plan(study, texts, 4, 4, 2, seed=3), texts)


def names(told, role):
    return [name for its_role, name, _ in told if its_role == role]


def test_a_person_of_a_panel_goes_by_keyboard_from_the_first_page_to_the_file(written, tmp_path):
    folder, plan = written
    with Chromium(f"{(folder / 'form.html').as_uri()}?PROLIFIC_PID={PERSON}&STUDY_ID=1&SESSION_ID=2", tmp_path) as page:
        told = page.told()
        assert "I have read this and agree to take part." in names(told, "checkbox")
        assert {"Your rater code", "Begin"} <= {*names(told, "textbox"), *names(told, "button")}
        assert page.value("document.getElementById('person').innerText") == f"Your id: {PERSON}"
        page.tab_to("#start-form button")
        page.press("Enter")
        assert "Please tick the box" in page.value("document.querySelector('[role=alert]').textContent")
        page.value("document.getElementById('rater').focus()")
        page.tab_to("#consent")
        page.press(" ")
        page.tab_to("#start-form button")
        page.press("Enter")
        page.wait("!document.getElementById('page').hidden")
        rater = page.value("document.getElementById('code').textContent").split()[1]
        pages = plan[plan["rater"] == rater].sort_values("position")
        first, *others = pages.to_dict("records")

        told = page.told()
        assert names(told, "radiogroup") == list(ITEMS.values())
        assert names(told, "radio") == [f"{point} {label}" for point, label in enumerate(SCALE, 1)] * len(ITEMS)
        assert page.value(f"{FOCUS}.textContent") == "Page 1 of 5", "the focus tells that a new page is there"
        silent = [(role, more) for role, name, more in told if more.get("focusable") and not name.strip()
                  and role not in ("RootWebArea", "generic", "article", "form")]
        assert not silent, "everything that takes the focus has a name"
        page.tab_to("#next")
        page.press("Enter")
        assert page.value("document.getElementById('page-error').textContent") == "6 answers are still missing."
        assert [more.get("invalid") for role, _, more in page.told() if role == "radiogroup"] == ["true"] * 6

        page.value("document.getElementById('heading').focus()")
        for number, _ in enumerate(ITEMS):  # without the short cuts: Tab, Space and arrows
            page.tab_to("input[type=radio]")
            page.press(" ", *["ArrowRight"] * (first["expected"] - 1 if first["is_check"] else number % 5))
        page.tab_to("#next")
        page.press("Enter")
        page.wait("document.getElementById('heading').textContent.startsWith('Page 2')")
        for row in others:
            page.press(*[str(row["expected"] if row["is_check"] else 4)] * len(ITEMS))
            page.press("Enter")
        page.wait("!document.getElementById('finish').hidden")
        page.tab_to("#sign")
        page.press(" ")
        page.tab_to("#save")
        page.press("Enter")
        file = page.download("_ratings.json")
        assert page.value(f"{FOCUS}.textContent") == "Your answers are saved"
        shown = page.value("document.getElementById('completion').textContent")
        page.tab_to("#finish-back")
        page.tab_to("#save-csv")
        page.press("Enter")
        table = page.download("_ratings.csv")
        assert (file.name, table.name) == tuple(f"tiny-1_{rater}_{PERSON}_ratings.{kind}" for kind in ("json", "csv"))

    for back in (file, table):
        ratings, problems, raters = read_ratings(back, plan)
        mine = raters.set_index("rater").loc[rater]
        assert not len(problems) and mine["status"] == "kept" and mine["participant"] == PERSON, back.name
        assert mine["completion_code"] == shown and len(ratings) == 4 * 6
        if not first["is_check"]:
            scores = ratings[ratings["text"] == first["text"]].set_index("construct")["score"]
            assert [scores[name] for name in ITEMS] == [1 + number % 5 for number in range(len(ITEMS))]
    changed = {text: dict.fromkeys(ITEMS, 4) for text in pages["text"]}
    assert completion_code("tiny-1", plan["version"].iloc[0], rater, changed) != shown, "it depends on the answers"


ADDRESSES = [  # what the address ends in, the code that the form then shows, the id that it keeps
    ("?rater=CODE", "CODE", ""), ("?rater=CODE&participant=vp01", "CODE", "vp01"), ("?rater=vp01", "any", "vp01"),
    ("?PROLIFIC_PID={{%25PROLIFIC_PID%25}}", "", ""), ("?rater=R999X", "R999X", ""), ("?id=<b>&rater=", "", ""),
    ("", "", "")]


def test_ids_from_the_address(written, tmp_path):
    folder, plan = written
    codes, form = sorted(plan["rater"].unique()), (folder / "form.html").as_uri()
    with Chromium(form, tmp_path) as page:
        for address, rater, person in ADDRESSES:
            page.open(form + address.replace("CODE", codes[1].lower()))
            shown, kept, fixed = page.value("[document.getElementById('rater').value, document.getElementById("
                                            "'participant').textContent, document.getElementById('rater').readOnly]")
            assert (kept, fixed) == (person, bool(person)), address
            assert shown in codes if rater == "any" else shown == rater.replace("CODE", codes[1]), address


def test_who_comes_back_keeps_what_was_said_and_no_stray_or_held_key_changes_an_answer(written, tmp_path):
    folder, plan = written
    rater = plan["rater"].iloc[0]
    address = f"{(folder / 'form.html').as_uri()}?rater={rater}"
    state = "JSON.parse(localStorage[Object.keys(localStorage).find((name) => name.startsWith('kdutils:tiny'))])"
    chosen = "[...document.querySelectorAll('#items :checked[type=radio]')].map((radio) => radio.value).join('')"
    with Chromium(address, tmp_path) as page:
        page.value("document.getElementById('ask-age').value = '25 to 34'")
        begin = "document.getElementById('consent').click(); document.getElementById('start-form').requestSubmit()"
        page.value(begin)
        page.press("3")
        one = {"key": "5", "code": "Digit5", "windowsVirtualKeyCode": ord("5"), "text": "5", "autoRepeat": True}
        for _ in range(3):
            page.call("Input.dispatchKeyEvent", type="keyDown", **one)
        assert page.value(chosen) == "3", "a held key fills no statement"
        page.press(*"45123")
        assert page.value(chosen) == "345123" and page.value(f"{FOCUS}.id") == "next"
        page.press("1")
        page.value("document.getElementById('heading').focus()")
        page.press("2")
        assert page.value(chosen) == "345123", "no statement has the focus, and none is open"
        page.open(address)
        page.value(begin)
        assert page.value(f"{state}.about.age") == "25 to 34"
        page.open(address)
        page.value("document.getElementById('ask-age').value = '35 to 44'")
        page.value(begin)
        assert page.value(f"{state}.about.age") == "35 to 44", "what is filled in anew counts"
        half = page.value(f"JSON.stringify({{...{state}, study: 'tiny-1', version: '{plan['version'].iloc[0]}', "
                          "answers: []})")
        for said, kept in (("", "35 to 44"), ("18 to 24", "18 to 24")):
            page.open(address)
            page.value(f"document.getElementById('ask-age').value = '{said}'")
            page.value("document.getElementById('consent').click(); var files = new DataTransfer(); files.items.add("
                       f"new File([{json.dumps(half)}], 'a.json')); var field = document.getElementById('import'); "
                       "field.files = files.files; field.dispatchEvent(new Event('change'))")
            page.wait("!document.getElementById('page').hidden")
            assert page.value(f"{state}.about.age") == kept, "an unfinished file"


def test_short_cuts_can_be_turned_off_and_the_code_of_the_study_is_shown(tmp_path):
    texts = texts_for(2, 2)
    study = Study("s", completion_code="C1A2B3")
    plan = write_study(tmp_path, study, draw_plan(study, texts, 1, 4, 1, checks=0), texts)
    with Chromium(f"{(tmp_path / 'form.html').as_uri()}?rater={plan['rater'].iloc[0]}", tmp_path / "browser") as page:
        page.tab_to("#start-form button")
        page.press("Enter")
        page.tab_to("#shortcuts")
        page.press(" ")
        page.press("4")
        assert page.value("document.querySelectorAll('input[type=radio]:checked').length") == 0
        page.press(" ")
        for _ in range(4):
            page.press(*"444444", "Enter")
        page.tab_to("#sign")
        page.press(" ")
        page.tab_to("#save")
        page.press("Enter")
        assert page.value("document.getElementById('completion').textContent") == "C1A2B3"
        file = page.download("_ratings.json")
    scores = {answer["text"]: answer["scores"] for answer in json.loads(file.read_text())["answers"]}
    rater, version = plan["rater"].iloc[0], plan["version"].iloc[0]
    own = completion_code("s", version, rater, scores)[:4]
    assert file.name == f"s_{rater}_{own}_ratings.json", "two people with one code save files of different names"
