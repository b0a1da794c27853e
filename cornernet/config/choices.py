"""The values of flags that no field of the configuration holds: here, help needs nothing that computes."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["DEFAULT_BACKEND", "PICKLED", "Backend", "BoxConvention", "ExportFormat", "Points", "Split", "Treatment"]

Split: TypeAlias = Literal["train", "val", "test"]
"""A split of a data set."""

Backend: TypeAlias = Literal["hotcoco", "pycocotools"]
"""Who evaluates: hotcoco, or pycocotools, which is COCO's own and defines what is right. Both give the same digits."""
DEFAULT_BACKEND: Backend = "hotcoco"
"""Equal to pycocotools to the digit on random sets (tests/unit/test_evaluators.py), and several times as fast."""

ExportFormat: TypeAlias = Literal["onnx", "export", "inductor"]
"""What a detector can be exported as."""

Treatment: TypeAlias = Literal["keep", "ignore", "drop"]
"""What happens to a flagged object of Pascal VOC: used like any other; written as a crowd, which neither training nor
evaluation counts; or dropped."""

BoxConvention: TypeAlias = Literal["one-based", "edges"]
"""What the numbers of a box of Pascal VOC are: pixels counted from 1, or edges."""

Points: TypeAlias = Literal["auto", "polygon", "keypoints"]
"""What more than four numbers after the class are in a YOLO file."""

PICKLED = (".pkl", ".pth", ".pt", ".bin")
"""The endings of pickled weights, those of other projects."""
