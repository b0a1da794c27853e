"""The boxes that a detector reports for one photograph."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cornernet.console import count, named, printable
from cornernet.data.images import DataError, read_image
from cornernet.drawing.boxes import draw_boxes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Detections"]


def _column(name: str, values: ArrayLike, dtype: type, width: int | None) -> NDArray[Any]:
    """Return ``values`` as a read-only array [N] or [N, width] of ``dtype``, or raise ``ValueError``."""
    array = np.array(values)
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape((0,) if width is None else (0, width))
    shape = "[N]" if width is None else f"[N, {width}]"
    if array.ndim != (1 if width is None else 2) or (width is not None and array.shape[1] != width):
        raise ValueError(f"Detections.{name} must be {shape}, not {list(array.shape)}")
    result: NDArray[Any] = array.astype(dtype)
    if dtype is np.int64 and not np.array_equal(result, array):
        raise ValueError(f"Detections.{name} must be whole numbers")
    result.flags.writeable = False
    return result


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The boxes of one photograph, best first.

    * ``boxes`` [N, 4] float32: x1 y1 x2 y2 in pixels of the original photograph, whose top-left corner is (0, 0).
    * ``scores`` [N] float32.
    * ``labels`` [N] int64: indices into ``classes``.
    * ``classes``: the names of the classes.
    * ``category_ids``: the data set's numbers of the classes (COCO's have gaps).
    * ``image_id``: the data set's number or name of the photograph.
    * ``size``: the photograph's (height, width).

    The arrays are copied and read-only. Raises ``ValueError`` for shapes that do not fit together, for a label outside
    ``classes`` or ``category_ids``, and for labels that are not whole numbers.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    image_id: int | str | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, dtype, width in (("boxes", np.float32, 4), ("scores", np.float32, None), ("labels", np.int64, None)):
            object.__setattr__(self, name, _column(name, getattr(self, name), dtype, width))
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            raise ValueError(
                f"Detections must have equal numbers of boxes ({len(self.boxes)}), scores ({len(self.scores)}) "
                f"and labels ({len(self.labels)})"
            )
        for name, kind in (("classes", "name"), ("category_ids", "category id")):
            known = getattr(self, name)
            if known is None:
                continue
            object.__setattr__(self, name, tuple(known))
            outside = self.labels[(self.labels < 0) | (self.labels >= len(known))]
            if len(outside):
                entries = count(len(known), "entry", "entries")
                raise ValueError(f"label {outside[0]} has no {kind}: Detections.{name} has {entries}")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        photograph = [] if self.image_id is None else [f"image {self.image_id!r}"]
        if self.size is not None:
            photograph.append(f"{self.size[1]}x{self.size[0]} pixels")
        shown = 5
        best = np.argsort(-self.scores, kind="stable")
        counted = count(len(self), "box", "boxes") if len(self) else "no box"
        lines = [f"Detections: {', '.join([counted, *photograph])}"]
        for i in best[:shown]:
            x1, y1, x2, y2 = (f"{value:.1f}" for value in self.boxes[i])
            lines.append(
                f"  {self.scores[i]:.3f}  {named(self.name_of(int(self.labels[i])))}  ({x1}, {y1}) to ({x2}, {y2})"
            )
        if len(self) > shown:
            lines.append(f"  ... and {len(self) - shown} more, down to {self.scores[best[-1]]:.3f}")
        return "\n".join(lines)

    def name_of(self, label: int) -> str:
        """Return the name of a class, or for example 'class 3' if the names are unknown."""
        return f"class {label}" if self.classes is None else self.classes[label]

    def category_of(self, label: int) -> int:
        """Return the data set's number of a class; if it is unknown, label + 1, as the authors count."""
        return label + 1 if self.category_ids is None else self.category_ids[label]

    def filter(self, min_score: float) -> Detections:
        """Return the boxes with a score of at least ``min_score``, in the same order."""
        kept = self.scores >= min_score
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    def with_area(self) -> Detections:
        """Return the boxes that have an area and are no longer than the photograph, in the same order.

        The test path reports others too: a pair of corners in one row or column makes a box without area, which counts
        in the authors' evaluation but is of no use to anybody. A side of less than a hundredth of a pixel counts as
        none, because that is the precision of ``detections.csv``.
        """
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        kept = (sides >= 0.01).all(1)
        if self.size is not None:
            kept &= (sides <= (self.size[1], self.size[0])).all(1)
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    def to_coco(self, image_id: int | str | None = None, decimals: int | None = None) -> list[dict[str, Any]]:
        """Return COCO result dicts: image_id, category_id, bbox [x, y, width, height] and score.

        ``image_id`` defaults to the detections' own. Raises ``ValueError`` if neither is given. Numbers have full
        precision by default. ``decimals=2`` rounds them as in the authors' result files, which costs a little AP.
        """
        image_id = self.image_id if image_id is None else image_id
        if image_id is None:
            raise ValueError("these Detections have no image_id; give one: to_coco(image_id=...)")
        boxes = self.boxes.copy()
        boxes[:, 2:] -= boxes[:, :2]

        def number(value: np.float32) -> float:
            return float(value) if decimals is None else round(float(value), decimals)

        return [
            {
                "image_id": image_id,
                "category_id": self.category_of(int(label)),
                "bbox": [number(value) for value in box],
                "score": number(score),
            }
            for box, score, label in zip(boxes, self.scores, self.labels, strict=True)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame with one row per box: image_id (if known), x1, y1, x2, y2, score, label, class."""
        import pandas as pd

        columns: dict[str, Any] = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        columns |= {"score": self.scores, "label": self.labels}
        columns["class"] = pd.Series([self.name_of(int(label)) for label in self.labels], dtype="str")
        frame = pd.DataFrame(columns)
        if self.image_id is not None:
            frame.insert(0, "image_id", self.image_id)
        return frame

    def to_supervision(self) -> Any:
        """Return these boxes as ``supervision.Detections``, with class names in ``data["class_name"]``.

        Raises ``ImportError`` that names the extra to install if ``supervision`` is missing.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("supervision is not installed: pip install cornernet-lab[supervision]") from error
        names = np.array([self.name_of(int(label)) for label in self.labels], dtype=np.str_)
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": names},
        )

    def _photograph(self) -> NDArray[np.uint8] | None:
        """Return the photograph if ``image_id`` is the path of a readable image, else None."""
        if not isinstance(self.image_id, str):
            return None
        try:
            return read_image(Path(self.image_id), self.size)
        except DataError:
            return None

    def _repr_png_(self) -> bytes | None:
        """Return what a notebook shows: the photograph with boxes scoring at least 0.3; None if it cannot be read."""
        image = self._photograph()
        if image is None:
            return None
        return bytes(cv2.imencode(".png", self.filter(0.3).plot(image))[1])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the photograph with its boxes, if it can be read, and the ten best boxes."""
        head, *_ = repr(self).split("\n", 1)
        parts = [f"<p>{html.escape(head)}</p>"]
        picture = self._repr_png_()
        if picture is not None:
            data = base64.b64encode(picture).decode()
            parts.append(
                f'<img style="max-width:100%" alt="the photograph with its boxes" src="data:image/png;base64,{data}"/>'
            )
        rows = []
        for i in np.argsort(-self.scores, kind="stable")[:10]:
            cells = [html.escape(printable(self.name_of(int(self.labels[i])))), f"{self.scores[i]:.3f}"]
            cells += [f"{value:.1f}" for value in self.boxes[i]]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        if rows:
            titles = "".join(f"<th>{name}</th>" for name in ("class", "score", "x1", "y1", "x2", "y2"))
            parts.append(f"<table><tr>{titles}</tr>{''.join(rows)}</table>")
        if len(self) > 10:
            parts.append(f"<p>and {len(self) - 10} more</p>")
        return "".join(parts)

    def plot(
        self, image: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]] | None = None
    ) -> NDArray[np.uint8]:
        """Return a copy of the photograph with the boxes drawn on it, the best on top: ``filter(0.3).plot(image)``.

        ``image`` is the original, uint8 [H, W, 3] BGR, and so is the result. A small picture is enlarged by a whole
        factor so that names are readable. ``colours`` are BGR, indexed by label, and default to the project's palette.
        Raises ``ValueError`` if the array is not such a picture or its size is not ``size``.
        """
        if self.size is not None and tuple(image.shape[:2]) != tuple(self.size):
            raise ValueError(
                f"the boxes belong to a photograph of {self.size[1]}x{self.size[0]}; "
                f"this one is {image.shape[1]}x{image.shape[0]}"
            )
        return draw_boxes(image, self.boxes, self.labels, self.scores, self.classes, colours=colours)
