"""What `make soak` says of memory: closed forms, and series of which it is known whether they grow."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.soak import BLOCKS, MOST, drift

HOURS = np.linspace(0, 0.1, 240)


def sure(held) -> float:
    """What it surely grows by at least, in MB an hour."""
    return drift(HOURS, held).least


def test_a_line_is_its_slope_and_certain():
    slope, error, least = drift(HOURS, 700 + 30 * HOURS)
    assert least == pytest.approx(30)
    assert slope == pytest.approx(30)
    assert error < 1e-6


def test_the_first_half_does_not_count():
    warming = np.where(HOURS < 0.05, 900 - 4000 * HOURS, 700.0)
    assert drift(HOURS, warming) == pytest.approx((0, 0, 0), abs=1e-6)


def test_one_look_that_is_off_changes_nothing():
    held = np.full(240, 700.0)
    held[130::37] += 80
    assert drift(HOURS, held) == pytest.approx((0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("at", range(125, 240, 10))
def test_one_jump_is_no_growth_however_large(at):
    assert sure(np.where(np.arange(240) < at, 700.0, 740.0)) < MOST


def noise(kind, seed):
    drawn = np.random.default_rng(seed).normal(size=240)
    if kind == "strangers":
        return drawn
    for index in range(1, 240):  # what is off stays off for five blocks
        drawn[index] += 0.96 * drawn[index - 1]
    return 0.3 * drawn


@pytest.mark.parametrize(("kind", "most"), [("strangers", 0.01), ("neighbours", 0.05)])
def test_of_what_wanders_and_does_not_grow_hardly_any_is_said_to(kind, most):
    assert np.mean([sure(700 + noise(kind, seed)) > MOST for seed in range(400)]) <= most


@pytest.mark.parametrize("kind", ["strangers", "neighbours"])
def test_a_leak_of_what_would_have_shown_shows(kind):
    found = []
    for seed in range(200):
        held = 700 + noise(kind, seed)
        slope, _, least = drift(HOURS, held)
        shows = MOST + 2 * (slope - least)
        found.append(sure(held + shows * HOURS) > MOST)
    assert np.mean(found) > 0.9
    assert BLOCKS < 240 / 4  # blocks of which a median means something
