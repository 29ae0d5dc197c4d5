"""The report's figures, and that nothing in a document can be more than text in it."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from heard import Heard
from report_cases import HOSTILE, document, saved

from trimtab.cli import main
from trimtab.core.errors import DataError, MissingExtraError
from trimtab.report import page as page_module
from trimtab.report.charts import ECDF_POINTS, ecdf
from trimtab.report.constraints import confirmed_rows, constraint_lines, headline, speed_text
from trimtab.report.frontier import frontier_rows
from trimtab.report.markdown import markdown, plain
from trimtab.report.notebook import summary
from trimtab.report.plain_json import embedded_json
from trimtab.report.view import SCHEMA, view
from trimtab.search import result


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the charting library by one line: these tests draw nothing."""
    monkeypatch.setattr(page_module, "charting_script", lambda: "window.vegaEmbed = null;")


class Elements(HTMLParser):
    """Names of all elements, and the attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(name)
        self.handlers += [key for key, _ in attributes if key.startswith("on") or key == "style"]


def test_each_constraint_is_held_or_broken_by_the_reached_figure() -> None:
    known = {line.name: line for line in constraint_lines(view(document()))}
    assert known["loss of top1"].verdict == "not settled"  # up to 0.012, 0.01 is allowed
    assert known["speed-up"].verdict == "broken"  # 2.00 at the interval's upper end, 3 were asked
    assert known["latency"].verdict == "held"  # p95 of about 0.6 ms, 2 ms are allowed
    assert known["file"].verdict == "-"  # nothing was asked
    asked = document() | {"constraints": {"max_drop": 0.02, "min_speedup": 1.85}}
    known = {line.name: line for line in constraint_lines(view(asked))}
    assert known["loss of top1"].verdict == "held"
    assert known["speed-up"].verdict == "not settled"  # 1.81 to 2.00


def test_search_and_confirmation_are_never_in_one_column() -> None:
    shown = view(document())
    row = shown.chosen
    assert row is not None
    assert (row.part, row.speedup) == ("selection", 2.0)
    assert row.base_p50_ns is not None
    assert row.p50_ns is not None
    assert row.base_p50_ns / row.p50_ns == pytest.approx(2.0, rel=0.1)  # of one run
    assert "1.90x [1.80, 1.99] as fast" in headline(shown)
    assert "changes by -0.0060 [-0.0120, -0.0010]" in headline(shown)
    (cells,) = [cells for cells in confirmed_rows(shown) if cells[0] == "int8 static"]
    assert cells[2:] == ["800, test split", "not settled", "1.90x [1.80, 1.99]", "faster"]


def test_a_search_without_a_winner_says_so() -> None:
    nothing = view(document() | {"chosen": None})
    assert headline(nothing) == "No candidate satisfies the constraints."
    assert {line.reached for line in constraint_lines(nothing)} == {"-"}


def test_the_drop_has_its_paired_interval() -> None:
    row = view(document()).chosen
    assert row is not None
    assert (row.drop, row.drop_error) == (0.002, 0.003)
    bare = document()
    bare["evidence"] = {}
    row = view(bare).chosen
    assert row is not None
    assert row.drop == pytest.approx(0.002)
    assert row.drop_error is None


def test_a_twin_has_the_measurement_of_the_one_that_stands_for_it() -> None:
    made = document()
    made["results"][2] |= {"comparison": None, "measured_as": "int8 static"}
    rows = view(made).rows
    assert rows[2].speedup == rows[1].speedup
    assert rows[2].same_as == "int8 static"


def test_points_have_bars_where_their_ends_are_known() -> None:
    points = {p["name"]: p for p in frontier_rows(view(document()))}
    assert set(points) == {"original", "float simplified", "int8 static", HOSTILE}
    fast = points["int8 static"]
    assert fast["x_low"] < fast["x"] < fast["x_high"]
    assert fast["y_low"] < fast["y"] < fast["y_high"]
    assert fast["x"] == pytest.approx(points["original"]["x"] / 2)
    assert points["original"]["y_low"] is None


def test_a_predicted_speedup_is_marked() -> None:
    made = document()
    made["results"][1] |= {"comparison": None, "confirmation": None, "predicted": 1.8}
    row = view(made).rows[1]
    assert row.predicted
    assert any(line.reached == "~1.80x" for line in constraint_lines(view(made)))


def test_a_distribution_keeps_its_extremes_and_is_thinned() -> None:
    samples = [float(x) for x in range(10_000)]
    points = ecdf(samples)
    assert len(points) == ECDF_POINTS
    assert points[0] == (0.0, 1e-4)
    assert points[-1] == (9999.0, 1.0)
    assert ecdf([5.0]) == [(5.0, 1.0)]


@pytest.mark.usefixtures("without_library")
def test_names_stay_text_in_the_page() -> None:
    text = page_module.page(view(document()))
    elements = Elements()
    elements.feed(text)
    assert elements.names.count("script") == 3
    assert elements.names.count("img") == 1  # the one that the page holds itself
    assert elements.handlers == []
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text)
    assert any(p["name"] == HOSTILE for p in json.loads(data)["frontier"]["data"]["values"])


@pytest.mark.usefixtures("without_library")
def test_the_page_loads_nothing_and_runs_its_own_scripts_only() -> None:
    text = page_module.page(view(document()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in unescape(policy[1])
    assert "unsafe" not in policy[1]
    assert (
        re.findall(r"""\b(?:src|href)=["'](?!#|data:image/)""", re.sub(r"&[^;]*;", "", text)) == []
    )


