"""The page in a real browser without a network: charts, filters, sorting, keys, phone, dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_cases import HOSTILE, saved

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("vl_convert", reason="vl-convert-python is not installed")

pytestmark = pytest.mark.slow
CHARTS = {"frontier", "latencies", "times", "errors", "widths"}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
Open = Callable[..., Any]


def chromium() -> str:
    """Return the path of the browser; the test is skipped where there is none."""
    named = [os.environ.get("TRIMTAB_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in named if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            "needs chromium: apt-get install chromium, or name the browser in TRIMTAB_CHROMIUM"
        )
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trimtab.cli import main

    folder = tmp_path_factory.mktemp("report")
    assert main(["report", str(saved(folder))]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened(browser: Any, report: Path) -> Iterator[Open]:
    """Open the page, all charts drawn; at the end it must have logged and loaded nothing."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(**surroundings: Any) -> Any:
        context = browser.new_context(offline=True, **surroundings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = ("file:", "data:image/")
        page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
        page.goto(report.as_uri())
        for name in CHARTS:
            page.wait_for_selector(f"#chart-{name}[data-drawn] svg")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def shared(opened: Open) -> Any:
    """Open one page for the tests that only look and filter."""
    return opened()


def test_examples_show_the_pictures_that_the_page_holds_and_no_others(shared: Any) -> None:
    assert shared.locator("#outputs tbody tr").count() == 1
    assert "cat" in shared.locator(".example h3").inner_text()
    images = shared.locator(".example img")
    assert images.count() == 1
    assert images.evaluate("image => image.naturalWidth") == 1
    assert shared.locator(".example figcaption").count() == 2


@pytest.fixture
def desktop(shared: Any) -> Any:
    """Return the shared page, nothing filtered."""
    shared.get_by_label("Filter by name").fill("")
    for name in ("measured only", "frontier only"):
        shared.get_by_label(name).uncheck()
    return shared


def shown(page: Any) -> list[str]:
    names: list[str] = page.eval_on_selector_all(
        "#candidate-table tbody tr:not([hidden])", "rows => rows.map(r => r.dataset.name)"
    )
    return names


def points(page: Any) -> int:
    """Return the points that the frontier's chart shows."""
    return int(page.locator("#chart-frontier .mark-symbol.role-mark path").count())


def test_every_chart_is_drawn_and_no_name_runs(desktop: Any) -> None:
    page = desktop
    assert page.evaluate("window.hacked") is None
    assert points(page) == 4
    assert page.locator("#chart-latencies .mark-line path").count() == 2
    assert page.locator("#chart-times .mark-rect.role-mark path").count() == 6
    assert page.locator("#chart-errors .mark-rect.role-mark path").count() == 6  # bars and ticks
    assert page.locator("#chart-widths .mark-rect.role-mark path").count() == 2


def test_filters_cut_table_and_chart_alike(desktop: Any) -> None:
    page = desktop
    everything = shown(page)
    page.get_by_label("Filter by name").fill("STATIC")
    assert shown(page) == ["original", "int8 static"]
    page.wait_for_function(
        "document.querySelectorAll('#chart-frontier .mark-symbol.role-mark path').length === 2"
    )
    assert page.locator("#count").inner_text() == "2 of 6 shown"
    page.get_by_label("Filter by name").fill("")
    page.get_by_label("measured only").check()
    assert "broken" not in shown(page)
    page.get_by_label("frontier only").check()
    assert set(shown(page)) == {"original", "int8 static", "float simplified", HOSTILE}
    page.get_by_label("measured only").uncheck()
    page.get_by_label("frontier only").uncheck()
    assert shown(page) == everything


def test_a_column_sorts_both_ways_by_number_with_unknown_ones_last(desktop: Any) -> None:
    page = desktop
    button = page.get_by_role("button", name="speed-up")
    button.click()
    assert shown(page)[:3] == ["float simplified", HOSTILE, "int8 static"]
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("speed-up")
    button.click()
    assert shown(page)[:3] == ["int8 static", HOSTILE, "float simplified"]
    page.get_by_role("button", name="file").click()
    assert shown(page)[-1] == "broken"  # it has no file


def test_keys_alone_reach_and_use_everything(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # it comes into view
    for _ in range(12):
        if page.evaluate("document.activeElement.id") == "filter":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("dynamic")
    assert shown(page) == ["original", "int8 dynamic"]
    for _ in range(12):
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            break
        page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").count() == 1
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_readers_find_a_name_for_every_chart_and_its_figures_in_a_table(desktop: Any) -> None:
    page = desktop
    for name in CHARTS:
        assert page.locator(f"#chart-{name}").get_attribute("aria-label")
        assert page.locator(f"#{name} figure details table caption").count() == 1
    assert page.locator("#chart-frontier path[aria-label*='int8 static']").count() >= 1
    unnamed = (
        "ts => ts.filter(t => !t.caption || !t.tHead || !t.querySelector('th[scope=col]')).length"
    )
    assert page.eval_on_selector_all("main table", unnamed) == 0


def test_hovering_shows_the_figures_as_text(desktop: Any) -> None:
    page = desktop
    page.locator("#chart-frontier path[aria-label*='script']").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "</script>" in page.locator("#vg-tooltip-element").inner_text()
    assert page.locator("#vg-tooltip-element img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_phone_scrolls_down_only(opened: Open) -> None:
    page = opened(**PHONE)
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    assert page.locator("#chart-frontier svg").bounding_box()["width"] <= PHONE["viewport"]["width"]


def test_dark_is_dark_and_follows_a_switch(opened: Open) -> None:
    page = opened(color_scheme="dark")

    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3

    assert brightness() < 64
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("#chart-frontier[data-drawn=light]")
    assert brightness() > 192


def test_without_scripts_all_figures_are_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#candidate-table tbody tr").count() == 6
    assert page.locator("#times details table tbody tr").count() == 3
    assert not page.locator("#filters").is_visible()
    context.close()
