"""White boxes by PyTorch: a module of one's own, on whatever device its parameters are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidSpec, PredictorError
from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.forms import Form
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.predictors.white_box import Back, Differentiable, Engine, Slopes

_TOGETHER = {"cpu": 32}
_DEVICE = 1024
"""Rows computed together: as many as stay in a processor's cache; more where a call is what is dear."""


class TorchPredictor(Differentiable):
    """A `torch.nn.Module` from rows `(N, *S)` to numbers, in evaluation mode: a `WhiteBox`.

    A softmax or sigmoid is cut off where it ends a `Sequential`; let any other module end in logits.

    Args:
        module: The model; neither it nor the gradients of its parameters are changed.
        shape: Shape of one row, without the batch.
        contract: What its numbers mean.

    Attributes:
        abreast: Rows that are best computed together.

    Raises:
        InvalidSpec: It is in training mode, or cannot be called with such rows.
    """

    def __init__(self, module: Any, shape: Sequence[int], contract: ModelContract | None = None) -> None:
        import torch

        contract, name = contract or ModelContract(), f"the module {type(module).__name__!r}"
        if module.training:
            raise InvalidSpec(f"{name}: is in training mode; call its `eval()`; {meaning.PAGE}")
        weights = module.state_dict().values()

        def learnt() -> Iterable[np.ndarray]:
            return (one.detach().cpu().numpy() for one in weights)

        device = next((one.device for one in weights), torch.device("cpu"))
        self.abreast = _TOGETHER.get(device.type, _DEVICE)
        rows = Slopes(_engine(torch, module, contract, device, name, self.abreast))
        made = rows(np.zeros((2, *shape), np.float32))
        form = Form(module, tuple(shape), name, smooth=module, weights=learnt)
        super().__init__(form, contract, rows, 1 if made.ndim == 1 else made.shape[-1])
        self._end, before = _cut(torch, module) if contract.output != "logits" else ("", module)
        self._slopes = Slopes(_engine(torch, before, contract, device, name, self.abreast))

    def smooth(self) -> tuple[Slopes, Callable[[], str]]:
        """See `Differentiable`."""
        return self._slopes, lambda: self._end


def _engine(torch: Any, module: Any, contract: ModelContract, device: Any, name: str, most: int) -> Engine:
    def called(x: Any) -> Any:
        scale, offset = (
            torch.as_tensor(one, device=device) for one in meaning.affine(contract, x.shape[1:], name)
        )
        try:
            return module(x if meaning.unscaled(contract) else x * scale + offset).float()
        except torch.cuda.OutOfMemoryError as error:
            raise PredictorError(f"{name} failed: {one_line(str(error))}") from error
        except Exception as error:  # whatever a module of somebody's own raises
            raise InvalidSpec(f"{name}: cannot be called: {one_line(str(error))}; {meaning.PAGE}") from error

    def values(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(called(torch.tensor(x, device=device)).cpu())

    def forward(x: np.ndarray) -> tuple[np.ndarray, Back]:
        rows = torch.tensor(x, device=device, requires_grad=True)
        y = called(rows)

        def back(w: np.ndarray) -> np.ndarray:
            (gradient,) = torch.autograd.grad(y, rows, torch.tensor(w, device=device))
            return np.asarray(gradient.cpu())

        return np.asarray(y.detach().cpu()), back

    return Engine(values, forward, most)


def _cut(torch: Any, module: Any) -> tuple[str, Any]:
    """The function that a module ends in, and what is before it; an empty word where it does not say."""
    if isinstance(module, torch.nn.Sequential) and len(module) > 1:
        match module[-1]:
            case torch.nn.Softmax(dim=1 | -1):
                return "softmax", module[:-1]
            case torch.nn.Sigmoid():
                return "sigmoid", module[:-1]
    return "", module
