"""The size that an image file states in its header, read before anything is decoded.

A file of some kilobytes may state a picture of gigabytes. Sizes are read of the kinds that photographs come in: PNG,
JPEG, BMP, GIF, TIFF and BigTIFF, WebP, and the PNM family.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

__all__ = ["StatedSize", "stated_size"]


class StatedSize(NamedTuple):
    """A picture's sides in pixels, as stored: orientation in EXIF may exchange them."""

    height: int
    width: int


_HEADER = 4096
_SEGMENTS = 10_000
"""Of a JPEG file before its frame; a photograph has a dozen."""
_FILL = re.compile(rb"\xff+")
_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})")
_PAM = re.compile(rb"(WIDTH|HEIGHT)\s+(\d{1,10})")


def stated_size(content: bytes) -> StatedSize | None:
    """Return the size that an image file's ``content`` states, or None where its kind or its header is unknown."""
    try:
        return _stated(content)
    except (struct.error, IndexError):
        # cut short: the decoder says so
        return None


def _stated(content: bytes) -> StatedSize | None:
    start = content[:16]
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", content, 16)
    elif start.startswith(b"\xff\xd8"):
        return _jpeg(content)
    elif start.startswith(b"BM"):
        (header,) = struct.unpack_from("<I", content, 14)
        width, height = struct.unpack_from("<HH" if header == 12 else "<ii", content, 18)
    elif start.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", content, 6)
    elif start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff(content)
    elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(content)
    elif (found := _PNM.match(content[:_HEADER])) is not None:
        width, height = map(int, found.groups())
    elif start.startswith(b"P7"):
        sides = dict(_PAM.findall(content[:_HEADER]))
        width, height = int(sides.get(b"WIDTH", 0)), int(sides.get(b"HEIGHT", 0))
    else:
        return None
    return StatedSize(abs(height), abs(width))


def _jpeg(content: bytes) -> StatedSize | None:
    """The size in the frame's header, which follows segments that each state their length."""
    at = 2
    for _ in range(_SEGMENTS):
        at = content.find(b"\xff", at)
        filled = _FILL.match(content, at) if at >= 0 else None
        if filled is None:
            return None
        at = filled.end()
        marker = content[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return StatedSize(*struct.unpack_from(">HH", content, at + 3))
        at += max(2, struct.unpack_from(">H", content, at)[0])
    return None


def _tiff(content: bytes) -> StatedSize | None:
    """The tags ImageLength and ImageWidth of the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    large = content[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if large else "I"), content, 8 if large else 4)
    (count,) = struct.unpack_from(order + ("Q" if large else "H"), content, at)
    at += 8 if large else 2
    step, value = (20, 12) if large else (12, 8)
    sides: dict[int, int] = {}
    for entry in range(at, at + min(count, 4096) * step, step):
        tag, kind = struct.unpack_from(order + "HH", content, entry)
        if tag in (256, 257) and kind in _TIFF_KINDS:
            (sides[tag],) = struct.unpack_from(order + _TIFF_KINDS[kind], content, entry + value)
        if tag > 257:
            break
    return StatedSize(sides[257], sides[256]) if len(sides) == 2 else None


_TIFF_KINDS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _webp(content: bytes) -> StatedSize | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return None
    return StatedSize(height, width)
