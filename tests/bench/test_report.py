"""Results read back, drawn, reported and compared."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
from rich.console import Console

from bench import cli, compare, plots, report
from bench.compare import Pair
from bench.progress import Told
from bench.results import (
    Curve,
    Figure,
    Metric,
    Point,
    Results,
    Sample,
    Summary,
    in_words,
    load,
)

RATE = Metric("kv", "SET <fast>", "requests/s", at_least=15_000)
GAP = Metric("failover", "gap", "s", at_most=1.0)
FIGURE = Figure("kv", "value size, 16 clients", "bytes", "requests/s", x_log=True)
CURVE = Curve(FIGURE, "SET", [(16, [5.0, 7.0]), (1 << 20, [2.0, 3.0])])
RESULTS = Results([Summary(RATE, [16_000, 20_000]), Summary(GAP, [2.0])], [CURVE], {"cores": 2})
PNG = b"\x89PNG\r\n\x1a\n"


def written(file: Path, results: Results) -> Path:
    everything: list[Summary | Curve] = [*results.summaries, *results.curves]
    file.write_text("".join(f"{one.as_json(results.environment)}\n" for one in everything))
    return file


def test_results_are_read_back_from_a_file_and_its_directory(tmp_path: Path) -> None:
    file = written(tmp_path / "results.jsonl", RESULTS)
    assert load(file) == load(tmp_path) == RESULTS


def test_lines_of_several_runs_are_brought_together(tmp_path: Path) -> None:
    file = written(tmp_path / "lines", RESULTS)
    file.write_text(file.read_text() * 2)
    twice = load(file)
    assert twice.summaries[0].runs == [16_000, 20_000] * 2
    assert twice.curves[0].points == [(16, [5.0, 7.0] * 2), (1 << 20, [2.0, 3.0] * 2)]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"environment": {}, "runs": [1]}'])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lines"
    file.write_text(text)
    with pytest.raises(ValueError, match="line 1 is no result"):
        load(file)


@pytest.mark.parametrize(("x", "text"), [(1 << 20, "1,048,576"), (0.1, "0.1"), (16.0, "16")])
def test_places_on_an_axis_are_told_in_full(x: float, text: str) -> None:
    assert in_words(x) == text


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install '.[bench]'")
    path = report.write(RESULTS, tmp_path)
    png = (tmp_path / "kv-value-size-16-clients.png").read_bytes()
    assert png.startswith(PNG)
    inside = re.findall(r'src="data:image/png;base64,([^"]+)"', path.read_text())
    assert [b64decode(one) for one in inside] == [png]
    other = FIGURE._replace(y_log=True)
    assert plots.draw(other, [CURVE, CURVE._replace(series="GET", points=[(4, [1.0])])]) != png


def test_the_report_needs_nothing_else_and_hides_nothing() -> None:
    text = report.html(RESULTS, {})
    assert "SET &lt;fast&gt;" in text
    assert '<td class="met">met</td>' in text
    assert '<td class="MISSED">MISSED</td>' in text
    assert "at least 15,000" in text
    assert "1,048,576" in text, "numbers of a figure that is not drawn"
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "<td>cores</td><td>2</td>" in text


def test_without_matplotlib_there_is_a_report_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    written(tmp_path / "results.jsonl", RESULTS)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.jsonl"]
    assert "pip install 'matplotlib" in capsys.readouterr().out


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Results(
        [Summary(RATE, [40_000, 32_000]), Summary(Metric("idle", "cost", "%"), [1.0])],
        [Curve(FIGURE, "SET", [(16, [6.0, 8.0])])],
        {"cores": 4},
    )
    a, b = written(tmp_path / "a", RESULTS), written(tmp_path / "b", other)
    assert cli.main(["compare", str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "WARNING: cores of A is 2, of B 4"
    assert lines[2].endswith("18,000 (16,000 to 20,000)  36,000 (32,000 to 40,000)     2  apart")
    assert "value size, 16 clients: SET at 16 bytes" in lines[3]
    assert lines[3].endswith("1.17")
    assert lines[4].startswith("only in A: failover: gap, kv: value size")
    assert lines[5] == "only in B: idle: cost"


def test_nothing_in_common(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", Results([Summary(RATE, [1])], [], {}))
    b = written(tmp_path / "b", Results([Summary(GAP, [1])], [], {}))
    assert cli.main(["compare", str(a), str(b)]) == 2
    assert cli.main(["compare", str(a), str(tmp_path / "nowhere")]) == 1
    assert "no metric in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("a", "b", "ratio", "apart"),
    [
        ([1, 2], [4, 6], 5 / 1.5, True),
        ([4, 6], [1, 2], 1.5 / 5, True),
        ([1, 4], [4, 6], 2.0, False),
        ([1], [5], 5.0, False),
        ([0, 0], [1, 1], None, True),
    ],
)
def test_pairs(a: list[float], b: list[float], ratio: float | None, apart: bool) -> None:
    pair = Pair(Summary(GAP, a), Summary(GAP, b))
    assert pair.ratio == ratio
    assert pair.apart is apart
    assert (compare.APART in compare.table([pair])) is apart


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_told_on_the_way(terminal: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    with Told(2, console) as told:
        told.begin("kv", 2)
        told.tell(Sample(RATE, 16_000))
        told.tell(Point(FIGURE, "SET", 16, 5.0))
        told.begin("failover", 3)
        told.tell(Sample(GAP, 0.5))
        told.tell(Sample(GAP, 0.25))
    text = screen.getvalue()
    assert "kv: SET <fast>: 16,000 requests/s\n" in text
    assert "kv: value size, 16 clients: SET: 5 requests/s at 16 bytes\n" in text
    assert ("failover, 2 of 2, run 2 of 3" in text) is terminal
    if not terminal:
        assert text.count("\n") == 4


def test_lines_are_json(tmp_path: Path) -> None:
    for line in written(tmp_path / "lines", RESULTS).read_text().splitlines():
        assert json.loads(line)["environment"] == {"cores": 2}
