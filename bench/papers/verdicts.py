"""The papers' questions, answered with the numbers of this run, whatever the answer is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from measure import significant

from papers.plan import HEADLINE

_SAME = 1e-3  # relative difference of two simulated quantities
Numbers = dict[str, Any]
Grid = dict[str, dict[str, Numbers]]


class Case(NamedTuple):
    """One answer, its numbers as text, and the bound of the model that was asked about."""

    answer: str
    text: str
    bound: float | None


@dataclass(frozen=True)
class Verdict:
    """A question and its cases."""

    question: str
    cases: list[Case]

    def count(self, answer: str) -> int:
        """Return how many cases have this answer: "yes", "tie" or "no"."""
        return sum(case.answer == answer for case in self.cases)

    def to_dict(self) -> Numbers:
        """For JSON: all cases."""
        counts = {answer: self.count(answer) for answer in ("yes", "tie", "no")}
        return {"question": self.question, **counts, "cases": [f"{case.answer}: {case.text}" for case in self.cases]}

    def __str__(self) -> str:
        """Return the counts over all cases, and the cases of the headline staleness."""
        counts = ", ".join(f"{answer} {self.count(answer)}" for answer in ("yes", "tie", "no"))
        headline = [case for case in self.cases if case.bound == HEADLINE] or self.cases
        shown = [f"    {case.answer}: {case.text}" for case in headline]
        return "\n".join([f"{self.question} {counts} of {len(self.cases)}", *shown])


def compare(a: Numbers, b: Numbers) -> str:
    """Tell whether `a` is below `b`: "yes" or "no" if so in every repeat, else "tie".

    The models of one repeat run one after the other and meet the same injected sleeps, so repeats are pairs. A single
    pair is a simulated run: without noise, but less than `_SAME` apart another seed would decide.
    """
    pairs = list(zip(_known(a), _known(b), strict=True))
    if len(pairs) == 1 and math.isclose(*pairs[0], rel_tol=_SAME):
        return "tie"
    if all(left < right for left, right in pairs):
        return "yes"
    return "no" if all(left > right for left, right in pairs) else "tie"


def _known(spread: Numbers) -> list[float]:
    return [math.inf if value is None else value for value in spread["samples"]]


def shown(spread: Numbers) -> str:
    """Format median and range; "never" for what no run reached."""
    words = ["never" if spread[key] is None else significant(spread[key]) for key in ("median", "min", "max")]
    return f"{words[0]} ({words[1]} to {words[2]})"


def shown_objective(spread: Numbers) -> str:
    """Format median and range of an objective."""

    def word(value: float | None) -> str:
        return "diverged" if value is None else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"

    words = [word(spread[key]) for key in ("median", "min", "max")]
    return f"{words[0]} ({words[1]} to {words[2]})"


def _pairs(grid: Grid, left: str, right: str) -> list[tuple[str, float, Numbers, Numbers]]:
    """Return (condition, s, numbers of `left`, numbers of `right`) for each s that both models have."""
    found = []
    for condition, by_label in grid.items():
        for one in by_label.values():
            other = by_label.get(f"{right}({one['bound']:g})") if one["bound"] is not None else None
            if one["model"] == left and other is not None:
                found.append((condition, one["bound"], one, other))
    return found


def _versus(grid: Grid, name: str, read: Callable[[Numbers], Numbers], question: str) -> Verdict:
    """Compare ESSP with SSP at the same staleness in every condition."""
    cases = []
    for condition, s, eager, lazy in _pairs(grid, "ESSP", "SSP"):
        text = f"{condition}, s = {s:g}: {name} ESSP {shown(read(eager))}, SSP {shown(read(lazy))}"
        cases.append(Case(compare(read(eager), read(lazy)), text, s))
    return Verdict(question, cases)


def _per_clock(grid: Grid, rising: bool) -> Verdict:
    """Compare the objective of ESSP with that of SSP after equally many clocks."""
    cases = []
    for condition, s, eager, lazy in _pairs(grid, "ESSP", "SSP"):
        pair = [one["objective_at_clock"] for one in (eager, lazy)]
        text = f"{condition}, s = {s:g}: objective ESSP {shown_objective(pair[0])}, SSP {shown_objective(pair[1])}"
        cases.append(Case(_better(*pair, rising), text, s))
    return Verdict("Is ESSP's objective per clock better than SSP's?", cases)


def _against(grid: Grid, key: str, models: tuple[str, ...], other: str, question: str) -> Verdict:
    """Compare models with the one called `other` in every condition."""
    cases = []
    for condition, by_label in grid.items():
        for label, one in by_label.items():
            if one["model"] in models and label != other and other in by_label:
                text = f"{condition}: {label} {shown(one[key])}, {other} {shown(by_label[other][key])}"
                cases.append(Case(compare(one[key], by_label[other][key]), text, one["bound"]))
    return Verdict(question, cases)


def _better(a: Numbers, b: Numbers, rising: bool) -> str:
    """Tell whether objective `a` is better than `b`, as `compare` does; what diverged is worst."""
    return compare(_negated(a), _negated(b)) if rising else compare(a, b)


def _negated(spread: Numbers) -> Numbers:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    samples = [minus(value) for value in spread["samples"]]
    ends = {"median": minus(spread["median"]), "min": minus(spread["max"]), "max": minus(spread["min"])}
    return ends | {"samples": samples}


def all_verdicts(
    objective: Grid, shares: Grid, quality: Grid, staleness: Grid, cells: list[Numbers], rising: bool
) -> list[Verdict]:
    """Return the answers; a case is "yes" or "no" only where every repeat says so.

    Parameters
    ----------
    objective, shares, quality, staleness, cells
        Numbers of the figures (`papers.numbers`).
    rising : bool
        Whether training makes the objective larger.
    """
    found = [
        _versus(staleness, "staleness", lambda one: _negated(one["mean"]), "Is ESSP's mean staleness below SSP's?"),
        _versus(staleness, "variance", lambda one: one["variance"], "Is ESSP's variance of staleness below SSP's?"),
        _per_clock(quality, rising),
        _versus(
            objective, "seconds", lambda one: one["seconds_to_target"], "Does ESSP reach the target sooner than SSP?"
        ),
        _against(objective, "seconds_to_target", ("ESSP",), "BSP", "Does ESSP reach the target sooner than BSP?"),
        _against(
            objective,
            "seconds_to_target",
            ("ESSP",),
            "SSP(0)",
            "Does ESSP reach it sooner than SSP(0), BSP without order of addition?",
        ),
        _against(objective, "seconds_to_target", ("SSP",), "BSP", "Does SSP reach the target sooner than BSP?"),
        _against(
            objective,
            "seconds_to_target",
            ("BSP", "SSP", "ESSP", "ASP", "VAP"),
            "single",
            "Is it sooner than one worker?",
        ),
        _against(objective, "seconds_to_target", ("VAP",), "BSP", "Does VAP reach the target sooner than BSP?"),
        _against(
            objective, "seconds_to_target", ("ESSP",), "Hogwild", "Does ESSP reach the target sooner than Hogwild?"
        ),
        _waits(shares),
        _diverges(cells, rising),
    ]
    return [verdict for verdict in found if verdict.cases]  # not every application and backend has every model


def _waits(shares: Grid) -> Verdict:
    cases = []
    for condition, by_label in shares.items():
        base = by_label["SSP(0)"]["shares"]["waiting"]
        for label, one in by_label.items():
            if one["model"] in ("SSP", "ESSP") and one["bound"] > 0:
                waiting = one["shares"]["waiting"]
                text = f"{condition}: share of waiting {label} {shown(waiting)}, SSP(0) {shown(base)}"
                cases.append(Case(compare(waiting, base), text, one["bound"]))
    return Verdict("Is the share of waiting below that of s = 0?", cases)


def _diverges(cells: list[Numbers], rising: bool) -> Verdict:
    """Compare over steps and staleness; where both diverged in all repeats there is nothing to compare."""
    cases = []
    by_key = {(cell["condition"], cell["step"], cell["bound"], cell["model"]): cell for cell in cells}
    for (condition, step, s, model), eager in by_key.items():
        lazy = by_key.get((condition, step, s, "SSP"))
        if model == "ESSP" and lazy is not None:
            texts = [f"{one['model']} {shown_objective(one['final_objective'])}" for one in (eager, lazy)]
            answer = _better(eager["final_objective"], lazy["final_objective"], rising)
            cases.append(Case(answer, f"{condition}, s = {s:g}, step {step:g}: {'; '.join(texts)}", s))
    return Verdict("Is ESSP's final objective better than SSP's over steps and staleness?", cases)
