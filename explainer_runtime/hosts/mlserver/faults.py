"""What goes wrong inside a runtime, as the error that MLServer answers with our status and one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from mlserver.errors import MLServerError
from mlserver.logging import logger

from explainer_runtime.errors import ExplainerError, PredictorError
from explainer_runtime.hosts.service.caller import caller
from explainer_runtime.hosts.service.status import fault


@contextmanager
def faults() -> Iterator[None]:
    """Within, an error becomes MLServer's; a bug is logged, and its caller told nothing."""
    try:
        yield
    except MLServerError:
        raise
    except Exception as error:
        status, message = fault(error)
        if not isinstance(error, ExplainerError):
            logger.exception("unexpected error")
        elif status >= 500:
            quoted = error.quoted if isinstance(error, PredictorError) else ""
            logger.warning(message.replace(quoted, "(its words are not logged)") if quoted else message)
        seconds = getattr(error, "retry_after", None)
        caller().retry_after = None if seconds is None else max(1, ceil(seconds))
        # A future keeps its error, and whoever waited for it is in the traceback, with rows and requests.
        error.__traceback__ = None
        raise MLServerError(message, status) from None
