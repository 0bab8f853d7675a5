"""The HTML page: self-contained, escaped, and in plain words."""

import re
from functools import cache
from html.parser import HTMLParser

import pytest
from report_samples import broken_result, empty_result, plausible_result

from groundstation.pipeline.result import GapRecord
from groundstation.report.document import report_document
from groundstation.report.figures import draw_figures
from groundstation.report.page import report_page

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects what a page refers to, its identifiers and its words; checks that its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.references, self.ids, self.words, self.tags, self._open = [], [], [], set(), []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@cache
def page_made_by(make):
    return page_of(make())


def page_of(result):
    return report_page(report_document(result), draw_figures(result))


def words_in(text):
    return " ".join(" ".join(Reader(text).words).split())


@pytest.fixture(scope="module", params=[plausible_result, broken_result, empty_result])
def any_page(request):
    return page_made_by(request.param)


@pytest.fixture(scope="module")
def whole_page():
    return page_made_by(plausible_result)


@pytest.fixture(scope="module")
def broken_page():
    return page_made_by(broken_result)


def test_the_page_needs_nothing_from_outside(any_page):
    page, text = Reader(any_page), any_page
    assert all(reference.startswith("#") for reference in page.references)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))


def test_identifiers_inside_the_figures_do_not_collide(any_page):
    ids = Reader(any_page).ids
    assert len(ids) == len(set(ids))


def test_every_reference_inside_the_page_has_its_target(any_page):
    page = Reader(any_page)
    targets = {reference[1:] for reference in page.references} | set(re.findall(r"url\(#([^)]*)\)", any_page))
    assert targets <= set(page.ids)


def test_whatever_comes_from_outside_is_escaped():
    attack = "<script>alert('x')</script>&\" $x^$ 兴隆 🛰"
    result = plausible_result(
        mode="simulation", station=attack, satellite=attack, complete=False, remarks=(attack,),
        gaps=(GapRecord(0, 10**12, 3, attack),), ledger_dropped={attack: 1},
        provenance={attack: attack, "nested": {attack: [attack]}},
    )  # fmt: skip
    text = page_of(result)
    assert "<script" not in text
    assert words_in(text).count("alert('x')") >= 7


def test_the_headline_says_mode_verdict_and_numbers(whole_page):
    words = words_in(whole_page)
    assert "SIMULATION" in words
    assert "Complete: the planned window was recorded without unaccounted loss." in words
    assert f"{int(plausible_result().sifted[0].sum()):,} sifted signal bits" in words
    assert "1.07 ± 0.03 % QBER" in words


def test_an_incomplete_pass_says_so_and_why(broken_page):
    words = words_in(broken_page)
    assert "Incomplete" in words
    assert "The link to the time tagger was lost for 25.0 s" in words
    assert "150.000 175.000 25.000 unknown link lost" in words


def test_a_real_pass_says_live_and_has_no_section_on_the_simulated_world():
    words = words_in(page_of(plausible_result(mode="live", simulation=None)))
    assert "LIVE" in words
    assert "SIMULATION" not in words
    assert "simulated world" not in words


def test_the_same_result_gives_the_same_page(broken_page):
    assert page_of(broken_result()) == broken_page
