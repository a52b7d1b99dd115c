"""Answers to the name that Seldon Core 1 gives to its explainers' runtime.

Seldon's operator starts an explainer with `MLSERVER_MODEL_IMPLEMENTATION=mlserver_alibi_explain.
AlibiExplainRuntime`, whatever image it was told to use. An image that has this folder on its path serves our
explainers there, unchanged on Seldon's side. Nothing of the package of that name is used or needed, and the
folder is no part of our wheel, so that it never stands in the way of that package.
"""

from mlserver.errors import MLServerError
from mlserver.utils import get_model_uri

from explainer_runtime import artifact
from explainer_runtime.errors import ExplainerError
from explainer_runtime.hosts.mlserver import ExplainerRuntime
from explainer_runtime.hosts.platform.arguments import check_kind

__all__ = ["AlibiExplainRuntime"]


class AlibiExplainRuntime(ExplainerRuntime):
    """`ExplainerRuntime` that takes Seldon's settings.

    `infer_uri` is the model's address. `explainer_type` must be the type of the artifact: `anchor_image`,
    `counterfactuals` and `contrastive` as Seldon says, or a kind of ours. `init_parameters` is not used: an
    artifact has its settings in it.
    """

    async def load(self) -> bool:
        """Read the artifact, and refuse one of another type than the deployment says."""
        extra = (self.settings.parameters and self.settings.parameters.extra) or {}
        path = await get_model_uri(self.settings)
        try:
            check_kind(extra.get("explainer_type"), artifact.verify(path).manifest["spec"]["kind"])
        except ExplainerError as error:
            raise MLServerError(str(error), 500) from None
        return await super().load()
