"""From an image file to pixels: uint8 [H, W, 3] in the order B, G, R, whatever the file holds.

Greyscale and palette images get three channels, CMYK is converted, 16 bits become 8, alpha is left out (the colour
that the file stores under it is kept). EXIF orientation: the size in the annotations decides. The picture is turned
upright as its EXIF tag says, as annotation tools and browsers show it, when the upright picture has that size; the
pixels as stored are taken when only they have it. Where both have it (squares, mirrored pictures) the tag is heeded.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cornernet.config import Size

__all__ = ["DataError", "decode", "read_image"]


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
    Raises :class:`DataError` where the file is missing, damaged, of an unknown kind, or of another size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; restore the file") from error
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
