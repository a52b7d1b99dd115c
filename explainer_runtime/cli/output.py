"""What a command says, and where: results on stdout, everything else on stderr, errors in one line.

The exit status is 2 where the caller must change something (a file, an option, a setting) and 1 where trying
again may help (the model is down). EXPLAINER_RUNTIME_DEBUG=1 shows the traceback of any error.
"""

from __future__ import annotations

import json as jsonlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.core import TyperGroup

from explainer_runtime.errors import TO_CHANGE, ExplainerError, InvalidSpec

_START = time.monotonic()
"""About when the command began: this is among the first that it imports."""


class Commands(TyperGroup):
    """The commands; what goes wrong in one becomes one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        json = "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            usage = hasattr(error, "format_message")  # a wrong flag: typer shows it together with the usage
            if os.environ.get("EXPLAINER_RUNTIME_DEBUG") or (usage and not json):
                raise
            raise typer.Exit(_complain(error, json)) from None


def tell(json: bool, document: Mapping[str, Any], show: Callable[[], Any]) -> None:
    """The result of a command: `document` as one JSON object, or what `show` returns, for people."""
    if json:
        print(jsonlib.dumps(document, default=_plain, allow_nan=False))
        sys.stdout.flush()
    else:
        from rich.console import Console

        Console().print(show())


def say(line: str) -> None:
    """A step that is done, or begun, on stderr, with the seconds since the command was."""
    from rich.console import Console
    from rich.markup import escape

    clock = f"[dim]{time.monotonic() - _START:5.1f} s[/]"
    Console(stderr=True, highlight=False).print(f"{clock}  {escape(line)}", soft_wrap=True)


@contextmanager
def progress(label: str, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr where that is a terminal, told the fraction that is done; elsewhere a line,
    unless it is to be `quiet`."""
    if not sys.stderr.isatty():
        if not quiet:
            say(f"{label} ...")
        yield lambda fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None)  # a moving bar, until a fraction is known
        yield lambda fraction: bars.update(task, total=1.0, completed=fraction)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow, if it is installed and not another back end of Keras is asked for, without the lines
    that its C++ writes to stderr meanwhile."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with suppress(ImportError), _hushed():
        import tensorflow  # noqa: F401


@contextmanager
def _hushed() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as aside:
            os.dup2(aside.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)


def _complain(error: Exception, json: bool) -> int:
    message, field, status = _fault(error)
    if json:
        print(jsonlib.dumps({"error": message, "field": field}))
    else:
        print(f"error: {message}", file=sys.stderr)
    return status


def _fault(error: Exception) -> tuple[str, str | None, int]:
    """What to say about an error, the field it is about, and the exit status."""
    if hasattr(error, "format_message"):
        return error.format_message(), getattr(getattr(error, "param", None), "name", None), 2
    status = 2 if isinstance(error, TO_CHANGE) else 1
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error), None, status
    if not isinstance(error, ExplainerError):
        what = f"{type(error).__name__}: {error}"
        return f"internal error: {what}; EXPLAINER_RUNTIME_DEBUG=1 shows where", None, status
    message, field = str(error), getattr(error, "field", None)
    if field is None:  # specs and settings are named at the start of their message
        named = re.match(r"([A-Za-z_][\w.\[\]]*): ", message) if isinstance(error, InvalidSpec) else None
        return message, named and named[1], status
    return message if field in message else f"{field}: {message}", field, status


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
