"""The tests of what has changed, for a minute: those that were changed, then those that import what was.

`make check` runs this after lint, types and contracts, between one thought and the next. What starts servers,
or finds no time any more, is left to `make test`. Changed is what differs from the branch that this one left,
`main` or EXPLAINER_RUNTIME_BASE, committed or not.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
SECONDS = 60.0
HELPERS = {"servers", "cluster", "staged", "oip_servers", "test_launcher"}
"""What a test imports that starts processes."""


class Patience:
    """Runs no test any more when its time is over."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def pytest_runtest_setup(self) -> None:
        """Before each test."""
        if time.monotonic() > self.until:
            pytest.skip("no time left; `make test` runs it")


def changed() -> set[str]:
    """Paths that differ from where this branch began."""
    base = os.environ.get("EXPLAINER_RUNTIME_BASE", "main")
    since = _git("merge-base", "HEAD", base).strip() or "HEAD"
    return {
        *_git("diff", "--name-only", since).split(),
        *_git("ls-files", "-o", "--exclude-standard").split(),
    }


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, and names that it takes from packages, with dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def chosen(paths: set[str]) -> list[str]:
    """Tests of what stands at these paths: their own first."""
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths}
    pages = any(path.endswith(".md") for path in paths)
    own, others = [], []
    for path in sorted((HOME / "tests").glob("test_*.py")):
        name, seen = str(path.relative_to(HOME)), set(imports(path))
        if seen & HELPERS:
            continue
        if name in paths:
            own.append(name)
        elif seen & modules or (pages and path.stem == "test_docs"):
            others.append(name)
    return own + others


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=HOME, capture_output=True, text=True, check=False)
    return done.stdout


if __name__ == "__main__":
    tests = chosen(changed())
    print("tests:", *(tests or ["none import what has changed"]), sep="\n  ")
    sys.exit(pytest.main(["-x", "-q", *tests], plugins=[Patience(SECONDS)]) if tests else 0)
