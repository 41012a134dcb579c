"""The report in a real browser, with its network off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import MARKUP, write_judgements, write_run

from m4rag.bench.compare import compare_paths
from m4rag.bench.compare_page import write_page
from m4rag.bench.report import write_report
from m4rag.policy.fit import fit

pytestmark = pytest.mark.browser

NOTE = "Random weights: this model was never trained, its accuracy is chance."
# Without these Chromium looks up hosts of its own at every start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium fonts-noto-core fonts-noto-cjk")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run as it comes, judged and with a policy, without images by a model of random weights, and with markup
    in every text; two settings of the first compared, and of the last."""
    folder = tmp_path_factory.mktemp("reports")
    write_run(folder / "plain")
    write_run(folder / "judged")
    write_judgements(folder / "judged")
    policy = fit(folder / "judged")
    policy.write(policy.file_in(folder / "judged"))
    write_run(folder / "warned", note=NOTE, images="none")
    write_run(folder / "hostile", markup=MARKUP)
    pages = {path.name: write_report(path) for path in folder.iterdir()}
    pages["compared"] = folder / "compared.html"
    compared = compare_paths(folder / "plain", folder / "plain", setting="no_rag", setting_b="oracle")
    write_page(compared, pages["compared"])
    pages["compared hostile"] = folder / "hostile.html"
    compared = compare_paths(folder / "hostile", folder / "hostile", setting="no_rag", setting_b="oracle")
    write_page(compared, pages["compared hostile"])
    return pages


