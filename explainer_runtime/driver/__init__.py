"""The one driver: runs a search against a predictor, under a budget.

A search only asks (`search/asks.py`). Everything that answering takes is here and nowhere else: what is spent
is counted, and nothing is asked that the budget does not allow (meter.py), the clock and the cancel flag are
looked at several times a second, or after each row of a model that takes longer, progress is reported, slopes
come from the model itself (`solve.py`) or from its answers alone (`estimated.py`), and large rows are
explained a few at a time (`parts.py`).
"""

from explainer_runtime.driver.meter import Budget, Progress
from explainer_runtime.driver.parts import explain
from explainer_runtime.driver.solve import shard_of, solve

__all__ = ["Budget", "Progress", "explain", "shard_of", "solve"]
