"""Image files of all kinds become uint8 BGR of the size in the annotations."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from cornernet.data import DataError
from cornernet.data.images import read_image, stated_size
from tests.unit.data.folders import picture

# 8x6 pixels, all of one colour, with Adobe's inverted CMYK; no library that the project uses can write one
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgS"
    "FBUU/8AAFAgABgAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAkI/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASwAA"
    "PwCPCBk4I6//2Q=="
)


def write(path: Path, image: np.ndarray, parameters: tuple[int, ...] = ()) -> Path:
    assert cv2.imwrite(str(path), image, list(parameters))
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def palette_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG of colour type 3; ``palette`` [K, 3] is RGB."""
    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette.astype(np.uint8).tobytes()), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(k, c) for k, c in chunks) + png_chunk(b"IEND", b"")


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def test_greyscale_gets_three_equal_channels(tmp_path: Path) -> None:
    grey = picture(0)[:, :, 0]
    image = read_image(write(tmp_path / "x.png", grey), (40, 60))
    np.testing.assert_array_equal(image, np.repeat(grey[:, :, None], 3, axis=2))


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = picture(0).astype(np.uint16) * 257
    image = read_image(write(tmp_path / "x.png", deep), (40, 60))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture(0))


def test_alpha_is_left_out(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "x.png", np.dstack([picture(0), picture(1)[:, :, :1]])), (40, 60))
    np.testing.assert_array_equal(image, picture(0))


def test_palette_becomes_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    indices, palette = rng.integers(0, 16, (6, 8)), rng.integers(0, 256, (16, 3))
    path = tmp_path / "x.png"
    path.write_bytes(palette_png(indices, palette))
    np.testing.assert_array_equal(read_image(path, (6, 8)), palette[indices][:, :, ::-1])


def test_cmyk_becomes_bgr(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(CMYK_JPEG)
    image = read_image(path, (6, 8))
    assert image.shape == (6, 8, 3)
    assert np.abs(image.astype(int) - [226, 207, 51]).max() <= 3


@pytest.mark.parametrize(("orientation", "turn"), [(6, cv2.ROTATE_90_CLOCKWISE), (8, cv2.ROTATE_90_COUNTERCLOCKWISE)])
def test_stated_size_decides_whether_exif_turns_the_picture(tmp_path: Path, orientation: int, turn: int) -> None:
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    stored = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    path = tmp_path / "x.jpg"
    path.write_bytes(with_exif_orientation(jpeg, orientation))
    np.testing.assert_array_equal(read_image(path, (40, 60)), stored)
    np.testing.assert_array_equal(read_image(path, (60, 40)), cv2.rotate(stored, turn))
    np.testing.assert_array_equal(read_image(path), cv2.rotate(stored, turn))


def test_exif_is_heeded_where_the_size_cannot_tell(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    stored = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    path = tmp_path / "x.jpg"
    path.write_bytes(with_exif_orientation(jpeg, 3))
    np.testing.assert_array_equal(read_image(path, (40, 60)), cv2.rotate(stored, cv2.ROTATE_180))


@pytest.mark.parametrize(
    ("kind", "share"), [*((".png", share) for share in (0.0, 0.001, 0.5, 0.98)), (".jpg", 0.0), (".jpg", 0.001)]
)
def test_incomplete_file_is_an_error_that_names_it(tmp_path: Path, kind: str, share: float) -> None:
    whole = cv2.imencode(kind, picture(0))[1].tobytes()
    path = tmp_path / f"half{kind}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=rf"cannot read the image .*half{kind}: it is damaged"):
        read_image(path, (40, 60))


def test_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_another_size_than_stated_is_an_error_with_both(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", picture(0))
    with pytest.raises(DataError, match=r"x\.png is 60x40 pixels .* say 61x40"):
        read_image(path, (40, 61))


def test_the_size_in_the_header_is_that_before_exif_orientation_and_pillow_warns_of_nothing(tmp_path: Path) -> None:
    jpeg = with_exif_orientation(cv2.imencode(".jpg", picture(0))[1].tobytes(), 6)
    assert stated_size(jpeg) == (40, 60)
    tags = jpeg.index(b"MM\0*")
    # the EXIF directory says it has 255 tags: Pillow warns, and warnings are errors in these tests
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg[: tags + 9] + b"\xff" + jpeg[tags + 10 :])
    assert stated_size(path.read_bytes()) == (40, 60)
    assert read_image(path, (40, 60)).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_the_size_is_read_from_the_header_only(kind: str) -> None:
    whole = cv2.imencode(kind, np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))[1].tobytes()
    assert stated_size(whole[:1024]) == (200, 300)
    assert stated_size(b"\0\0\0\x0cjP  \r\n\x87\n") is None
    with pytest.raises(ValueError, match="its header cannot be read"):
        stated_size(whole[:12])


def test_webp_files_above_the_limit_of_pillow_are_refused(tmp_path: Path) -> None:
    header = b"VP8X\x0a\0\0\0\0\0\0\0" + (16383).to_bytes(3, "little") + (16383).to_bytes(3, "little")
    (tmp_path / "x.webp").write_bytes(b"RIFF" + struct.pack("<I", len(header) + 4) + b"WEBP" + header)
    with pytest.raises(DataError, match=r"x\.webp is too large: .* pixels.*cut it into tiles"):
        read_image(tmp_path / "x.webp")
