"""Pictures as input: what is read is what the file holds, and what would be cut is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from explainer_runtime import pictures, render
from explainer_runtime.cli import requests
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.render import onto
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
    np.testing.assert_array_equal(
        pictures.read(path, contract(8, 8, 3), "picture").row, np.ones((8, 8, 3), "f")
    )
    path.write_bytes(png(values * 257, colour, 16))
    with pytest.raises(InvalidInput, match="8 bits a channel, got more"):
        pictures.read(path, contract(8, 8, 3), "picture")


def test_a_tiff_of_16_bits_is_refused(tmp_path):
    path = tmp_path / "picture.tif"
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(path)
    with pytest.raises(InvalidInput, match="8 bits a channel"):
        pictures.read(path, contract(8, 8, 1), "picture")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_tiff_of_bytes_with_a_sign_is_refused(tmp_path, mode):
    path, bands = tmp_path / "picture.tif", len(mode)
    Image.new(mode, (8, 8)).save(path)
    assert pictures.read(path, contract(8, 8, bands), "picture").row.min() == 0
    Image.new(mode, (8, 8)).save(path, tiffinfo={339: (2,) * bands})
    with pytest.raises(InvalidInput, match=r"cannot be read|with a sign"):
        pictures.read(path, contract(8, 8, bands), "picture")


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_pictures_of_several_frames_are_refused_and_of_one_are_read(tmp_path, suffix):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    path = tmp_path / f"picture.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, **options)
    np.testing.assert_array_equal(
        pictures.read(path, contract(8, 8, 3), "picture").row, np.ones((8, 8, 3), "f")
    )
    first.save(path, save_all=True, append_images=[second], **options)
    with pytest.raises(InvalidInput, match="one picture, got several frames"):
        pictures.read(path, contract(8, 8, 3), "picture")


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    pixels = np.zeros((6, 4), np.uint8)
    pixels[:3] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    row = pictures.read(tmp_path / "photo.png", contract(6, 4, 1), "picture").row
    np.testing.assert_array_equal(row[..., 0], pixels[::-1, ::-1] / 255)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_row_with_its_channels_first_is_the_one_with_them_last_turned(tmp_path, channels, mode):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / "picture.png")
    last = pictures.read(
        tmp_path / "picture.png", contract(8, 12, channels, layout="channels_last"), "picture"
    ).row
    first = pictures.read(
        tmp_path / "picture.png", contract(channels, 8, 12, layout="channels_first"), "picture"
    ).row
    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 0))


def test_a_contract_that_may_be_read_in_two_ways_takes_no_picture(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "picture.png")
    with pytest.raises(InvalidInput, match="layout None"):
        pictures.read(tmp_path / "picture.png", contract(3, 3, 3), "picture")


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
                pictures.read(path, contract(8, 8, 1), "picture")


SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x01\x00\x00"  # eleven bytes, and the whole picture is gone over


@pytest.mark.parametrize(
    ("piece", "most"),
    [(SCAN, 100), (b"\xff\xe5\x00\x02", 10_000), (b"\xff", 10_000)],
    ids=["scans", "segments", "padding"],
)
def test_a_small_jpeg_that_takes_long_is_refused_before_it_is_opened(monkeypatch, piece, most):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 100).save(buffer, "JPEG", progressive=True)
    whole, inputs = buffer.getvalue(), contract(8, 8, 1)
    place = len(whole) - 2 if piece is SCAN else 2
    few, many = (whole[:place] + piece * count + whole[place:] for count in (most // 2, most + 1))
    expected = pictures.read(io.BytesIO(whole), inputs, "p").row
    np.testing.assert_array_equal(pictures.read(io.BytesIO(few), inputs, "p").row, expected)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(InvalidInput, match="p: expected a JPEG of at most 10,000 pieces and 100 scans"):
        pictures.read(io.BytesIO(many), inputs, "p")


def test_what_stands_behind_or_in_pieces_of_a_jpeg_is_not_counted():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x927C] = SCAN * 1_000
    Image.new("L", (8, 8), 100).save(buffer, "JPEG", progressive=True, exif=exif)
    read = pictures.read(io.BytesIO(buffer.getvalue() + SCAN * 1_000), contract(8, 8, 1), "p")
    assert read.pixels.shape == (8, 8, 1)


# --- of another size --------------------------------------------------------------------------------------

SIZES = [(8, 8), (16, 16), (20, 9), (9, 31), (3, 4), (300, 7)]


def saved(path, wide, tall, mode="RGB"):
    noise = np.random.default_rng(wide * tall).integers(0, 256, (tall, wide, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_the_largest_middle_with_the_proportions_of_a_row(tmp_path, size):
    read = pictures.read(saved(tmp_path / "p.png", *size), contract(8, 12, 3, resize="centre_crop"), "p")
    left, top, right, bottom = read.box
    wide, tall = right - left, bottom - top
    assert 0 <= left <= right <= size[0]
    assert 0 <= top <= bottom <= size[1]
    assert wide == size[0] or tall == size[1]
    assert abs(wide - tall * 12 / 8) <= 1.5 or min(wide, tall) == 1  # whole pixels: half of one, of each side
    assert abs(left - (size[0] - right)) <= 1
    assert abs(top - (size[1] - bottom)) <= 1
    assert read.said() == {"size": list(size), "box": list(read.box), "resize": "centre_crop"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_crop_is_the_fit_of_what_was_cut_out(tmp_path, size, mode):
    shape = (8, 12, len(mode))
    path = saved(tmp_path / "p.png", *size, mode)
    cropped = pictures.read(path, contract(*shape, resize="centre_crop"), "p")
    Image.open(path).crop(cropped.box).save(tmp_path / "cut.png")
    cut = pictures.read(tmp_path / "cut.png", contract(*shape, resize="fit"), "cut")
    np.testing.assert_array_equal(cropped.row, cut.row)


def test_a_picture_of_the_size_of_a_row_is_the_row_whatever_is_done_with_others(tmp_path):
    path = saved(tmp_path / "p.png", 12, 8)
    rows = [
        pictures.read(path, contract(8, 12, 3, resize=how), "p") for how in ("none", "fit", "centre_crop")
    ]
    for one in rows:
        np.testing.assert_array_equal(one.row, rows[0].row)
        assert (one.resize, one.box) == ("none", (0, 0, 12, 8))


def test_a_photograph_is_turned_before_it_is_resized(tmp_path):
    tall = np.zeros((40, 20), np.uint8)
    tall[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is at the right
    Image.fromarray(tall).rotate(90, expand=True).save(tmp_path / "p.png", exif=exif)
    read = pictures.read(tmp_path / "p.png", contract(8, 4, 1, resize="fit"), "p")
    assert read.pixels.shape == (40, 20, 1)
    np.testing.assert_array_equal(read.row[..., 0].round(), np.repeat([[1.0], [0.0]], 4, axis=0).repeat(4, 1))


def test_bytes_are_read_as_the_file_that_they_are(tmp_path):
    path = saved(tmp_path / "p.png", 30, 20)
    inputs = contract(8, 12, 3, resize="fit")
    file, sent = pictures.read(path, inputs, "p"), pictures.read(io.BytesIO(path.read_bytes()), inputs, "p")
    np.testing.assert_array_equal(file.row, sent.row)


def test_a_picture_that_is_too_large_to_hold_is_refused_before_it_is_decoded(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "_MOST", 599)
    with pytest.raises(InvalidInput, match="at most 599 pixels, got 30 by 20"):
        pictures.read(saved(tmp_path / "p.png", 30, 20), contract(8, 12, 3, resize="fit"), "p")
    with pytest.raises(InvalidInput, match=r"12 pixels wide and 8 high, got 30 by 20.*fit, centre_crop"):
        pictures.read(tmp_path / "p.png", contract(8, 12, 3), "p")


# --- drawn on what was sent -------------------------------------------------------------------------------


def drawn_on(path, resize, size=168, change=0.0):
    """A region, its upper half, of a picture of 8x8 that came as a larger one."""
    inputs = contract(8, 8, 3, resize=resize)
    sent = pictures.read(path, inputs, "p")
    mask = np.repeat([[True], [False]], 4, axis=0).repeat(8, 1)[None]
    answer = Explanation(
        "region",
        {
            "found": np.array([True]),
            "status": np.array(["ok"]),
            "hidden": np.where(mask[..., None], np.float32(change), sent.row[None]),
            "region_mask": mask,
            "segments": mask.astype(np.int64),
            "size": np.array([1]),
            "area": np.array([0.5], np.float32),
            "irreducible": np.array([True]),
            "original_class": np.array([0]),
            "original_proba": np.array([[0.9, 0.1]], np.float32),
            "hidden_class": np.array([1]),
            "hidden_proba": np.array([[0.2, 0.8]], np.float32),
        },
    )
    (card,) = render.cards(answer, sent.row[None], inputs, size=size, sent=[sent])
    return sent, card


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (9, 8)])
def test_what_is_drawn_is_the_picture_where_nothing_differs_and_the_row_where_it_does(tmp_path, size):
    sent, card = drawn_on(saved(tmp_path / "p.png", *size), "fit", size=1 + max(size) // 3)
    shown, spot, without = (panel.pixels for panel in card.panels)
    np.testing.assert_array_equal(shown, sent.pixels)
    half = (size[1] + 1) // 2  # the middle pixel of an odd height belongs to either
    np.testing.assert_array_equal(without[half:], sent.pixels[half:])
    # Hidden by low, which is black; between the middles of the model's pixels it is blended.
    np.testing.assert_array_equal(without[: size[1] * 7 // 16], 0)
    assert spot.shape == shown.shape
    inner = slice(3, size[1] // 2 - 3), slice(3, -3)  # of the outline
    np.testing.assert_array_equal(spot[inner], sent.pixels[inner])


def test_what_the_model_did_not_see_looks_alike_in_every_panel_and_is_told(tmp_path):
    sent, card = drawn_on(saved(tmp_path / "p.png", 90, 60), "centre_crop", size=30)
    assert sent.box == (15, 0, 75, 60)
    shown, spot, without = (panel.pixels for panel in card.panels)
    np.testing.assert_array_equal(shown[:, 15:75], sent.pixels[:, 15:75])
    for side in (slice(0, 15), slice(75, 90)):
        assert (shown[:, side] != sent.pixels[:, side]).any(axis=-1).all()
        np.testing.assert_array_equal(without[:, side], shown[:, side])
        hatched = (shown[:, side] == onto._GREY).all(axis=-1)
        assert (spot[:, side][hatched] == onto._GREY).all()
    assert (
        card.note == "The model saw the middle of the picture at 8x8 pixels. What is hatched it did not see."
    )


def test_a_large_picture_is_drawn_smaller_and_a_small_one_enlarged(tmp_path):
    _, card = drawn_on(saved(tmp_path / "p.png", 900, 600), "centre_crop", size=50)
    assert {panel.pixels.shape for panel in card.panels} == {(100, 150, 3)}
    _, card = drawn_on(saved(tmp_path / "p.png", 12, 9), "centre_crop", size=60)
    assert {panel.pixels.shape for panel in card.panels} == {(45, 60, 3)}


@pytest.mark.parametrize(("classes", "named"), [(10, 0), (11, 5), (1000, 5)])
def test_of_many_classes_the_five_likeliest_are_named(classes, named):
    scores = np.zeros((2, classes), np.float32)  # the second row was not asked about
    scores[0, [7, 3, 9, 1, 5]] = 0.4, 0.3, 0.15, 0.1, 0.05
    names = tuple(f"name {number}" for number in range(classes))
    inputs = Inputs(shape=(4, 4, 1), low=0, high=1, classes=classes, class_names=names)
    fields = {
        "found": np.zeros(2, bool),
        "status": np.array(["not_found", "budget_exhausted"]),
        "original_class": np.array([7, -1]),
        "original_proba": scores,
    }
    told, nothing = render.cards(Explanation("region", fields), np.zeros((2, 4, 4, 1), "f"), inputs)
    assert told.note.count("name ") == named
    said = "Likeliest: name 7 0.40 · name 3 0.30 · name 9 0.15 · name 1 0.10 · name 5 0.05."
    assert told.note.endswith(said) is bool(named)
    assert "Likeliest" not in nothing.note
