"""What can go wrong, as one small tree. Status codes are added once, at the edge.

    ExplainerError
    ├── InvalidInput         the rows that were sent: shape, dtype, range, NaN, how many
    ├── InvalidOption        an option of the request: unknown, of the wrong type, out of range
    ├── InvalidSpec          a spec or a setting written by whoever fits or deploys
    ├── InvalidArtifact      a directory that is not, or no longer, what `save` wrote
    ├── MissingExtra         a package of an optional extra that is not installed
    ├── Cancelled            whoever asked has gone
    ├── NotFound             no explanation of this name is kept here, for this caller
    ├── Overloaded           too much is being explained already; trying later helps
    ├── Stopping             the server stops, and cannot wait for this; another one may answer
    ├── JobsUnavailable      jobs cannot be kept or read now: their disk, or their database
    └── PredictorError       the model being explained answered with an error
        ├── InvalidPrediction     ... or with something that cannot be class scores
        ├── MessageTooLarge       ... or takes no message of this size; fewer rows may pass
        ├── PredictorUnavailable  ... or cannot be reached now; trying later may help
        │   └── PredictorChanged      ... or is no longer the model that was asked before
        └── PredictorTimeout      ... or did not answer in time

Not finding an explanation is none of these: it is an answer (`found = false`).
"""

from typing import Self


class ExplainerError(Exception):
    """Anything this package raises on purpose; the message says what to change."""


class InvalidInput(ExplainerError):
    """The rows to explain break the input contract; `field` names the offending input."""

    def __init__(self, message: str, field: str = "inputs") -> None:
        super().__init__(message)
        self.field = field


class InvalidOption(ExplainerError):
    """A request option is unknown or out of range; `field` names it."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidSpec(ExplainerError):
    """A spec or a deployment setting cannot be used as written."""


class InvalidArtifact(ExplainerError):
    """An artifact directory is refused."""


class MissingExtra(ExplainerError):
    """Work was asked for that needs an optional extra of this package."""


class Cancelled(ExplainerError):
    """The explanation was stopped because nobody waits for it any more."""


class NotFound(ExplainerError):
    """No explanation of this name is kept here, for whoever asks."""


class Overloaded(ExplainerError):
    """There is no room for one more explanation; `retry_after` is when there may be, in whole seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopping(ExplainerError):
    """The server stopped before the explanation was there."""


class JobsUnavailable(ExplainerError):
    """Jobs cannot be kept or read now; what is answered at once is not touched by that."""


class PredictorError(ExplainerError):
    """The model being explained answered with an error.

    `quoted` is the part of the message that is the model's own words. Models repeat what they were sent, so
    it is told to the caller, whose rows they are, and written nowhere.
    """

    quoted = ""

    def quoting(self, text: str) -> Self:
        """This error, which quotes `text`."""
        self.quoted = text
        return self


class InvalidPrediction(PredictorError):
    """The model answered, but not with one row of finite class scores for each row sent."""


class MessageTooLarge(PredictorError):
    """The server takes no message of this size; `most` is how many bytes it takes, where it says so."""

    def __init__(self, message: str = "", most: int | None = None) -> None:
        super().__init__(message)
        self.most = most


class PredictorUnavailable(PredictorError):
    """The model cannot be reached now; the same request may work later, `retry_after` seconds if known."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PredictorChanged(PredictorUnavailable):
    """Another model answers than the one asked before: what was learnt of that one is void; ask again."""


class PredictorTimeout(PredictorError):
    """The model did not answer within the time that was left."""


TO_CHANGE = (
    InvalidInput,
    InvalidOption,
    InvalidPrediction,
    InvalidSpec,
    InvalidArtifact,
    MessageTooLarge,
    MissingExtra,
    OSError,
)
"""What ends a command with 2: trying again without a change gives the same. Anything else ends it with 1."""
