"""What the operator allows one request to use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from explainer_runtime.spec.values import Value


class Limits(Value):
    """What the operator allows one request to use."""

    max_batch: Annotated[int, Field(ge=1)] = 16
    """Rows explained in one request."""
    max_rows: PositiveInt = 200_000
    """Rows the predictor is asked about for one request."""
    max_calls: PositiveInt = 20_000
    """Calls to the predictor for one request."""
    max_seconds: PositiveFloat = 30.0
    """Seconds for one request, after which the best answer so far is returned."""
