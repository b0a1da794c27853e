"""Reports from committed records: complete, deterministic, valid, escaped, clear on what is missing or broken."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import html5lib
import jsonschema
import pytest

from cornernet.ablations import reporting
from cornernet.ablations.profiles import find_profile
from cornernet.ablations.reporting.__main__ import main
from cornernet.ablations.reporting.figures import FIGURES
from cornernet.ablations.reporting.figures.latency import pareto
from cornernet.ablations.reporting.figures.style import look
from cornernet.ablations.reporting.folder import stale, write_files
from cornernet.ablations.reporting.grid import Cell, Grid, Row
from cornernet.ablations.reporting.report import published_report
from cornernet.ablations.studies import STUDIES
from cornernet.drawing.escapes import latex_escape, markdown_escape
from tests.browser import browser
from tests.unit.published_runs import EVIL, publish_runs

DATA = "we<b>ird & $cells_1$"
NAME = f"standard-{DATA}"
DECLARED = find_profile("standard").planned(photographs=True)[0]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reports, rendered once: three seeds of table 1, and a benchmark."""
    root = tmp_path_factory.mktemp("reports")
    publish_runs(root, DATA)
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "chip.json").write_text(json.dumps(benchmark()))
    assert main(["--reports", str(root)]) == 0
    return root


def benchmark() -> dict[str, Any]:
    rows = [
        {"implementation": name, "mode": mode, "shape": [1, 128, 128, 128], "dtype": "float32", "layout": "contiguous"}
        | {"status": "ok", "reason": None, "ratio": ratio, "ratio_lower": ratio - 0.1, "ratio_upper": ratio + 0.1}
        for name, ratio in (("cpu", 1.25), ("eager", 80.0))
        for mode in ("forward", "both")
    ]
    rows.append({**rows[0], "implementation": "cuda", "status": "unavailable", "reason": "no GPU", "ratio": None})
    common = {"device": "a chip <1>", "threads": 2, "versions": {"torch": "2"}}
    return {
        "datetime": "2026-01-01",
        "common": common,
        "benchmarks": [{"name": "x", "extra_info": row} for row in rows],
    }


# ------------------------------------------------------------------------------------------------------------ contents
def test_a_folder_has_every_kind_of_file(reports) -> None:
    folder = reports / NAME
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {"README.md", "index.html", "results.json"} <= found
    for study in DECLARED:
        assert {f"tables/{study}.{kind}" for kind in ("md", "csv", "tex")} <= found
    for name in ("seeds", "sizes", "iou", "precision-recall", "training"):
        assert f"figures/table1-{name}.svg" in found
    kernels = {path.name for path in (reports / "benchmarks").iterdir()}
    assert kernels == {f"chip.{kind}" for kind in ("json", "svg", "md", "html")}


