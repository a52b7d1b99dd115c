"""What came of a batch, on one page: read from its parts alone, a part at a time.

Only columns of a few bytes a record are read, and ten pictures. Whoever has a folder of parts from elsewhere
has the same page of it.
"""

from __future__ import annotations

import base64
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from explainer_runtime import __version__
from explainer_runtime.batch.run import COSTS, FAILED, INVALID
from explainer_runtime.batch.store import ANSWERS, COST_PARTS
from explainer_runtime.render import page
from explainer_runtime.spec import Inputs
from explainer_runtime.views import name, number

_DISTANCES = {
    "distance_l1": "L1",
    "distance_l2": "L2",
    "distance_linf": "largest change",
    "changed": "numbers changed",
}
_MOST = 10
"""Pictures, slowest records and reasons that are shown."""
_PAIRS = 15
"""Pairs of classes, those that are most frequent."""


@dataclass
class Outcome:
    """What came of a batch.

    Attributes:
        statuses: How many records have each status.
        reasons: How many have each reason, and the id of the first.
        own: Answers about rows of each class, by what the model says of the row.
        pairs: Found changes, by the class before and after.
        found: Found ones, by the class before.
        distances: Of all found changes, by column `(M,)`.
        slowest: The records that took longest: seconds, id.
        pictures: Of some records: id, PNG.
        calls, rows, seconds: Of the model, and of the processes, all records together.
        cached: How many answers were kept from earlier.
        warnings: How many answers have each warning.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, list[Any]] = field(default_factory=dict)
    own: Counter[int] = field(default_factory=Counter)
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    found: Counter[int] = field(default_factory=Counter)
    distances: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in _DISTANCES})
    slowest: list[tuple[float, str]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    calls: float = 0
    rows: float = 0
    seconds: float = 0
    cached: int = 0
    warnings: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        """All of them."""
        return self.statuses.total()

    @property
    def explained(self) -> int:
        """Those that have an answer, found or not."""
        return self.records - self.statuses[INVALID] - self.statuses[FAILED]

    def summary(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "records": self.records,
            "explained": self.explained,
            "found": self.found.total(),
            "statuses": dict(self.statuses),
            "cached": self.cached,
            "calls": round(self.calls),
            "rows": round(self.rows),
            "seconds": round(self.seconds, 3),
        }


def read(folder: Path) -> Outcome:
    """What came of the batch in a folder."""
    told = Outcome()
    for path in sorted((folder / ANSWERS).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=_columns(file, told)):
                _count(told, pa.Table.from_batches([batch]))
    for path in sorted((folder / COST_PARTS).glob("*.parquet")) or sorted(
        (folder / ANSWERS).glob("*.parquet")
    ):
        _cost(told, pq.read_table(path, columns=["id", *COSTS]))  # beside the answers where Ray has written
    return told


def _columns(file: pq.ParquetFile, told: Outcome) -> list[str]:
    wanted = ["id", "status", "reason", "found", "class_before", "class_after", "warnings", *_DISTANCES]
    return wanted + ["picture"] * (len(told.pictures) < _MOST)


def _count(told: Outcome, some: pa.Table) -> None:
    told.statuses.update(some["status"].to_pylist())
    for row in some.filter(pc.is_valid(some["reason"])).select(["id", "reason"]).to_pylist():
        if row["reason"] in told.reasons or len(told.reasons) < 1000:
            told.reasons.setdefault(row["reason"], [0, row["id"]])[0] += 1
    told.warnings.update(pc.list_flatten(some["warnings"]).to_pylist())
    before, after = some["class_before"].to_pylist(), some["class_after"].to_pylist()
    for own, other, found in zip(before, after, some["found"].to_pylist(), strict=True):
        if own is not None:
            told.own[own] += 1
        if found:
            told.found[-1 if own is None else own] += 1
        if other is not None:
            told.pairs[own, other] += 1
    for column, held in told.distances.items():
        held.append(some[column].drop_null().to_numpy())
    if "picture" in some.column_names:
        drawn = some.filter(pc.is_valid(some["picture"])).slice(0, _MOST - len(told.pictures))
        told.pictures += [(row["id"], row["picture"]) for row in drawn.select(["id", "picture"]).to_pylist()]


def _cost(told: Outcome, some: pa.Table) -> None:
    spent = some.filter(pc.is_valid(some["together"]))
    share = 1 / spent["together"].to_numpy()
    seconds = spent["seconds"].to_numpy() * share
    told.calls += float((spent["calls"].to_numpy() * share).sum())
    told.rows += float((spent["rows"].to_numpy() * share).sum())
    told.seconds += float(seconds.sum())
    told.cached += pc.sum(spent["cached"]).as_py() or 0
    longest = np.argsort(-seconds, kind="stable")[:_MOST]
    own = [(float(seconds[place]), spent["id"][int(place)].as_py()) for place in longest]
    told.slowest = heapq.nlargest(_MOST, told.slowest + own)


def html(told: Outcome, manifest: Mapping[str, Any], inputs: Inputs) -> str:
    """The page.

    Args:
        told: What came.
        manifest: What `batch.json` says.
        inputs: The input contract of the explainer, for names of classes.
    """
    asked = manifest["asked"]
    found, explained = told.found.total(), told.explained
    lead = f"{told.records:,} records, of which {explained:,} were explained. " + (
        f"Found for {found:,} of them, {found / explained:.1%}." if explained else ""
    )
    parts = [page.section("What came of them", *_statuses(told))]
    if told.own:
        parts.append(page.section("By class", _by_class(told, inputs), *_pairs(told, inputs)))
    if any(len(one) for held in told.distances.values() for one in held):
        parts.append(page.section("How large the changes are", _distances(told)))
    if told.pictures:
        words = "Records that lie evenly spread in the source, each with its id; nobody has chosen them."
        parts.append(page.section("Some of them", page.prose(words), _pictures(told.pictures)))
    parts.append(page.section("What it took", *_took(told)))
    parts.append(page.section("Where it comes from", *_origin(asked)))
    return page.document(f"A batch, explained by {asked['kind']}", lead, *parts)


def _statuses(told: Outcome) -> Iterator[str]:
    yield page.table(["status", "records"], _counted(told.statuses))
    if told.warnings:
        yield page.table(["warning", "answers"], _counted(told.warnings))
    if told.reasons:
        ranked = sorted(told.reasons.items(), key=lambda one: -one[1][0])[:_MOST]
        rows = [(words, f"{many:,}", str(first)) for words, (many, first) in ranked]
        yield page.table(["why not", "records", "the first of them"], rows)


def _counted(many: Counter[str]) -> list[tuple[str, str]]:
    return [(words, f"{count:,}") for words, count in many.most_common(_MOST)]


def _by_class(told: Outcome, inputs: Inputs) -> str:
    rows = [
        (name(own, inputs), f"{many:,}", f"{told.found[own]:,}", f"{told.found[own] / many:.1%}")
        for own, many in sorted(told.own.items())
    ]
    return page.table(["the model's class", "records", "found", "share"], rows)


def _pairs(told: Outcome, inputs: Inputs) -> Iterator[str]:
    if told.pairs:
        rows = [
            (f"{name(own, inputs)} → {name(other, inputs)}", f"{many:,}", f"{many / told.own[own]:.1%}")
            for (own, other), many in told.pairs.most_common(_PAIRS)
        ]
        most = f" (the {_PAIRS} most frequent of {len(told.pairs)})" if len(told.pairs) > _PAIRS else ""
        yield page.table([f"found change{most}", "records", "of the class"], rows)


def _distances(told: Outcome) -> str:
    rows: list[Sequence[Any]] = []
    for column, words in _DISTANCES.items():
        held = np.concatenate(told.distances[column])
        quartiles = np.quantile(held.astype(np.float64), [0, 0.25, 0.5, 0.75, 1])
        rows.append((words, *(number(float(one)) for one in quartiles)))
    return page.table(
        ["of found changes", "least", "a quarter below", "median", "a quarter above", "most"], rows
    )


def _pictures(pictures: Iterable[tuple[str, bytes]]) -> str:
    each = []
    for which, data in pictures:
        words, source = escape(str(which)), base64.b64encode(data).decode()
        seen = f'<img alt="The explanation of {words}" src="data:image/png;base64,{source}">'
        each.append(f"<figure>{seen}<figcaption>{words}</figcaption></figure>")
    return '<div class="grid">\n' + "\n".join(each) + "\n</div>"


def _took(told: Outcome) -> Iterator[str]:
    each = max(1, told.explained)
    calls, rows = number(told.calls / each), number(told.rows / each)
    yield page.prose(
        f"The model was asked {told.calls:,.0f} times about {told.rows:,.0f} rows: {calls} times and {rows} "
        f"rows for each that was explained. All processes together took {number(told.seconds)} seconds, "
        f"{number(told.seconds / each)} for each."
        + f" {told.cached:,} answers were kept from earlier."
        * bool(told.cached)
    )
    if told.slowest:
        yield page.table(["the slowest", "seconds"], [(str(who), took) for took, who in told.slowest])


def _origin(asked: Mapping[str, Any]) -> Iterator[str]:
    source, model = asked["source"], " ".join(f"{word} {text}" for word, text in asked["model"].items())
    files = f"{source['kind']}, {source['records']:,} records, files: {source['files']:,}"
    yield page.terms(
        {
            "made by": f"explainer_runtime {asked['release']}, page by {__version__}",
            "artifact": asked["artifact"],
            "model": model or "says nothing of itself",
            "source": f"{files}, {source['sha256']}",
        }
    )
    yield page.details("Options", asked["options"])
