"""Taking back changes: what is kept is valid, closer, and within the room that the penalties are given."""

from __future__ import annotations

import numpy as np
import pytest
from toys import CLASSES, SHAPE, drive, rowwise, weights

pytest.importorskip("tensorflow")

from explainer_runtime.methods.elastic_task import Pace, Task
from explainer_runtime.methods.elastic_trim import carve, polish
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.penalties import networks
from explainer_runtime.spec import CounterfactualProto

MODEL = rowwise(weights(seed=4))
RNG = np.random.default_rng(7)
X, THERE = RNG.uniform(0, 1, (2, 40, *SHAPE)).astype("f")
KEPT = MODEL(X).argmax(axis=1) != MODEL(THERE).argmax(axis=1)
X, THERE = X[KEPT], THERE[KEPT]
ROWS = np.arange(len(X))


@pytest.fixture
def task():
    """Any other class than the row's own, and not far from a prototype half way there."""
    own = np.eye(CLASSES, dtype=np.float32)[MODEL(X).argmax(axis=1)]
    return Task(
        CounterfactualProto(theta=1.0),
        Pace(push=1.0, sharp=1.0, patience=1),
        origin=X,
        low=np.zeros_like(X),
        high=np.ones_like(X),
        wanted=1 - own,
        lead=1.0,
        level=0.0,
        networks=networks(None, None),
        curvature=np.ones(2, np.float32),
        theta=np.ones(len(X), np.float32),
        target=(0.1 * X + 0.9 * THERE).reshape(len(X), -1),
    )


@pytest.fixture
def held(task):
    """Something valid: a row of another class."""
    held = Incumbents(X, X, MODEL(X))
    task.offer(held, ROWS, THERE, MODEL(THERE), 0.0)
    assert held.found.all()
    return held


@pytest.mark.parametrize("room", [1.0, 4.0, 16.0])
def test_carving_keeps_the_penalties_within_their_room(task, held, room):
    before, net = task.penalties(held.x, ROWS), held.distance.copy()
    drive(carve(task, held, ROWS, times=2, room=room), lambda ask: MODEL(ask.x))
    assert (task.penalties(held.x, ROWS) <= room * before).all()
    assert (held.distance <= net).all()
    assert task.valid(held.x, MODEL(held.x), ROWS)[0].all()


def test_more_room_makes_smaller_changes(task):
    nets = []
    for room in (1.0, 4.0, 16.0, None):
        mine = Incumbents(X, X, MODEL(X))
        task.offer(mine, ROWS, THERE, MODEL(THERE), 0.0)
        drive(carve(task, mine, ROWS, times=1, room=room), lambda ask: MODEL(ask.x))
        nets.append(float(np.median(mine.distance)))
    assert nets == sorted(nets, reverse=True)
    assert nets[-1] < nets[0]


def test_polishing_leaves_the_whole_loss_no_larger(task, held):
    before = task.loss(held.x, ROWS)
    drive(polish(task, held, ROWS), lambda ask: MODEL(ask.x))
    assert (task.loss(held.x, ROWS) <= before).all()
