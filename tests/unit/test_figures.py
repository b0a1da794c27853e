"""Figures as SVG: short coordinates, whole text, the same bytes each time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from matplotlib.figure import Figure

from cornernet.drawing.figures import rendered, styled, subplots

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> Figure:
    figure, (axis,) = subplots(1, 1, (4, 3))
    axis.plot([0, 1 / 3, 2], [1 / 7, 0.5, 2.0], marker="o", label="a line of 0.123456")
    axis.set(title="1.000001 of 3.14159", xlabel="x")
    axis.legend()
    return figure


def test_coordinates_are_short_and_text_is_whole() -> None:
    with styled():
        svg = rendered(drawn()).decode()
    root = ET.fromstring(svg)
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"1.000001 of 3.14159", "a line of 0.123456"} <= texts
    places = [each.get(name, "") for each in root.iter() for name in ("d", "x", "y", "transform")]
    assert sum(map(len, places)) > 1000
    assert [place for place in places if re.search(r"\.\d{3}", place)] == []
    assert "metadata" not in svg


def test_the_line_is_where_it_was_drawn_and_within_the_picture() -> None:
    with styled():
        figure = drawn()
        root = ET.fromstring(rendered(figure))
    axis = figure.axes[0]
    # pixels at the figure's resolution, from below; the SVG has points, from above
    pixels = axis.transData.transform(list(zip([0, 1 / 3, 2], [1 / 7, 0.5, 2.0], strict=True)))
    points = [(x * 72 / figure.dpi, (3 - y / figure.dpi) * 72) for x, y in pixels]
    paths = [re.findall(r"-?[\d.]+", path.get("d", "")) for path in root.iter(f"{SVG}path")]
    lines = [list(map(float, path)) for path in paths if len(path) == 6]
    wanted = [value for point in points for value in point]
    assert any(max(abs(a - b) for a, b in zip(line, wanted, strict=True)) < 0.02 for line in lines)


def test_the_same_figure_gives_the_same_bytes() -> None:
    with styled():
        assert rendered(drawn()) == rendered(drawn())
