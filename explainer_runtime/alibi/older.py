"""What notebooks of TensorFlow 1 do that TensorFlow 2 and Keras 3 no longer take: undone where it can be.

Such a notebook begins with `tf.compat.v1.disable_v2_behavior()`, makes a session and hands it to the
explainer, and loads networks whose loss an HDF5 file calls `mse`. Importing this package after its first line
is early enough to undo that; once a model was built it is too late, and then it is said what to delete.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FunctionType
from typing import Any
from warnings import warn

from explainer_runtime.alibi.settings import no_effect
from explainer_runtime.errors import InvalidSpec

_OFF = "TensorFlow runs without eager execution, and models built so cannot be explained"
_DELETE = "delete `tf.compat.v1.disable_v2_behavior()`"


def modernise() -> None:
    """Undo what an earlier line of a notebook has done to TensorFlow, where it has been imported: version 1
    is switched off again, with a warning, and HDF5 files may call losses by their short names."""
    tf, keras = sys.modules.get("tensorflow"), sys.modules.get("keras")
    if tf is not None and not tf.executing_eagerly():
        with suppress(ValueError):  # there is a graph already: `check_eager` says so to whoever explains
            tf.compat.v1.enable_v2_behavior()
            warn(f"TensorFlow 2's behaviour is switched on again; {_DELETE}", stacklevel=3)
    if keras is not None and hasattr(keras, "saving"):
        known = keras.saving.get_custom_objects()
        for name, loss in (("mse", "mean_squared_error"), ("mae", "mean_absolute_error")):
            known.setdefault(name, getattr(keras.losses, loss))


def check_eager() -> None:
    """Refuse to go on where TensorFlow builds graphs instead of computing.

    Raises:
        InvalidSpec: It does; with what to delete.
    """
    tf = sys.modules.get("tensorflow")
    if tf is not None and hasattr(tf, "executing_eagerly") and not tf.executing_eagerly():
        raise InvalidSpec(f"{_OFF}: {_DELETE} and start the notebook anew")


def without_session(constructor: Callable[..., None]) -> Callable[..., None]:
    """A constructor that may be given a session first, as the first versions of these classes were."""

    @functools.wraps(constructor)
    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and type(args[0]).__name__ in ("Session", "InteractiveSession"):
            no_effect(sess=args[0])
            args = args[1:]
        constructor(self, *args, **kwargs)

    return begin


def quiet(function: Any) -> Any:
    """`function`; one that was written in Python without the progress bars that Keras' `predict` draws."""
    if not isinstance(function, FunctionType):
        return function

    @functools.wraps(function)
    def asked(x: Any) -> Any:
        with _without_bars():
            return function(x)

    return asked


@contextmanager
def _without_bars() -> Iterator[None]:
    loaded = [sys.modules[name].utils for name in ("keras", "tf_keras") if name in sys.modules]
    loud = [utils for utils in loaded if utils.is_interactive_logging_enabled()]
    for utils in loud:
        utils.disable_interactive_logging()
    try:
        yield
    finally:
        for utils in loud:
            utils.enable_interactive_logging()
