"""What scikit-learn's tools (clone, cross-validation, search) expect of a regressor; scikit-learn is not needed."""

from __future__ import annotations

import inspect
from typing import Any, Self

from nbps.errors import ConfigError


class Parameters:
    """An estimator whose constructor's arguments are attributes of the same names, unchanged."""

    @classmethod
    def _names(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **parameters: Any) -> Self:
        """Change constructor arguments by name.

        Raises
        ------
        ConfigError
            If there is none of a name; nothing is changed.
        """
        unknown = sorted(set(parameters) - set(self._names()))
        if unknown:
            known = ", ".join(self._names())
            raise ConfigError(f"unknown parameter {unknown[0]!r} of {type(self).__name__}; known: {known}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=False),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(string=True, sparse=True),
        )

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)]
        return f"{type(self).__name__}({', '.join(given)})"