def test_results_fit_the_schema_and_the_schema_rejects_others(reports) -> None:
    schema = json.loads((Path(reporting.__file__).parent / "results.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    results = json.loads((reports / NAME / "results.json").read_text())
    assert [error.message for error in validator.iter_errors(results)] == []
    assert not validator.is_valid({**results, "surprise": 1})
    results["tables"][0]["claims"][0]["verdict"] = "true"
    assert not validator.is_valid(results)


def test_provenance_names_command_versions_hardware_dates_revision_seeds_data_and_protocol(reports) -> None:
    made = json.loads((reports / NAME / "results.json").read_text())["provenance"]
    assert (made["protocol"], made["seeds"], made["seeds_not_run"]) == (1, [1, 2, 3], [])
    assert (made["first_run"][:10], made["last_run"][:10]) == ("2026-01-01", "2026-01-03")
    assert (made["revisions"], made["processors"], made["versions"]["torch"]) == (["abcdef"], ["a processor"], ["2"])
    assert made["evaluators"] == ["hotcoco"]
    assert made["fingerprints"] == {"train": ["train data"], "val": ["val data"]}
    assert len(made["configs"]) == made["runs"] == 6
    assert made["command"].startswith("python -m ablations --profile standard --studies table1")
    text = (reports / NAME / "README.md").read_text()
    assert "1 (docs/protocol.md)" in text


def test_the_papers_values_are_in_separate_columns(reports) -> None:
    (header, _, first, *_) = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (reports / NAME / "tables" / "table1.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert header[:3] == ["", "AP", "AP, paper"]
    assert (first[0], first[2]) == ("w/o corner pooling", "36.5")


def test_the_overview_links_each_verdict_to_its_table(reports) -> None:
    text = (reports / "README.md").read_text()
    first, present = text.split("## The paper's primary claims, as protocol ")[1:]
    assert first.startswith("1 declares them")
    assert present.startswith("2 declares them")
    columns = [
        [name in part.split("## Folders")[0] for name in ("standard-shapes", "gpu-shapes")] for part in (first, present)
    ]
    assert columns == [[True, False], [False, True]], "a folder's claims are those of its profile's protocol"
    assert "embeddings" in present.split("## All claims")[0], "table 6 is against grouping now"
    row = next(line for line in text.splitlines() if line.startswith("| Table 1 |"))
    assert "**holds here**" in row
    assert row.count("not run") == 2, "the other folders of protocol 1 have no record"
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((reports / unquote(link)).is_file() for link in links if not link.startswith("http"))


# ----------------------------------------------------------------------------------------------- deterministic or stale
def test_the_same_records_give_the_same_bytes_and_the_check_passes(reports, capsys) -> None:
    before = {path: path.read_bytes() for path in reports.rglob("*.*") if path.is_file()}
    assert main(["--reports", str(reports), "--check"]) == 0
    assert "all up to date with the records" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in reports.rglob("*.*") if path.is_file()} == before
    svg = (reports / NAME / "figures" / "table1-seeds.svg").read_text()
    assert ">w/ corner pooling<" in svg, "text stays text"
    assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", svg)


def test_the_check_names_stale_files_and_writes_nothing(reports, tmp_path, capsys) -> None:
    shutil.copytree(reports / "benchmarks", tmp_path / "benchmarks")
    assert main(["--reports", str(tmp_path)]) == 0
    (tmp_path / "README.md").write_text("by hand")
    (tmp_path / "benchmarks" / "chip.md").unlink()
    capsys.readouterr()
    assert main(["--reports", str(tmp_path), "--check"]) == 1
    told = capsys.readouterr().err
    assert "README.md is stale: the records give other content" in told
    assert "chip.md is stale" in told
    assert "2 stale files; rebuild with: nox -s report" in told
    assert (tmp_path / "README.md").read_text() == "by hand"


def test_files_no_longer_generated_are_stale_and_removed(tmp_path) -> None:
    write_files(tmp_path, {"README.md": b"a", "figures/x.svg": b"x", "figures/y.svg": b"y"})
    assert stale(tmp_path, {"README.md": b"b", "figures/x.svg": b"x"}) == ["README.md", "figures/y.svg"]
    write_files(tmp_path, {"README.md": b"b", "figures/x.svg": b"x"})
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["x.svg"]


def test_the_curves_of_records_are_stored_once(reports) -> None:
    results = json.loads((reports / NAME / "results.json").read_text())
    page = (reports / NAME / "index.html").read_text()
    for figure in results["figures"]:
        curves = figure["name"].endswith(("-training", "-precision-recall"))
        assert figure["in_records"] == (curves and figure["drawn"])
        assert (figure["rows"] == []) == (curves or not figure["drawn"])
        assert (f"Data of the figure {figure['name']}<" in page) == bool(figure["rows"])


def test_png_files_of_figures_that_an_earlier_version_committed_are_removed(reports, tmp_path) -> None:
    folder = tmp_path / "reports" / NAME
    shutil.copytree(reports, tmp_path / "reports")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    old = folder / "figures" / "table1-seeds.png"
    old.write_bytes(b"as committed")
    assert stale(folder, files) == ["figures/table1-seeds.png"]
    assert write_files(folder, files, overwrite=True) == []
    assert not old.exists()


def test_a_broken_record_is_named_and_skipped(reports, tmp_path, capsys) -> None:
    root = tmp_path / "reports"
    shutil.copytree(reports / "records", root / "records")
    damaged, odd, *_ = sorted((root / "records" / NAME).glob("*.json"))
    damaged.write_text("{")
    tree = json.loads(odd.read_text())
    tree["resamples"]["packed"] = "?"
    odd.write_text(json.dumps(tree))
    report = published_report(root / "records" / NAME)
    assert [line.partition(":")[0] for line in report.broken] == [damaged.name, odd.name]
    keys = {record.evaluation_key for record in report.records.values() if record is not None}
    assert len(keys) == 4
    assert str(tmp_path) not in "".join(report.broken), "the same on every machine"


# ------------------------------------------------------------------------------------------------------ what is missing
def test_a_row_that_did_not_run_says_so(reports) -> None:
    text = (reports / NAME / "tables" / "table2.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| fixed radius"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["not run", "35.6"]


def test_a_variant_that_the_machine_cannot_run_is_not_measured_and_the_note_says_why(tmp_path) -> None:
    publish_runs(tmp_path, "shapes", ("pooling_implementations",), (1,), without=("cuda", "triton"))
    report = published_report(tmp_path / "records" / "standard-shapes")
    text = next(table for table in report.tables if table.study.name == "pooling_implementations").to_markdown()
    assert "cuda: not measured on this machine, it serves cuda, and the runs were made on cpu" in text
    row = next(line for line in text.splitlines() if line.startswith("| triton"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["not measured", "not measured"]
    assert report.absent_seeds == (2, 3, 4, 5)


def test_records_without_curves_are_read_and_shown_as_not_recorded(tmp_path) -> None:
    publish_runs(tmp_path, "old", old=True, seeds=(1,))
    report = published_report(tmp_path / "records" / "standard-old")
    (table, *_) = report.tables
    assert "Objects evaluated on: not recorded." in table.notes()
    drawn = {name: function(table, report.records) for name, function in FIGURES.items()}
    for name in ("precision-recall", "training"):
        figure = drawn[name]
        assert figure is not None
        assert (figure.svg, figure.missing) == (None, "not recorded")
    iou = drawn["iou"]
    assert iou is not None
    assert iou.svg is not None, "AP50 to AP90 are among the metrics"
    assert list(iou.data["IoU"].unique()) == [0.5, 0.6, 0.7, 0.75, 0.8, 0.9]


def test_a_folder_without_records_says_so_and_an_unknown_profile_is_left_out(tmp_path, capsys) -> None:
    for name in ("standard-shapes", "nonsense-shapes"):
        (tmp_path / "records" / name).mkdir(parents=True)
    assert main(["--reports", str(tmp_path)]) == 0
    assert "records/nonsense-shapes is left out: there is no profile 'nonsense'" in capsys.readouterr().err
    assert "No run of this profile on shapes has a record." in (tmp_path / "standard-shapes" / "README.md").read_text()
    assert not (tmp_path / "nonsense-shapes").exists()
    assert "records/nonsense-shapes is left out" in (tmp_path / "README.md").read_text()


def test_no_folder_of_reports_is_an_error_with_the_fix(tmp_path, capsys) -> None:
    assert main(["--reports", str(tmp_path / "none")]) == 2
    assert "run this from the root of the repository" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- escaping
def test_names_from_data_start_no_markup(reports) -> None:
    folder = reports / NAME
    page = (folder / "index.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == 1
    assert "<b>ird" not in page
    for path in [*folder.rglob("*.md"), reports / "README.md"]:
        # in a code span nothing is markup
        assert "<b>ird" not in re.sub(r"`[^`\n]*`", "", path.read_text())
    for path in folder.rglob("*.tex"):
        assert not re.search(r"(?<!\\)\$cells", path.read_text())


@pytest.mark.parametrize(
    "evil", ["\\input{secret}", "a & b", "50%", "$x$", "x_1", "#1", "~^", "a\\\\b", "\n\n\\end{table}"]
)
def test_no_text_starts_a_latex_command(evil) -> None:
    text = latex_escape(evil)
    for known in (r"\textbackslash{}", r"\textasciicircum{}", r"\textasciitilde{}"):
        text = text.replace(known, "")
    text = re.sub(r"\\[{}$&#%_]", "", text)
    assert not re.search(r"[\\{}$&#%_^~\n]", text)
    table = Grid((evil,), (Row(evil, "variant", (Cell(evil, strong=True),)),)).to_latex(evil, evil)
    assert table.count(r"\end{table}") == 1
    assert r"\input" not in table


def test_a_pipe_a_tag_or_a_link_in_a_name_does_not_break_a_markdown_table() -> None:
    evil = "a|b<img src=x>[c](d) `e` *f*"
    (row,) = list(Grid(("x",), (Row(evil, "variant", (Cell("1"),)),)).to_markdown().splitlines())[2:]
    assert row.count("|") == 3
    assert "<img" not in row
    assert "](" not in row
    assert markdown_escape("<0.001 at 95% [+1.0, +2.0]") == "<0.001 at 95% [+1.0, +2.0]"


# -------------------------------------------------------------------------------------------------------------- figures
def test_variants_of_a_study_differ_in_colour_or_marker_and_keep_them_in_every_figure() -> None:
    for study in STUDIES.values():
        looks = [look(variant.name) for variant in study.variants]
        assert len(set(looks)) == len(looks)
    assert look("w/ corner pooling") == look("w/ corner pooling", ["something else"])


def test_no_point_beats_one_of_the_pareto_front_in_both_values() -> None:
    assert pareto([1, 2, 3, 2], [10, 20, 15, 20]) == [True, True, False, True]
    assert pareto([1, 1], [5, 6]) == [False, True]


# --------------------------------------------------------------------------------------------------------------- pages
def pages(reports: Path) -> list[Path]:
    return [reports / NAME / "index.html", reports / "benchmarks" / "chip.html"]


def test_pages_are_valid_html_and_reference_no_other_file_or_host(reports) -> None:
    for path in pages(reports):
        text = path.read_text()
        html5lib.HTMLParser(strict=True).parse(text)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        assert not re.search(r'(?:src|href)="(?!#|data:)', text)
        drawings = re.findall(r"<(?:svg|img)\b[^>]*>", text)
        assert drawings
        assert all(re.search(r'(?:aria-label|alt)="[^"]{20,}', tag) for tag in drawings)


@pytest.mark.slow
def test_pages_work_in_a_browser_on_a_phone(reports) -> None:
    with browser() as page:
        for path in pages(reports):
            page.open(path, 390)
            assert page.run("document.documentElement.scrollWidth") <= 390
            cell = "row.cells[1].dataset.sort || row.cells[1].textContent"
            names = f"[...document.querySelector('tbody').rows].map(row => {cell})"
            before = page.run(names)
            page.run("document.querySelectorAll('thead button')[1].click()")
            falling = page.run(names)
            page.run("document.querySelectorAll('thead button')[1].click()")
            rising = page.run(names)
            assert sorted(before) == sorted(falling) == sorted(rising)
            assert rising != falling
            page.run("document.querySelectorAll('thead button')[1].click()")
            assert page.run(names) == before
        page.open(pages(reports)[0], 1280, dark=True)
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
        page.run("filter.value = 'table1'; filter.dispatchEvent(new Event('change'))")
        shown = "[...document.querySelectorAll('[data-study]')].filter(e => e.offsetHeight).map(e => e.id)"
        assert page.run(shown) == ["table1"]
        page.run("filter.value = ''; filter.dispatchEvent(new Event('change'))")
        assert page.run(shown) == list(DECLARED)
        assert page.problems == []


def test_a_record_of_different_data_or_resamples_does_not_hide_the_rest(tmp_path) -> None:
    paths = publish_runs(tmp_path, "shapes")
    whole = {name: r.evaluation_key for name, r in published_report(paths[0].parent).records.items() if r}
    others = {name for name, key in whole.items() if key != paths[-1].stem}
    assert others
    for part, name in (("data", "val"), ("resamples", "fingerprint")):
        content = paths[-1].read_text()
        record = json.loads(content)
        record["resamples"]["fingerprint"] = record["data"]["val"]
        record[part][name] = "other"
        paths[-1].write_text(json.dumps(record))
        report = published_report(paths[-1].parent)
        ran = {name for name, record in report.records.items() if record is not None}
        assert ran == (others if part == "resamples" else set(whole))
        assert ("its resamples are not those of the other records" in " ".join(report.broken)) == (part == "resamples")
        paths[-1].write_text(content)
