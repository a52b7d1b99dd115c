"""A smooth change that can be seen: few cells that change a lot, in place of many that change a little.

The least change is invisible by its nature, on a coarse grid as well: on photographs every cell moves by a
few hundredths of the range. So it only says where to go. Its strongest cells are taken at full amplitude,
each in its own colour, and of these the fewest are sought that will do, as `regions.py` seeks the fewest
regions to hide: irreducible, and asked about a second time. Where no set of them will do, the answer is a
change of all cells, which may be faint.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.search.asks import Aside, Rows, Search, Stop, lockstep
from explainer_runtime.search.best import Best
from explainer_runtime.search.feedback import Guide, climb
from explainer_runtime.search.lanes import Effort, seek, winners
from explainer_runtime.search.least_change import Problem, descend
from explainer_runtime.search.regions import hide
from explainer_runtime.search.spaces import Smooth

_RACE = 4
"""Steps after which one lane of a row goes on, or as many as answers are asked for."""
_STEPS = 14
"""Steps after that at most."""
_CELLS = 32
"""Cells of which a set is sought: those that change most."""


def visible(
    problem: Problem, effort: Effort, owner: np.ndarray, guide: Guide | None, lanes: np.ndarray, best: Best
) -> Search[None]:
    """Search these lanes for changes of few cells, as `lanes.seek` does for small ones.

    Args:
        problem: What is sought, in a smooth space.
        effort: How much is done for the least change.
        owner: Which row each lane of the problem belongs to `(L,)`, ascending.
        guide: Of a model that cannot be looked into: slopes are those of its surrogate. None asks for slopes.
        lanes: Which lanes are searched: all those of some rows.
        best: What each lane has found `(L, ...)`; bettered as the search goes.
    """
    scratch = Best(problem.start, best.log_scores)
    slow = effort.pace._replace(reach=_RACE + _STEPS - 2, refine=2, stride=0.05, region=0.1)

    def run(search: Search[Any]) -> Search[Any]:
        return (yield Aside(search, guide.surrogate)) if guide is not None else (yield from search)

    state = yield from run(descend(problem, slow, lanes, scratch, most=_RACE, done=(0.05, 0.2)))
    on = winners(owner[lanes], state.promise(), effort.answers)
    live, state = lanes[on], state.only(on)
    state = yield from run(descend(problem, slow, live, scratch, state, most=_STEPS, done=(0.2, 0.4)))
    tries = [_fewest(problem, lane, d, best) for lane, d in zip(live, state.d, strict=True)]
    for stopped in (yield from lockstep(tries)):
        if stopped:
            raise Stop(stopped)
    if guide is None:  # what the model itself has said on the way
        faint = live[scratch.found[live] & ~best.found[live]]
        best.take(faint, scratch)
    missing = lanes[~np.isin(owner[lanes], owner[best.found])]
    if len(missing) and guide is not None:
        yield from climb(problem, effort, owner, missing, best, guide)
    elif len(missing):
        yield from seek(problem, effort, owner, missing, best)


def _fewest(problem: Problem, lane: int, d: np.ndarray, best: Best) -> Search[str | None]:
    """The fewest cells of a change `(*D)` that will do at full amplitude, offered to `best`; whether it was
    stopped."""
    space = problem.space
    assert isinstance(space, Smooth)
    bold = _bold(d, space)
    size = np.abs(np.moveaxis(bold * d, space.channels, -1)).max(axis=-1)
    cells = np.argsort(-size, axis=None, kind="stable")[: min(_CELLS, int((size > 0).sum()))]
    said: dict[bytes, np.ndarray] = {}

    def made(masks: np.ndarray) -> np.ndarray:
        shown = np.zeros((len(masks), size.size), bool)
        shown[:, cells] = masks
        grid = np.expand_dims(shown.reshape(-1, *size.shape), space.channels or 1)
        return np.clip(np.where(grid, bold, 0), problem.low[lane], problem.high[lane]).astype(np.float32)

    def ask(masks: np.ndarray) -> Search[np.ndarray]:
        which = np.full(len(masks), lane)
        log_scores = yield Rows(space.rows(made(masks), which), 0.5)
        said.update(zip((mask.tobytes() for mask in masks), log_scores, strict=True))
        return problem.criterion.only(which).spare(log_scores)

    if not len(cells):
        return None
    held = yield from hide(len(cells), ask)
    if held.found:
        mask = np.isin(np.arange(len(cells)), held.regions)[None]
        change, which, log_scores = made(mask), np.array([lane]), said[mask.tobytes()][None]
        rows = space.rows(change, which)
        cost, spare = problem.judge(rows, log_scores, which, problem.net(change, which))
        best.offer(which, change, log_scores, cost, spare)
    return held.stopped


def _bold(d: np.ndarray, space: Smooth) -> np.ndarray:
    """Every cell of a change `(*D)` at full amplitude, in its own colour: its largest channel is the
    amplitude."""
    most = np.abs(d).max(axis=space.channels, keepdims=True)
    return d * np.where(most > 0, space.most / np.maximum(most, np.float32(1e-12)), 0)
