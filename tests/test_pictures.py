"""Pictures as input: what is read is what the file holds, and what would be cut is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from explainer_runtime.cli import requests
from explainer_runtime.errors import InvalidInput
from explainer_runtime.spec import Inputs


def contract(*shape, **more):
    return Inputs(shape=shape, low=0, high=1, classes=2, **more)


def png(values: np.ndarray, colour: int, depth: int) -> bytes:
    """A PNG of `values` `(H, W)` or `(H, W, C)` as they are: Pillow writes no 16-bit colour itself."""
    kind = ">u2" if depth == 16 else ">u1"
    rows = b"".join(b"\0" + row.astype(kind).tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


COLOURS = {"grey": (0, 1), "rgb": (2, 3), "grey and alpha": (4, 2), "rgba": (6, 4)}


@pytest.mark.parametrize("name", COLOURS)
def test_pictures_of_16_bits_are_refused_and_the_same_of_8_are_read(tmp_path, name):
    colour, channels = COLOURS[name]
    values = np.full((8, 8, channels), 255)
    path = tmp_path / "picture.png"
    path.write_bytes(png(values, colour, 8))
    np.testing.assert_array_equal(requests.read_image(path, contract(8, 8, 3)), np.ones((8, 8, 3), "f"))
    path.write_bytes(png(values * 257, colour, 16))
    with pytest.raises(InvalidInput, match="8 bits a channel, got more"):
        requests.read_image(path, contract(8, 8, 3))


def test_a_tiff_of_16_bits_is_refused(tmp_path):
    path = tmp_path / "picture.tif"
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(path)
    with pytest.raises(InvalidInput, match="8 bits a channel"):
        requests.read_image(path, contract(8, 8, 1))


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_pictures_of_several_frames_are_refused_and_of_one_are_read(tmp_path, suffix):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    path = tmp_path / f"picture.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, **options)
    np.testing.assert_array_equal(requests.read_image(path, contract(8, 8, 3)), np.ones((8, 8, 3), "f"))
    first.save(path, save_all=True, append_images=[second], **options)
    with pytest.raises(InvalidInput, match="one picture, got 2 frames"):
        requests.read_image(path, contract(8, 8, 3))


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    pixels = np.zeros((6, 4), np.uint8)
    pixels[:3] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    row = requests.read_image(tmp_path / "photo.png", contract(6, 4, 1))
    np.testing.assert_array_equal(row[..., 0], pixels[::-1, ::-1] / 255)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_row_with_its_channels_first_is_the_one_with_them_last_turned(tmp_path, channels, mode):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / "picture.png")
    last = requests.read_image(tmp_path / "picture.png", contract(8, 12, channels, layout="channels_last"))
    first = requests.read_image(tmp_path / "picture.png", contract(channels, 8, 12, layout="channels_first"))
    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 0))


def test_a_contract_that_may_be_read_in_two_ways_takes_no_picture(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "picture.png")
    with pytest.raises(InvalidInput, match="layout None"):
        requests.read_image(tmp_path / "picture.png", contract(3, 3, 3))


def test_grey_arrays_may_lack_the_axis_of_channels_wherever_it_is(tmp_path):
    x = np.random.default_rng(0).random((2, 8, 12)).astype("f")
    np.save(tmp_path / "x.npy", x)
    for shape in ((8, 12, 1), (1, 8, 12)):
        read = requests.read_rows(tmp_path / "x.npy", contract(*shape), "anchor_image")
        np.testing.assert_array_equal(read.x, x.reshape(2, *shape))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "JPEG", "BMP"])
def test_a_damaged_picture_is_refused_by_its_name_or_read(tmp_path, kind):
    buffer, path = io.BytesIO(), tmp_path / f"torn.{kind.lower()}"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, kind)
    whole = buffer.getvalue()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole), size=60):
        for damaged in (whole[:place], whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            with contextlib.suppress(InvalidInput):  # and nothing else
                requests.read_image(path, contract(8, 8, 1))
