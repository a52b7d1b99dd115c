"""`explainer-runtime jobs`: what has become of explanations that a server was asked for with `--async`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainer_runtime.cli.output import progress, tell
from explainer_runtime.cli.words import Json
from explainer_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Look at explanations that a server was asked for with --async.")

Server = Annotated[str, typer.Option(metavar="URL", help="The explainer: http://host:port/name.")]
Name = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `explain --async` told it.")]
_KINDS = {".json": "application/json", ".png": "image/png", ".html": "text/html"}
_ENDED = ("done", "failed", "cancelled")


@app.command("list")
def list_(
    server: Server,
    state: Annotated[
        str | None, typer.Option(metavar="WORD", help="queued, running, done, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The newest so many.")] = 50,
    json: Json = False,
) -> None:
    """List the jobs of this token, the newest first."""
    import orjson

    from explainer_runtime.cli import remote

    query = f"?limit={limit}" + (f"&state={state}" if state else "")
    document = orjson.loads(remote.ask("GET", f"{remote.model(server)}/explanations{query}"))
    tell(
        json,
        document,
        lambda: _table([_line(job) for job in document["explanations"]], "id", "state", "done", "created"),
    )


@app.command()
def show(job: Name, server: Server, json: Json = False) -> None:
    """Show how far a job is."""
    import orjson

    from explainer_runtime.cli import remote

    show_one(json, orjson.loads(remote.ask("GET", _place(server, job))))


@app.command()
def wait(
    job: Name,
    server: Server,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the answer: .json, or drawn as .png or .html.")
    ] = None,
    json: Json = False,
) -> None:
    """Wait until a job has ended, and write its answer to a file; status 1 if it has failed."""
    from explainer_runtime.cli import remote

    if out and out.suffix not in _KINDS:
        raise InvalidInput(f"{out}: expected {', '.join(_KINDS)}", "out")
    place, seen = _place(server, job), dict[str, Any](state="")
    with progress("explaining", quiet=True) as step:
        while seen["state"] not in _ENDED:  # a server that stops ends its events, and another one goes on
            for seen in remote.watch(place):
                step(seen["fraction"])
    if out and seen["state"] == "done":
        out.write_bytes(remote.ask("GET", f"{place}/result", _KINDS[out.suffix]))
    show_one(json, seen)
    raise typer.Exit(0 if seen["state"] == "done" else 1)


@app.command()
def cancel(job: Name, server: Server, json: Json = False) -> None:
    """Cancel a job, or have it forgotten, if it has ended."""
    from explainer_runtime.cli import remote

    remote.ask("DELETE", _place(server, job))
    tell(json, {"id": job}, lambda: f"{job}: cancelled, or forgotten if it had ended")


def check(server: str | None, out: Path | None) -> None:
    """Refuse what does not go with `explain --async`."""
    if server is None or out:
        wanted = "no --out: `jobs wait` has one" if server else "--server beside it"
        raise InvalidInput(f"expected {wanted}", "async")


def show_one(json: bool, job: Mapping[str, Any]) -> None:
    """One job as the server tells of it."""
    shown = {name: job[name] for name in ("id", "state", "created", "expires", "error") if name in job}
    shown["state"] += f", {job['fraction']:.0%}"
    tell(json, job, lambda: _table([[name, word] for name, word in shown.items()]))


def _place(server: str, job: str) -> str:
    from explainer_runtime.cli import remote

    if not job.isalnum():
        raise InvalidInput(f"expected letters and digits, got {job!r}", "ID")
    return f"{remote.model(server)}/explanations/{job}"


def _line(job: Mapping[str, Any]) -> list[str]:
    return [job["id"], job["state"], f"{job['fraction']:.0%}", job["created"][:16].replace("T", " ")]


def _table(rows: list[list[str]], *names: str) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    from explainer_runtime.complaints import printable

    # What stands first is there to be copied, an id: it stays whole, however narrow the terminal is.
    whole = Column(
        names[0] if names else "", no_wrap=True, min_width=max((len(row[0]) for row in rows), default=2)
    )
    others = [Column(name, overflow="fold") for name in names[1:] or ("",)]
    table = Table(whole, *others, box=None, pad_edge=False, show_header=bool(names))
    for row in rows:
        table.add_row(*(escape(printable(word)) for word in row))
    return table