def test_embedded_json_ends_no_script_and_holds_no_nan() -> None:
    text = embedded_json({"a": HOSTILE, "b": [math.nan, math.inf, 1.0]})
    assert "<" not in text
    assert json.loads(text) == {"a": HOSTILE, "b": [None, None, 1.0]}


def test_markdown_shows_names_as_they_are_and_calls_nobody() -> None:
    text = markdown(view(document()))
    assert "<script" not in text.replace("\\<", "")
    assert "| int8 static \\(chosen\\) | 1.1 MB |" in text
    assert "| speed-up | at least 3x | 1.90x \\[1.80, 1.99\\] | broken |" in text
    assert plain("@me #1 a|b\n# c") == "@\u200bme #\u200b1 a\\|b #\u200b c"


def test_a_recipe_with_fences_stays_in_its_block() -> None:
    made = document()
    made["results"][1]["recipe"]["name"] = "````\n<b>out</b>"
    assert "`````yaml" in markdown(view(made))


@pytest.mark.usefixtures("without_library")
def test_the_command_draws_beside_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = saved(tmp_path)
    assert main(["report", str(result)]) == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(result.parent), "--markdown"]) == 0
    assert "### float.onnx" in capsys.readouterr().out
    assert main(["report", str(result), "--markdown", "-o", str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.md").exists()


BROKEN = {
    "absent": (None, "result.json: no such file. Check the path"),
    "no JSON": ("{", "cannot be read as JSON"),
    "no schema": ("{}", "has no schema number"),
    "a list": ("[1]", "has no schema number"),
    "another kind": ('{"schema": 1, "kind": "doctor"}', "not a result of `trimtab optimize`"),
    "an old schema": ('{"schema": 0, "kind": "optimize"}', "has schema 0"),
    "a new schema": ('{"schema": 99, "kind": "optimize"}', "has schema 99"),
    "cut short": ('{"schema": 1, "kind": "optimize", "results": []}', "is damaged"),
    "of wrong types": ('{"schema": 1, "kind": "optimize", "results": [3]}', "is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("markdown_too", [False, True])
@pytest.mark.usefixtures("without_library")
def test_a_file_that_is_not_a_result_gives_one_message(
    name: str, markdown_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    before = sorted(tmp_path.iterdir())
    assert main(["report", str(path), *(["--markdown"] if markdown_too else [])]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("part", ["layers", "errors", "widths", "islands", "lineage"])
@pytest.mark.usefixtures("without_library")
def test_damaged_evidence_gives_one_message(part: str, tmp_path: Path) -> None:
    path = saved(tmp_path, evidence={part: [17]})
    with pytest.raises(DataError, match="is damaged"):
        page_module.page(view(json.loads(path.read_text())))


def test_without_the_extra_the_search_keeps_its_result_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> str:
        raise MissingExtraError("the report's charts need vl-convert-python", extra="report")

    heard = Heard()
    monkeypatch.setattr(page_module, "charting_script", absent)
    assert page_module.write_report(saved(tmp_path), heard) == []
    assert 'pip install "trimtab[report]"' in heard.said[0]
    assert main(["report", str(tmp_path / "result.json")]) == 2
    assert main(["report", str(tmp_path / "result.json"), "--markdown"]) == 0


def test_a_notebook_gets_a_static_summary_with_names_as_text() -> None:
    text = summary(view(document()))
    elements = Elements()
    elements.feed(text)
    assert not {"script", "img", "style", "button", "input"} & set(elements.names)
    assert elements.handlers == []
    assert "<strong>int8 static</strong>" in text
    assert elements.names.count("tr") == 1 + 4 + 1 + 6  # what was asked, and the candidates


def test_the_report_reads_the_schema_that_a_search_writes() -> None:
    assert SCHEMA == result.SCHEMA


@pytest.mark.parametrize(
    ("standing", "low", "text"),
    [
        ("proved", 1.2, "faster"),
        ("proved", 0.8, "-"),
        ("open", 0.9, "not settled"),
        (None, 1.2, "-"),
    ],
)
def test_what_claims_no_speed_is_not_called_faster(
    standing: str | None, low: float, text: str
) -> None:
    assert speed_text(standing, low) == text
