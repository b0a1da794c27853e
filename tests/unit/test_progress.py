from __future__ import annotations

import pytest

from cornernet.progress import count


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
