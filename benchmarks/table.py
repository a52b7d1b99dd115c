"""Rows of results: collected by the suites, printed as a table, written as JSON."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "latest.json"


@dataclass(frozen=True)
class Row:
    """One measurement; `ratio` says how many times better than the reference it is."""

    suite: str
    case: str
    metric: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None


def row(
    suite: str,
    case: str,
    metric: str,
    value: float,
    unit: str,
    reference: float | None = None,
    better: Literal["less", "more"] = "less",
) -> Row:
    """A row with its ratio worked out."""
    ratio = None
    if reference is not None and value and reference:
        ratio = round(float(reference / value if better == "less" else value / reference), 3)
    # Plain floats: NumPy's have no JSON form.
    known = None if reference is None else float(reference)
    return Row(suite, case, metric, round(float(value), 5), unit, known, ratio)


class Clock:
    """Seconds of processor time and of wall time spent in a `with timed()` block."""

    cpu = wall = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Measure a block in this process."""
    clock, cpu, wall = Clock(), time.process_time(), time.perf_counter()
    yield clock
    clock.cpu, clock.wall = time.process_time() - cpu, time.perf_counter() - wall


def report(suites: dict[str, Callable[[], Iterator[Row]]]) -> None:
    """Run the suites, print their rows as they come, write all of them."""
    console, rows = Console(width=130), []
    for name, suite in suites.items():
        table = Table("case", "metric", "value", "unit", "reference", "times better", title=name)
        for one in suite():
            rows.append(one)
            shown = "" if one.reference is None else f"{one.reference:.4g}"
            ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
            table.add_row(one.case, one.metric, f"{one.value:.4g}", one.unit, shown, ratio)
        console.print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    console.print(
        f"{len(rows)} rows written to {RESULTS} ({platform.machine()}, Python {platform.python_version()})"
    )
