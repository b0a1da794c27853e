"""From an image file to pixels: uint8 [H, W, 3] in the order B, G, R, whatever the file contains.

Greyscale and palette images get three channels, CMYK is converted, 16 bits become 8, and alpha is dropped (the colour
stored under it is kept). EXIF orientation: the size in the annotations decides. If the image turned upright by its EXIF
tag has that size, it is turned, as annotation tools and browsers show it. If only the image as stored has that size, it
is left as stored. If both have it (square and mirrored images), the tag is applied.

Files are not trusted. A file of more than :data:`LARGEST_FILE` bytes, or one whose header states more than
:data:`MOST_PIXELS` pixels, is refused before it is decoded, and so is anything that is not a file (a device, a pipe).
"""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cornernet.config import Size
from cornernet.console import PrintableError
from cornernet.files import read_regular

__all__ = ["LARGEST_FILE", "MOST_PIXELS", "DataError", "decode", "image_size", "read_image", "stated_size"]

LARGEST_FILE = 2**30
"""Bytes of an image file."""
MOST_PIXELS = 2**28
"""Pixels of an image, 16384 x 16384; decoded, they take 768 MiB. Pillow's own limit for WebP is lower, 179 million.
Formats that are not in ``_HEADERS`` (JPEG 2000, AVIF, OpenEXR, PAM and others) have OpenCV's limit, 2**30."""

# The classes are called, not Image.open: that applies its own limit, below MOST_PIXELS, which is a global setting
_HEADERS: tuple[tuple[bytes | tuple[bytes, ...], type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8", JpegImageFile),
    (b"BM", BmpImageFile),
    ((b"GIF87a", b"GIF89a"), GifImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
    (b"RIFF", WebPImageFile),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImageFile),
)
"""How a file of each format begins, and Pillow's reader, which reads no more than the header until it is asked to."""
_WARNINGS = threading.Lock()
"""Held while warnings are turned off, which concerns the whole process."""


class DataError(PrintableError, ValueError):
    """Data that cannot be used. The message names the file, what is wrong in it, and the fix."""


def stated_size(content: bytes) -> Size | None:
    """Return the (height, width) stated in an image file's header, before EXIF orientation; nothing is decoded.

    Returns None for a format that is not in ``_HEADERS``. Raises ``ValueError`` where the header is damaged or
    incomplete, and ``DecompressionBombError`` for a WebP file above Pillow's limit.
    """
    reader = next((reader for start, reader in _HEADERS if content.startswith(start)), None)
    if reader is None:
        return None
    try:
        # Pillow warns about tags that are of no interest here
        with _WARNINGS, warnings.catch_warnings(action="ignore"), reader(io.BytesIO(content)) as image:
            return image.height, image.width
    except DecompressionBombError:
        raise
    except Exception as error:  # Pillow documents no complete list of what damaged headers raise
        raise ValueError(f"its header cannot be read: {error}") from error


def decode(content: bytes, ignore_orientation: bool = False) -> NDArray[np.uint8] | None:
    """Return the image in a file's ``content`` as uint8 [H, W, 3] BGR, or None where it cannot be decoded."""
    if not content:
        return None
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # raised for some damaged headers; others give None
        return None
    return None if image is None else np.asarray(image, np.uint8)


def read_image(path: Path, size: Size | None = None) -> NDArray[np.uint8]:
    """Return the image at ``path`` as uint8 [H, W, 3] BGR.

    ``size`` is the (height, width) in the annotations; it decides about EXIF orientation (see above). Raises
    :class:`DataError` where the file is missing, too large, damaged, of an unknown format, or of another size.
    """
    content = _content(path)
    image = decode(content) if _may_be_decoded(path, content) else None
    if image is None:
        raise DataError(
            f"cannot read the image {path}: it is damaged, incomplete or of an unknown format; restore or convert it, "
            "or remove it from the annotations"
        )
    if size is None or image.shape[:2] == size:
        return image
    stored = decode(content, ignore_orientation=True)
    if stored is not None and stored.shape[:2] == size:
        return stored
    raise DataError(
        f"the image {path} is {image.shape[1]}x{image.shape[0]} pixels (width x height), but the annotations say "
        f"{size[1]}x{size[0]}; correct its 'width' and 'height', or restore the file"
    )


def image_size(path: Path, stated: Size | None = None) -> Size:
    """Return the (height, width) of the image at ``path``: upright, or as stored if that is ``stated``.

    ``stated`` is what an annotation file says. It is only confirmed or not: another size is never returned for it. An
    image whose header confirms it is not decoded. Raises :class:`DataError` as :func:`read_image` does.
    """
    if stated is not None:
        content = _content(path)
        if _may_be_decoded(path, content) and stated_size(content) == stated:
            return stated
    height, width = read_image(path).shape[:2]
    return height, width


def _may_be_decoded(path: Path, content: bytes) -> bool:
    """Return False where the header is damaged. Raises ``DataError`` where it states too many pixels."""
    fix = "shrink it, cut it into tiles, or remove it from the annotations"
    try:
        stated = stated_size(content)
    except DecompressionBombError as error:
        raise DataError(f"the image {path} is too large: {error}; {fix}") from error
    except ValueError:
        return False
    if stated is not None and stated[0] * stated[1] > MOST_PIXELS:
        raise DataError(
            f"the image {path} states {stated[1]}x{stated[0]} pixels, and the limit is {MOST_PIXELS:,}: {fix}"
        )
    return True


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise DataError(
            f"cannot read the image {path}: {error.strerror}; restore the file, or remove it from the annotations"
        ) from error
