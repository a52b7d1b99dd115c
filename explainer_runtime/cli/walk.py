"""`demo` in a terminal: each step as it is done, the table, the servers kept up where asked for."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from explainer_runtime import demo
from explainer_runtime.cli.output import progress, say, tell
from explainer_runtime.demo import questions, report
from explainer_runtime.demo.report import Outcome
from explainer_runtime.demo.servers import Server


def walk(out: Path, *, keep: bool, retrain: bool, json: bool) -> int:
    """Run the demo and tell how it went; the exit status, 0 if everything held."""
    console = Console(stderr=True, highlight=False)

    def ready(outcome: Outcome, servers: list[Server]) -> None:
        tell(json, report.summary(outcome), lambda: report.table(outcome))
        for failure in outcome.failures:
            console.print(f"[red]failed:[/] {failure}", soft_wrap=True)
        say(f"the pictures are in {out / 'report.html'}, the numbers in {out / 'summary.json'}")
        if keep:
            _hold(servers, out, console)

    outcome = demo.run(out, retrain=retrain, say=say, bar=progress, ready=ready)
    return 1 if outcome.failures else 0


def _hold(servers: list[Server], out: Path, console: Console) -> None:
    """Wait until Ctrl-C, or until a server is gone."""
    pages = " and ".join(server.url("/page/") for server in servers)
    console.print(
        f"\nThe servers stay up until Ctrl-C. Look at {pages}, or ask one of them:\n", soft_wrap=True
    )
    for server, name in zip(servers, (questions.CF, questions.ANCHOR), strict=True):
        url = server.url(f"/v2/models/{name}/explain")
        header = "-H 'content-type: application/json'"
        console.print(f"  curl -s {url} {header} -d @{out / 'request.json'}", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        while all(server.process.poll() is None for server in servers):
            time.sleep(0.5)
