"""From an image file to pixels: uint8 [H, W, 3] in the order B, G, R, whatever the file contains.

Greyscale and palette images get three channels, CMYK is converted, 16 bits become 8, and alpha is dropped (the colour
stored under it is kept).

EXIF orientation, in every format that has the tag, follows ``data.orientation``. ``upright`` turns the image as its tag
says, as annotation tools and browsers show it; ``stored`` never turns it. With ``annotations`` the size in the
annotations decides: if the image turned upright has that size, it is turned; if only the image as stored has it, it is
left as stored; if both have it (square and mirrored images), or no size is known, the tag is applied. A training writes
into its run what was decided, so that detection and evaluation read photographs in the same way.

A JPEG file that ends early is read as far as it goes, as OpenCV reads it; the rest is grey. 16 bits become 8 by their
upper half, unless ``data.bits`` says that fewer are in use.

Files are not trusted. A file of more than :data:`LARGEST_FILE` bytes, or one whose header states more than
:data:`MOST_PIXELS` pixels, is refused before it is decoded, and so is anything that is not a file (a device, a pipe).
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

from cornernet.config import Orientation, Size
from cornernet.console import PrintableError
from cornernet.files import read_regular

__all__ = [
    "DEEP_BELOW",
    "ENDS_EARLY",
    "LARGEST_FILE",
    "MOST_PIXELS",
    "DataError",
    "Picture",
    "decode",
    "image_size",
    "inspect_image",
    "read_image",
    "stated_size",
    "stored_orientation",
]

LARGEST_FILE = 2**30
"""Bytes of an image file."""
MOST_PIXELS = 2**28
"""Pixels of an image, 16384 x 16384; decoded, they take 768 MiB. Pillow's own limit for WebP is lower, 179 million.
Formats that are not in ``_HEADERS`` (JPEG 2000, AVIF, OpenEXR, PAM and others) have OpenCV's limit, 2**30."""

ENDS_EARLY = "it ends early: the missing part is grey"
"""What :class:`Picture` says about a JPEG file that was cut off."""
DEEP_BELOW = 2**14
"""A 16-bit image whose largest value is below this was probably not scaled to 16 bits: its camera had 14 or fewer."""

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
_JPEG = b"\xff\xd8"
_END_OF_JPEG = b"\xff\xd9"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _LENGTH, _ORIENTATION = 0x0100, 0x0101, 0x0112
_WARNINGS = threading.Lock()
"""Held while warnings are turned off, which concerns the whole process."""


class DataError(PrintableError, ValueError):
    """Data that cannot be used. The message names the file, what is wrong in it, and the fix."""


def _reader_of(content: bytes) -> type[ImageFile] | None:
    """Return Pillow's reader of a file's format, or None for a format that is not in ``_HEADERS``."""
    return next((reader for start, reader in _HEADERS if content.startswith(start)), None)


def stated_size(content: bytes) -> Size | None:
    """Return the (height, width) stated in an image file's header, before EXIF orientation; nothing is decoded.

    Returns None for a format that is not in ``_HEADERS``. Raises ``ValueError`` where the header is damaged or
    incomplete, and ``DecompressionBombError`` for a WebP file above Pillow's limit.
    """
    reader = _reader_of(content)
    if reader is None:
        return None
    try:
        # Pillow warns about tags that are of no interest here
        with _WARNINGS, warnings.catch_warnings(action="ignore"), reader(io.BytesIO(content)) as image:
            if isinstance(image, TiffImageFile):
                # Pillow gives the size of the image turned upright
                return int(image.tag_v2[_LENGTH]), int(image.tag_v2[_WIDTH])
            return image.height, image.width
    except DecompressionBombError:
        raise
    except Exception as error:  # Pillow documents no complete list of what damaged headers raise
        raise ValueError(f"its header cannot be read: {error}") from error


@dataclass(frozen=True)
class Picture:
    """An image that could be read."""

    pixels: NDArray[np.uint8]
    """[H, W, 3] BGR."""
    doubt: str = ""
    """What makes its pixels doubtful, or ''."""
    largest: int | None = None
    """The largest value of a 16-bit image that looks as if fewer bits were in use, else None."""

    def without_pixels(self) -> Picture:
        """Return it without the pixels, whose memory is then free."""
        return replace(self, pixels=np.empty((0, 0, 3), np.uint8))

    @property
    def bits(self) -> int:
        """The bits of a camera that gives values up to :attr:`largest`: 10, 12 or 14, and 16 where that is None."""
        return 16 if self.largest is None else next(bits for bits in (10, 12, 14) if self.largest < 2**bits)