class Visit:
    """An open page and everything it did."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.goto(report.as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")


@pytest.fixture
def visit(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    visits: list[Visit] = []

    def open_report(name: str, **options: Any) -> Visit:
        visits.append(Visit(browser, reports[name], **options))
        return visits[-1]

    yield open_report
    for made in visits:
        made.context.close()


@pytest.mark.parametrize("name", ["plain", "judged", "warned", "hostile", "compared", "compared hostile"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_asks_for_nothing_and_reports_no_error(
    visit: Any, name: str, scheme: str, width: int
) -> None:
    seen = visit(name, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in seen.requests if url.startswith("file:")]) == 1
    assert seen.said == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_texts_in_arabic_letters_are_laid_out_from_right_to_left(visit: Any) -> None:
    seen = visit("plain", viewport={"width": 1280, "height": 900})
    arabic = seen.page.evaluate(
        """() => [...document.querySelectorAll('p.native, .languages b, .options')]
            .filter(element => /[\\u0600-\\u06ff]/.test(element.textContent))
            .map(element => [element.dir, getComputedStyle(element).direction])"""
    )
    assert len(arabic) >= 8
    assert {tuple(pair) for pair in arabic} == {("rtl", "rtl")}


def test_every_script_has_a_font_on_this_machine(visit: Any) -> None:
    seen = visit("plain", viewport={"width": 1280, "height": 900})
    session = seen.context.new_cdp_session(seen.page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    nodes = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": ".languages b[lang]"})["nodeIds"]
    assert len(nodes) == 15
    for node in nodes:
        fonts = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        assert fonts
        assert not [font for font in fonts if "LastResort" in font["familyName"]]


def test_marks_stand_where_their_numbers_say(visit: Any) -> None:
    seen = visit("plain", viewport={"width": 1280, "height": 900})
    places = seen.page.evaluate(
        """() => [...document.querySelectorAll('.forest .line:not(.axis)')].map(line => {
            const track = line.querySelector('.track').getBoundingClientRect();
            const mark = line.querySelector('.track g path').getBoundingClientRect();
            const shown = 100 * (mark.left + mark.width / 2 - track.left) / track.width;
            return [shown, parseFloat(line.querySelector('.figure b').textContent)];
        })"""
    )
    assert len(places) == 4
    for shown, stated in places:
        assert shown == pytest.approx(stated, abs=0.5)


@pytest.mark.parametrize("width", [390, 1280])
def test_differences_stand_where_their_numbers_say(visit: Any, width: int) -> None:
    seen = visit("compared", viewport={"width": width, "height": 900})
    places = seen.page.evaluate(
        """() => [...document.querySelectorAll('.differences .line:not(.axis)')].map(line => {
            const track = line.querySelector('.track').getBoundingClientRect();
            const ends = line.querySelector('.interval').getBoundingClientRect();
            const numbers = line.querySelector('.figure').textContent.replaceAll('−', '-').match(/[+-][\\d.]+/g);
            const place = x => (2 * (x - track.left) / track.width - 1) * 100;
            return [place(ends.left), place(ends.right), ...numbers.map(Number)];
        })"""
    )
    assert len(places) == 16
    for left, right, _, low, high in places:
        # The cap of the line reaches a little further than the interval.
        assert (left, right) == pytest.approx((low, high), abs=3)


CONTRASTS = """() => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const shade = colour => {
        const [r, g, b] = channels(colour).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        for (let place = element; place; place = place.parentElement) {
            const colour = getComputedStyle(place).backgroundColor, alpha = channels(colour)[3];
            if (alpha === undefined || alpha === 1) return colour;
        }
        return getComputedStyle(document.body).backgroundColor;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
        if (!text || element.closest('title')) continue;
        const style = getComputedStyle(element);
        const [a, b] = [shade(element.closest('svg') ? style.fill : style.color), shade(ground(element))];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.slice(0, 40)]);
    }
    return found;
}"""


@pytest.mark.parametrize("name", ["judged", "warned", "compared"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(visit: Any, name: str, scheme: str) -> None:
    seen = visit(name, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    found = seen.page.evaluate(CONTRASTS)
    assert len(found) > 200
    assert [pair for pair in found if pair[0] < 4.5] == []


@pytest.mark.parametrize("name", ["judged", "compared"])
def test_what_opens_and_what_scrolls_is_reached_by_keyboard(visit: Any, name: str) -> None:
    seen = visit(name, viewport={"width": 390, "height": 900})
    waiting = seen.page.evaluate("document.querySelectorAll('summary, .scroll').length")
    reached = set()
    for _ in range(waiting):
        seen.page.keyboard.press("Tab")
        reached.add(
            seen.page.evaluate("[...document.querySelectorAll('summary, .scroll')].indexOf(document.activeElement)")
        )
    assert reached == set(range(waiting))


@pytest.mark.parametrize("width", [390, 1280])
def test_rates_stand_at_their_relevance_and_their_height(visit: Any, width: int) -> None:
    seen = visit("judged", viewport={"width": width, "height": 900})
    places = seen.page.evaluate(
        """() => [...document.querySelectorAll('.scatter .track')].flatMap(track => {
            const frame = track.getBoundingClientRect();
            return [...track.querySelectorAll('g')].flatMap((series, number) =>
                [...series.querySelectorAll(':scope > svg')].map(dot => {
                    const mark = dot.querySelector('path').getBoundingClientRect();
                    const [, low, high, rate] = dot.querySelector('title').textContent
                        .match(/relevance ([\\d.]+)–([\\d.]+): ([\\d.]+) %/).map(Number);
                    const left = mark.left + mark.width / 2 - frame.left - (number ? 5 : -5);
                    const above = frame.bottom - (mark.top + mark.bottom) / 2;
                    return [1 + 4 * left / frame.width, (low + high) / 2, 100 * above / frame.height, rate];
                }));
        })"""
    )
    assert len(places) > 20
    for x, relevance, y, rate in places:
        assert x == pytest.approx(relevance, abs=0.02)
        assert y == pytest.approx(rate, abs=1.5)


def test_pictures_are_shown(visit: Any) -> None:
    seen = visit("plain", viewport={"width": 390, "height": 900})
    widths = seen.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 12
    assert all(width > 0 for width in widths)


def test_the_warnings_are_seen_first(visit: Any) -> None:
    seen = visit("warned", viewport={"width": 390, "height": 900})
    top = seen.page.evaluate("document.querySelector('h1').getBoundingClientRect().top")
    assert top < 200
    assert seen.page.locator("aside.warning").count() == 2
    assert seen.page.get_by_text(NOTE).first.is_visible()


def test_it_prints_on_paper(visit: Any) -> None:
    seen = visit("plain", viewport={"width": 1280, "height": 900})
    assert seen.page.pdf(format="A4").startswith(b"%PDF")
