from __future__ import annotations

import pytest

from cornernet.console import count, printable


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (1, "image", None, "1 image"),
        (0, "image", None, "0 images"),
        (2, "image", None, "2 images"),
        (1, "box", "boxes", "1 box"),
        (12_000, "box", "boxes", "12000 boxes"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number: int, noun: str, plural: str | None, text: str) -> None:
    assert count(number, noun, plural) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("wire loop", "wire loop"),
        ("貓, Größe, می‌خواهم", "貓, Größe, می‌خواهم"),
        ("a\nsplit val: 9 images", "a\\nsplit val: 9 images"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("cat\u202etac", "cat\\u202etac"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("narrow\u00a0space", "narrow\u00a0space"),
    ],
)
def test_a_name_is_printed_as_one_line_that_no_terminal_obeys(name: str, shown: str) -> None:
    assert printable(name) == shown
