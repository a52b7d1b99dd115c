"""Pixels of a panel: rows of numbers in, `(h, w, 3)` bytes out, enlarged without smoothing.

Every function takes one image `(H, W, C)` in input units, C being 1 or 3, and the whole factor by which
it is enlarged, so that one pixel of the model's input is one square on the screen.
"""

from __future__ import annotations

import numpy as np

ACCENT = (255, 122, 0)
"""Colour of outlines: orange, which no grey image holds and which stands out on black and on white."""
PAPER = (238, 240, 243)
"""What is dimmed fades into this."""

# Blue, white, red; the outer colours are those of ColorBrewer's RdBu, told apart by colour-blind readers.
_STOPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_COLOURS = np.array([(5, 80, 160), (120, 180, 222), (255, 255, 255), (244, 150, 120), (178, 16, 40)])


def photograph(image: np.ndarray, low: float, high: float, factor: int) -> np.ndarray:
    """The image as people see it: `low` is black, `high` is full brightness."""
    return enlarge(_bytes(image, low, high), factor)


def signed(change: np.ndarray, limit: float, factor: int) -> np.ndarray:
    """The change of each pixel's most changed channel: `-limit` is blue, 0 exactly white, `limit` red.

    What is negative is striped, too, which is seen without colours and in print.
    """
    strongest = np.abs(change).argmax(axis=-1)[..., None]
    value = enlarge(np.take_along_axis(change, strongest, axis=-1)[..., 0] / limit, factor)
    return striped(diverging(value), value < 0, max(6, factor // 2))


def outlined(image: np.ndarray, segments: np.ndarray, low: float, high: float, factor: int) -> np.ndarray:
    """The image with thin lines between its superpixels, `segments` `(H, W)`."""
    pixels = photograph(image, low, high, factor)
    lines = _borders(enlarge(segments, factor), _pen(image, factor))
    pixels[lines] = 0.25 * pixels[lines] + 0.75 * np.array(ACCENT)
    return pixels


def spotlight(image: np.ndarray, mask: np.ndarray, low: float, high: float, factor: int) -> np.ndarray:
    """The image where `mask` `(H, W)` holds, inside an outline; the rest dimmed."""
    shown = _bytes(image, low, high)
    dimmed = 0.18 * shown + 0.82 * np.array(PAPER)
    pixels = enlarge(np.where(mask[..., None], shown, dimmed).astype(np.uint8), factor)
    # A frame of "outside", so that an anchor at the edge of the image is outlined there, too.
    pen = 2 * _pen(image, factor)
    framed = np.pad(enlarge(mask.astype(np.int8), factor), pen)
    pixels[_borders(framed, pen)[pen:-pen, pen:-pen]] = ACCENT
    return pixels


def diverging(value: np.ndarray) -> np.ndarray:
    """Colours `(..., 3)`, uint8, of values in [-1, 1]."""
    channels = [np.interp(value, _STOPS, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def striped(pixels: np.ndarray, where: np.ndarray, period: int) -> np.ndarray:
    """Pale lines across `pixels` `(h, w, 3)` where `where` `(h, w)` holds: two rows of each `period`."""
    lines = where & (np.arange(len(pixels)) % period >= period - 2)[:, None]
    return np.where(lines[..., None], (pixels.astype(np.uint16) + 3 * 255) // 4, pixels).astype(np.uint8)


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel as a square of `factor` by `factor`."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _pen(image: np.ndarray, factor: int) -> int:
    """Width of a line: a sixth of a pixel of the model's, or what can be seen on a large picture."""
    return max(1, round(factor / 6), round(factor * max(image.shape[:2]) / 400))


def _bytes(image: np.ndarray, low: float, high: float) -> np.ndarray:
    level = np.clip((image - low) / (high - low), 0, 1)
    return np.broadcast_to((255 * level).round().astype(np.uint8), (*image.shape[:2], 3))


def _borders(labels: np.ndarray, width: int) -> np.ndarray:
    """Where a label other than its right or lower neighbour's begins, `width` pixels to each side."""
    border = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    for shift in range(width):
        border[:, 1 + shift :] |= across[:, : across.shape[1] - shift]
        border[:, : across.shape[1] - shift] |= across[:, shift:]
        border[1 + shift :] |= down[: down.shape[0] - shift]
        border[: down.shape[0] - shift] |= down[shift:]
    return border
