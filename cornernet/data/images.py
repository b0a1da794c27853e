"""From an image file to pixels: uint8 [H, W, 3] in the order B, G, R, whatever the file holds.

Greyscale and palette images get three channels, CMYK is converted, 16 bits become 8, alpha is left out (the colour
that the file stores under it is kept). EXIF orientation: the size in the annotations decides. The picture is turned
upright as its EXIF tag says, as annotation tools and browsers show it, when the upright picture has that size; the
pixels as stored are taken when only they have it. Where both have it (squares, mirrored pictures) the tag is heeded.

A file comes from anywhere: one of more than :data:`LARGEST_FILE` bytes, or whose header states more than
:data:`MOST_PIXELS` pixels, is refused before it is decoded, and so is what is no file (a device, a pipe).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cornernet.config import Size
from cornernet.data.image_header import stated_size

__all__ = ["LARGEST_FILE", "MOST_PIXELS", "DataError", "decode", "read_image"]

LARGEST_FILE = 2**30
"""Bytes of an image file."""
MOST_PIXELS = 2**28
"""Pixels of a picture, 16384 x 16384: decoded, it takes 768 MiB. Kinds whose header is not read here (JPEG 2000, AVIF,
OpenEXR and others) have OpenCV's own limit, 2**30."""


class DataError(ValueError):
    """Data that cannot be used. The message names the file, what is wrong in it, and the fix."""


def decode(content: bytes, ignore_orientation: bool = False) -> NDArray[np.uint8] | None:
    """Return the picture in an image file's ``content`` as uint8 [H, W, 3] BGR, or None where it cannot be read."""
    if not content:
        return None
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # raised for some damaged headers, where others give None
        return None
    return None if image is None else np.asarray(image, np.uint8)


def read_image(path: Path, size: Size | None = None) -> NDArray[np.uint8]:
    """Return the picture at ``path`` as uint8 [H, W, 3] BGR.

    ``size`` is the (height, width) that the annotations state; it decides about EXIF orientation (see above).
    Raises :class:`DataError` where the file is missing, too large, damaged, of an unknown kind, or of another size.
    """
    content = _content(path)
    stated = stated_size(content)
    if stated is not None and stated.height * stated.width > MOST_PIXELS:
        raise DataError(
            f"the image {path} states {stated.width}x{stated.height} pixels, and at most {MOST_PIXELS:,} are read: "
            "shrink it or cut it into tiles, or take it out of the annotations"
        )
    image = decode(content)
    if image is None:
        raise DataError(
            f"cannot read the image {path}: it is damaged, incomplete or of an unknown kind; restore or convert it, "
            "or take it out of the annotations"
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


def _content(path: Path) -> bytes:
    try:
        # a pipe would keep the reader waiting, and a device never end
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        told = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read the image {path}: {told}; restore the file") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"cannot read the image {path}: it is a folder, a device or a pipe; give a file")
        if found.st_size > LARGEST_FILE:
            raise DataError(
                f"the image {path} has {found.st_size / 2**20:,.0f} MiB, and at most {LARGEST_FILE >> 20:,} are read: "
                "compress it or cut it into tiles"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; restore the file") from error
    finally:
        os.close(handle)
