"""Words that several commands take, each with what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Directory of a fitted explainer.")]
ModelFile = Annotated[
    str | None,
    typer.Option("--model", metavar="FILE", help="A .keras or .onnx file or SavedModel, run here."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--predictor",
        metavar="URL",
        help="A served model: grpc://..., http://..., v1+http://host:port/name; JSON settings, or @FILE.",
    ),
]
Logits = Annotated[bool, typer.Option("--logits", help="The model answers with logits.")]
Label = Annotated[
    int | None, typer.Option(min=0, metavar="K", help="Explain label K of a multi-label model.")
]
Resize = Annotated[
    str | None,
    typer.Option(metavar="WORD", help="What is done with pictures of another size: none, fit, centre_crop."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Later = Annotated[bool, typer.Option("--async", help="Ask the server for a job, and do not wait; see jobs.")]
