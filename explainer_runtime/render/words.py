"""Numbers and words as people read them."""

from __future__ import annotations


def chance(probability: float) -> str:
    """Two digits; what is not certain is never shown as 1.00, nor what is possible as 0.00."""
    if 0.995 <= probability < 1:
        return ">0.99"
    return "<0.01" if 0 < probability < 0.005 else f"{probability:.2f}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people would not use one."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def sentence(words: str) -> str:
    """The words with a capital to begin with."""
    return words[:1].upper() + words[1:]
