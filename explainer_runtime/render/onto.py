"""What is seen of a row, drawn on the picture that was sent: a larger one, or one of which it is a part.

A model is shown some 224 by 224 pixels; a person knows the photograph. So pictures of a row are laid over the
part of the photograph that the row shows: the photograph itself where nothing differs from the row, what the
model was shown where something does, and marks and maps as they are, enlarged. What lies outside of that part
has not been seen by the model, and looks so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from explainer_runtime.pictures import Sent
from explainer_runtime.search.kept import scaled
from explainer_runtime.views import Picture, image

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

_GREY = (150, 156, 165)


def smaller(sent: Sent, most: int) -> Sent:
    """A picture whose longer side has so many pixels at most; three of a camera's size make a huge page."""
    tall, wide = sent.pixels.shape[:2]
    share = most / max(tall, wide)
    if share >= 1:
        return sent
    size = max(1, round(wide * share)), max(1, round(tall * share))
    flat = sent.pixels[..., 0] if sent.pixels.shape[2] == 1 else sent.pixels
    pixels = np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.BILINEAR))
    ends = [round(end * share) for end in sent.box]
    box = ends[0], ends[1], max(ends[2], ends[0] + 1), max(ends[3], ends[1] + 1)
    return replace(sent, pixels=pixels.reshape(*size[::-1], -1), box=box)


def onto(picture: Picture, sent: Sent, inputs: Inputs) -> Picture:
    """A picture of the row as one of the size of what was sent."""
    row = image(sent.row, inputs)
    left, top, right, bottom = sent.box
    place = (slice(top, bottom), slice(left, right))
    size = (right - left, bottom - top)
    if picture.look == "change":
        whole = np.zeros((*sent.pixels.shape[:2], picture.image.shape[2]), np.float32)
        whole[place] = _enlarged(picture.image, size, Image.Resampling.NEAREST)
    else:
        whole = scaled(sent.pixels, inputs.low, inputs.high)
        differs = (np.abs(picture.image - row) > 1e-6).any(axis=-1, keepdims=True).astype(np.float32)
        if differs.any():
            there = _enlarged(differs, size, Image.Resampling.NEAREST) > 0
            shown = _enlarged(picture.image, size, Image.Resampling.BILINEAR)
            whole[place] = np.where(there, shown, whole[place])
    marks = picture.marks
    if marks is not None:
        there = _enlarged(marks[..., None].astype(np.float32), size, Image.Resampling.NEAREST)[..., 0]
        nothing = False if marks.dtype.kind == "b" else -1
        marks = np.full(whole.shape[:2], nothing, marks.dtype)
        marks[place] = there.astype(marks.dtype)
    return replace(picture, image=whole, marks=marks)


def veiled(pixels: np.ndarray, sent: Sent) -> np.ndarray:
    """What is drawn of a picture `(h, w, 3)`, with all that the model did not see pale and hatched."""
    tall, wide = pixels.shape[:2]
    factor = tall // sent.pixels.shape[0]
    left, top, right, bottom = (end * factor for end in sent.box)
    outside = np.ones((tall, wide), bool)
    outside[top:bottom, left:right] = False
    if not outside.any():
        return pixels
    step = max(6, max(tall, wide) // 60)
    lines = (np.arange(tall)[:, None] + np.arange(wide)) % step < max(1, step // 6)
    pale = (0.45 * pixels + 0.55 * np.array((238, 240, 243))).astype(np.uint8)
    pale[lines] = _GREY
    return np.where(outside[..., None], pale, pixels)


def note(sent: Sent, inputs: Inputs) -> str:
    """What is to be said of how the model saw the picture; empty where it saw it as it is."""
    if sent.resize == "none":
        return ""
    tall, wide = sent.pixels.shape[:2]
    rows, columns = image(sent.row, inputs).shape[:2]
    cut = sent.box != (0, 0, wide, tall)
    what = "the middle of the picture" if cut else "the picture"
    return f"The model saw {what} at {columns}x{rows} pixels." + " What is hatched it did not see." * cut


def _enlarged(values: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """`(H, W, C)` float32 at another size, width first."""
    planes = [
        Image.fromarray(np.ascontiguousarray(plane)).resize(size, how) for plane in np.moveaxis(values, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
