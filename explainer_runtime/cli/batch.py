"""`batch`: explain a table of records, go on where a run was killed, and say what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainer_runtime.cli.output import say, tell
from explainer_runtime.cli.words import Address, Artifact, Json, Label, Logits, ModelFile, Resize

if TYPE_CHECKING:
    from explainer_runtime.batch.report import Outcome
    from explainer_runtime.batch.workers import Progress

PAGE = "batch-report.html"


def batch(
    path: Artifact,
    data: Annotated[
        Path,
        typer.Option(
            metavar="SOURCE", help="A .parquet file, a folder of them or of pictures, .npz or .npy."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DEST", help="Folder for the answers, or of a run to go on.")],
    model: ModelFile = None,
    predictor: Address = None,
    logits: Logits = False,
    label: Label = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the method, the same for every record."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Column of ids in parquet; default: id.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of rows; default: the only one that may be.")
    ] = None,
    resize: Resize = None,
    together: Annotated[
        int, typer.Option(min=1, max=1024, help="Rows explained at once: cheaper, and another answer.")
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes, of one thread each. Default: all cores.")
    ] = None,
    rows_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="Rows that a served model is asked about, by all together.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds for which a model that is down is asked again.")
    ] = 300.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first record that cannot be explained.")
    ] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Write whole answers, too.")] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Draw every answer, as PNG.")] = False,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR[:SIZE]", help="Keep answers here between runs.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on Ray: auto, of the cluster here, or local.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain many records: parquet in, parquet out. The same command goes on where a run was killed."""
    from explainer_runtime.hosts.platform import needs

    needs.require("a batch", "batch")
    if ray is not None:
        needs.require("a batch on Ray", "ray")
    from explainer_runtime import __version__, artifact
    from explainer_runtime.batch import report, source, store
    from explainer_runtime.batch import workers as machine
    from explainer_runtime.batch.run import check_options, with_resize
    from explainer_runtime.cli import models, requests
    from explainer_runtime.errors import InvalidInput
    from explainer_runtime.methods import parse_spec
    from explainer_runtime.predictors.settings import Endpoint, ModelContract
    from explainer_runtime.spec import Inputs, parse

    found = artifact.verify(path)
    spec, inputs = parse_spec(found.manifest["spec"]), parse(Inputs, found.manifest["inputs"], "inputs")
    options = requests.read_options(option or [])
    check_options(spec, options)
    inputs = with_resize(inputs, resize)
    said = models.chosen(model, predictor, **models.said(logits, label))
    needs.check(found, str(path))
    if isinstance(said, Endpoint):
        rows_per_second = rows_per_second or said.rows_per_second
        said = said.model_copy(update={"rows_per_second": None})  # of each process; this one is of all
    elif rows_per_second is not None:
        raise InvalidInput(
            "a model in this process is nobody else's; it goes with --predictor", "rows-per-second"
        )
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise InvalidInput(f"{out}: lies in {data}, and its answers would be records; name another", "out")
    records = source.opened(data, id_column, column)
    if ray is not None and (records.kind != "parquet" or strict):
        raise InvalidInput(f"takes parquet, and no --strict; {data} are {records.kind}", "ray")
    block = max(machine.BLOCK, together)
    per_part = max(1, machine.PART // block // (16 if dense or pictures else 1))
    words = said.model_dump(mode="json", exclude_unset=True)
    asked = {
        "release": __version__,
        "kind": spec.kind,
        "artifact": found.digest,
        "options": options,
        "seed": options.get("seed", getattr(spec, "seed", None)),
        "resize": inputs.resize,
        "contract": {name: words[name] for name in sorted(ModelContract.model_fields) if name in words},
        "source": {"kind": records.kind, "records": records.total, **records.said},
        "columns": [records.id, records.column],
        "block": block,
        "part": per_part * block,
        "together": together,
        "dense": dense,
        "pictures": pictures,
    }
    explains = {
        "artifact": str(path),
        "model": {**words, "kind": said.kind},
        "options": options,
        "digest": found.digest,
        "id": records.id,
        "column": records.column,
        "resize": resize,
        "together": together,
        "dense": dense,
        "pictures": pictures,
        "kept": cache,
    }
    count = workers or len(os.sched_getaffinity(0))
    plan = machine.Plan(explains, asked, block, count, rows_per_second, strict, patience)
    with store.opened(out, per_part) as kept:
        if ray is not None:
            from explainer_runtime.batch import ray as cluster

            cluster.run(
                explains, asked, data, kept, address=ray, workers=workers, rows_per_second=rows_per_second
            )
        else:
            with _bar(records.total) as told:
                machine.run(plan, records, kept, told)
        kept.finish(-(-records.total // block), {})
        outcome = report.read(out)
        (out / PAGE).write_text(report.html(outcome, store.read(out), inputs), encoding="utf-8")
    if strict and outcome.reasons:  # of an earlier run, which was not
        reason, (_, first) = next(iter(outcome.reasons.items()))
        raise InvalidInput(f"{first}: {reason}", "data")
    document = {"artifact": str(path), "out": str(out), "page": str(out / PAGE), **outcome.summary()}
    say(f"found {outcome.found.total():,} of {outcome.explained:,} explained; see {out / PAGE}")
    tell(json, document, lambda: _table(outcome))


def _table(outcome: Outcome) -> Any:
    from rich.table import Table

    shown = Table()
    shown.add_column("status")
    shown.add_column("records", justify="right")
    for status, many in outcome.statuses.most_common():
        shown.add_row(status, f"{many:,}")
    return shown


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Progress], None]]:
    """Tells how far it is: a bar where there is a terminal, else a line now and then."""
    import sys

    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(at: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _EVERY or at.done == at.total:
                last = time.monotonic()
                say(f"{at.done:,} of {at.total:,} records; {_words(at)}")

        say(f"{total:,} records ...")
        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=total)
        yield lambda at: bars.update(task, completed=at.done, description=_words(at))


_EVERY = 10.0
"""Seconds between two lines."""


def _words(at: Progress) -> str:
    rate = at.here / max(at.seconds, 1e-9)
    left = (at.total - at.done) / max(rate, 1e-9)
    share = f"{at.found / at.explained:.0%} found" if at.explained else "none explained"
    each = max(1, at.explained)
    cost = f"{at.calls / each:.3g} calls, {at.rows / each:.3g} rows each"
    return f"{rate:.3g} a second, {_span(left)} left, {share}, {cost}"


def _span(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
    )
