"""What the training of a linear model is to do: every option, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nbps.checks import FINITE, real, whole
from nbps.errors import ConfigError
from nbps.models.plan import Plan

SCHEDULES = ("working_sets", "cyclic")


def check_penalty(alpha: Any, l1_ratio: Any) -> None:
    """Raise `ConfigError` unless there is something to select columns by."""
    real(
        "alpha",
        alpha,
        "a finite number > 0; least squares without a penalty are another model's",
        FINITE,
        positive=True,
    )
    real("l1_ratio", l1_ratio, "a number more than 0, which is ridge regression, to 1, the Lasso", 1.0, positive=True)


def check_flags(**flags: Any) -> None:
    """Raise `ConfigError` if one is neither True nor False."""
    for name, value in flags.items():
        if value not in (True, False):
            raise ConfigError(f"{name} is {value!r}; expected True or False")


@dataclass(frozen=True, kw_only=True)
class LinearPlan(Plan):
    """The options of a training; `ElasticNet` says what each means.

    Raises
    ------
    ConfigError
        If one cannot be used, or not with another.
    """

    owner: ClassVar[str] = "ElasticNet"

    alpha: float
    l1_ratio: float
    fit_intercept: bool
    standardize: bool
    max_iter: int
    tol: float
    positive: bool
    schedule: str
    clocks: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_penalty(self.alpha, self.l1_ratio)
        check_flags(fit_intercept=self.fit_intercept, standardize=self.standardize, positive=self.positive)
        whole("max_iter", self.max_iter, 1)
        whole("clocks", self.clocks, 1)
        real("tol", self.tol, "a finite number >= 0", FINITE)
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule is {self.schedule!r}; expected one of {', '.join(SCHEDULES)}")
        if self.schedule == "working_sets":
            if self.nodes.count > 1:
                raise ConfigError(
                    f"schedule='working_sets' on {self.nodes.count} nodes, but it is one node's; expected "
                    f"schedule='cyclic', or one node"
                )
            for name in ("checkpoint", "consistency"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} is {getattr(self, name)!r}, but schedule='working_sets' has no clocks; expected "
                        f"schedule='cyclic', or {name}=None"
                    )
