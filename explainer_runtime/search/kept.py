"""Rows and codes in as few bytes as lose nothing that matters, and read a few at a time.

Pixels that came as bytes are kept as bytes again, exactly. Codes are kept in half precision where that moves
none of them by more than a thousandth of how far they lie from their middle, which is less than anyone who
trained the encoder again would move them. What is computed with them is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_EXACT = 1e-6
"""Shares of a feature's range within which a byte stands for a number: what float32 rounds."""
_HARMLESS = 1e-3
_TOGETHER = 2**22
"""Numbers that are looked at together."""


class Kept:
    """Rows `(M, *S)` as they are kept; what is taken of them is float32.

    Args:
        held: Floats as they are, or bytes: 0 is `low`, 255 `high`.
        low, high: What bytes stand for, in the units of the rows.
        unit: What the rows are divided by as they are taken.
    """

    def __init__(self, held: np.ndarray, low: float = 0.0, high: float = 1.0, unit: float = 1.0) -> None:
        self.held, self.low, self.high, self.unit = held, low, high, np.float32(unit)
        self.shape = held.shape

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, which: Any) -> np.ndarray:
        rows = self.held[which]
        rows = scaled(rows, self.low, self.high) if rows.dtype == np.uint8 else np.asarray(rows, np.float32)
        return rows if self.unit == 1 else np.asarray(rows / self.unit, np.float32)


def scaled(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bytes as float32: 0 becomes `low`, 255 `high`."""
    level = levels.astype(np.float32) / np.float32(255)
    # Rounding may lead past the end by one bit.
    return np.clip(level * np.float32(high - low) + np.float32(low), np.float32(low), np.float32(high))


def as_bytes(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows `(M, *S)` as bytes, where each of their numbers is one between `low` and `high`; else themselves.

    What is read back differs by 1e-6 of the range at most.
    """
    levels, size = np.empty(x.shape, np.uint8), max(1, _TOGETHER // max(1, x[:1].size))
    for start in range(0, len(x), size):
        block = slice(start, start + size)
        levels[block] = np.clip(np.round((x[block] - low) * (255 / (high - low))), 0, 255)
        if np.abs(scaled(levels[block], low, high) - x[block]).max(initial=0) > _EXACT * (high - low):
            return x
    return levels


def halved(codes: np.ndarray) -> np.ndarray:
    """Codes `(M, E)` in half precision, where that moves none of them far; else themselves."""
    with np.errstate(over="ignore"):
        half = codes.astype(np.float16)
    away = np.linalg.norm(codes - codes.mean(axis=0, dtype=np.float64), axis=1)
    moved = np.linalg.norm(half.astype(np.float32) - codes, axis=1)  # infinite where there is no such float16
    return half if moved.max(initial=0) <= _HARMLESS * np.median(away) else codes
