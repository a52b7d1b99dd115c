"""`python -m explainer_runtime.cli`: the command line where its script is not on the path."""

from __future__ import annotations

from explainer_runtime.cli import main

main()