def stored_orientation(content: bytes) -> int:
    """Return the orientation tag of an image file's ``content``: 1 to 8, and 1 where there is none that is valid."""
    reader = _reader_of(content)
    if reader is None:
        return 1
    try:
        with _WARNINGS, warnings.catch_warnings(action="ignore"), reader(io.BytesIO(content)) as image:
            # of a TIFF file it is an ordinary tag
            tags = image.tag_v2 if isinstance(image, TiffImageFile) else image.getexif()
            number = tags.get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow documents no complete list of what damaged headers raise
        return 1
    return int(number) if isinstance(number, int) and 1 <= number <= 8 else 1


def decode(content: bytes, ignore_orientation: bool = False) -> NDArray[np.uint8] | None:
    """Return the image in a file's ``content`` as uint8 [H, W, 3] BGR, or None where it cannot be decoded."""
    import cv2

    image = _decoded(content, cv2.IMREAD_COLOR, ignore_orientation)
    return None if image is None else np.asarray(image, np.uint8)


def _decoded(content: bytes, flags: int, ignore_orientation: bool) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    import cv2

    if not content:
        return None
    flags |= cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # raised for some damaged headers; others give None
        return None
    if image is None:
        return None
    if ignore_orientation and content.startswith(_TIFF):
        # OpenCV turns TIFF images whatever the flags are
        image = np.ascontiguousarray(_turned_back(image, stored_orientation(content)))
    return np.asarray(image)  # type: ignore[return-value]


def _turned_back(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an image as it was before it was turned upright from an EXIF ``orientation``."""
    if orientation in (2, 3):
        image = image[:, ::-1]
    if orientation in (3, 4):
        image = image[::-1]
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (6, 7):
        image = image[::-1]
    if orientation in (7, 8):
        image = image[:, ::-1]
    return image


def read_image(
    path: Path, size: Size | None = None, *, orientation: Orientation = "annotations", bits: int = 16
) -> NDArray[np.uint8]:
    """Return the image at ``path`` as uint8 [H, W, 3] BGR.

    ``size`` is the (height, width) in the annotations; ``orientation`` and ``bits`` are those of ``config.data`` (see
    above). Raises :class:`DataError` where the file is missing, too large, damaged, of an unknown format, or of another
    size.
    """
    return inspect_image(path, size, orientation=orientation, bits=bits).pixels


def inspect_image(
    path: Path, size: Size | None = None, *, orientation: Orientation = "annotations", bits: int = 16
) -> Picture:
    """Return what :func:`read_image` does, with what is doubtful about it. Raises ``DataError`` as it does."""
    content = _content(path)
    picture = None
    if _may_be_decoded(path, content):
        picture = _picture(path, content, bits, ignore_orientation=orientation == "stored")
    if picture is None:
        raise DataError(
            f"cannot read the image {path}: it is damaged, incomplete or of an unknown format; restore "
            "or convert it, remove it from the annotations, or leave out such images: --data.unreadable skip"
        )
    if size is None or picture.pixels.shape[:2] == size:
        return picture
    if orientation == "annotations":
        stored = _picture(path, content, bits, ignore_orientation=True)
        if stored is not None and stored.pixels.shape[:2] == size:
            return stored
    turned = ""
    if orientation != "annotations" and picture.pixels.shape[:2] == size[::-1] and stored_orientation(content) > 4:
        turned = f" with data.orientation {orientation!r}, which these weights or flags ask for,"
    raise DataError(
        f"the image {path} is{turned} {picture.pixels.shape[1]}x{picture.pixels.shape[0]} pixels (width "
        f"x height), but the annotations say {size[1]}x{size[0]}; correct its 'width' and 'height', or restore the file"
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


def _picture(path: Path, content: bytes, bits: int, *, ignore_orientation: bool) -> Picture | None:
    """Decode a file's content; None where that is impossible. Raises ``DataError`` for values beyond ``bits``."""
    import cv2

    doubt = ""
    image = decode(content, ignore_orientation)
    if image is None and content.startswith(_JPEG):
        # read from a file, OpenCV supplies the missing end itself
        content += _END_OF_JPEG
        image = decode(content, ignore_orientation)
        doubt = ENDS_EARLY
    if image is None:
        return None
    # an 8-bit image that dark is rare, so that the second decoding costs nothing for ordinary photographs
    largest = None
    if bits < 16 or int(image.max()) < DEEP_BELOW >> 8:
        deep = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, ignore_orientation)
        if deep is not None and deep.dtype == np.uint16:
            largest = int(deep.max())
            if bits < 16:
                if largest >= 2**bits:
                    raise DataError(
                        f"the image {path} has values up to {largest}, which need "
                        f"{largest.bit_length()} bits, and data.bits is {bits}: give --data.bits "
                        f"{largest.bit_length()} or more"
                    )
                image = (deep >> (bits - 8) if bits > 8 else deep).astype(np.uint8)
                largest = None
    if largest is not None and largest >= DEEP_BELOW:
        largest = None
    if largest is not None and not doubt:
        doubt = f"it has 16 bits and values up to {largest} only, so that it is read almost black"
    return Picture(image, doubt, largest)


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
