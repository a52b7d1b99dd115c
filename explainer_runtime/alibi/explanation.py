"""What a notebook gets back: `meta` and `data`, every key of both an attribute as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from warnings import warn

import orjson

from explainer_runtime.explanation import Explanation as Answer
from explainer_runtime.explanation import jsonable


class Explanation:
    """One answer, for one instance.

    Attributes:
        meta: Which explainer, with what settings: `name`, `type`, `explanations`, `params`, `version`, and
            `cost`, the calls and rows it took from the model.
        data: The answer; which fields it has is the explainer's to say.
    """

    meta: Mapping[str, Any]
    data: Mapping[str, Any]

    def __init__(
        self, meta: Mapping[str, Any], data: Mapping[str, Any], answer: Answer | None = None
    ) -> None:
        self.meta, self.data, self._answer = meta, data, answer

    def __getattr__(self, name: str) -> Any:
        for part in (self.__dict__.get("data", {}), self.__dict__.get("meta", {})):
            if name in part:
                return part[name]
        raise AttributeError(f"an explanation by {self._name} has no {name!r}; it has {', '.join(dir(self))}")

    def __getitem__(self, name: str) -> Any:
        warn(f"explanation[{name!r}] is now explanation.{name}", DeprecationWarning, stacklevel=2)
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __dir__(self) -> list[str]:
        return ["data", "from_json", "meta", "to_json", *self.data, *self.meta]

    def __repr__(self) -> str:
        return f"<Explanation by {self._name}: {', '.join(self.data)}>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the picture, where the rows are images and it was not read from JSON."""
        return None if self._answer is None else self._answer._repr_html_()

    def to_json(self) -> str:
        """`{"meta": ..., "data": ...}` as JSON: arrays as nested lists, numbered keys as strings."""
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return orjson.dumps({"meta": self.meta, "data": self.data}, default=jsonable, option=options).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Explanation:
        """What `to_json` wrote; arrays come back as nested lists, numbered keys as strings.

        Raises:
            ValueError: It is not that.
        """
        read = orjson.loads(text)
        if not isinstance(read, dict) or set(read) != {"meta", "data"}:
            raise ValueError('expected a JSON object with "meta" and "data"')
        return cls(read["meta"], read["data"])

    @property
    def _name(self) -> str:
        return str(self.__dict__.get("meta", {}).get("name", "nobody"))
