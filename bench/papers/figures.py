"""The figures, drawn from the numbers that also go into the JSON files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from papers.plan import HEADLINE

Numbers = dict[str, Any]
Grid = dict[str, dict[str, Numbers]]


class Scale(NamedTuple):
    """The axis of an objective.

    Attributes
    ----------
    quantity : str
        What the objective is.
    rising : bool
        Whether training makes it larger.
    span : float
        From the first objective to the best.
    """

    quantity: str
    rising: bool
    span: float

    @staticmethod
    def of(quantity: str, rising: bool, grid: Grid) -> Scale:
        """Return the scale of the curves in a grid."""
        of_all = [one for by_label in grid.values() for one in by_label.values()]
        first = float(of_all[0]["curve"]["objective"][0])
        best = Scale(quantity, rising, 0.0).best([one["final_objective"] for one in of_all])
        return Scale(quantity, rising, abs(best - first))

    def best(self, spreads: Iterable[Numbers], key: str | None = None) -> float:
        """Return the best of objectives, by default of all repeats; what diverged is left out."""
        known = [spread[key or ("max" if self.rising else "min")] for spread in spreads]
        found = [value for value in known if value is not None]
        return max(found) if self.rising else min(found)

    def limit(self, ax: Axes, best: float, above: float, worst: float) -> None:
        """Show what lies between `worst` and `best`, and a share `above` of the span beyond that."""
        ends = worst, best + above * self.span * (1 if self.rising else -1)
        ax.set_ylim(min(ends), max(ends))

    def worse(self, objective: float, share: float) -> float:
        """Return what is worse than `objective` by a share of the span."""
        return objective + share * self.span * (-1 if self.rising else 1)


COLORS = {
    "BSP": "black",
    "SSP": "tab:orange",
    "ESSP": "tab:blue",
    "ASP": "tab:red",
    "VAP": "tab:green",
    "Hogwild": "tab:purple",
    "single": "tab:gray",
}
_DRAWN_BOUNDS = (HEADLINE, 16)  # where there is room for two
_SHARES = {"computing": "tab:green", "sleeping": "tab:gray", "exchanging": "tab:blue", "waiting": "tab:red"}
_DPI = 80


def save(images: list[Image.Image], path: Path) -> None:
    """Write images, one below the other, as a PNG of 128 colours: half the bytes."""
    whole = Image.new("RGB", (max(one.width for one in images), sum(one.height for one in images)), "white")
    top = 0
    for one in images:
        whole.paste(one, (0, top))
        top += one.height
    # The usual method gives thin lines the colours of what there is more of.
    whole.quantize(128, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def image(figure: Figure) -> Image.Image:
    """Return the figure drawn, and close it."""
    figure.set_dpi(_DPI)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    plt.close(figure)
    return drawn


def subplots(rows: int, titles: list[str], question: str, height: float = 3.2) -> tuple[Figure, Any]:
    """Return a figure of `rows` x conditions, titled by its question."""
    figure, axes = plt.subplots(
        rows, len(titles), figsize=(4.2 * len(titles), height * rows + 0.4), squeeze=False, layout="constrained"
    )
    figure.suptitle(question)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title.replace("; ", "\n"), fontsize=8)
    return figure, axes


def _drawn(bound: float | None, model: str, bounds: set[float]) -> bool:
    """Tell whether a model's line is drawn; those of small sizes have other staleness: all of theirs."""
    if model not in ("SSP", "ESSP"):
        return True
    chosen = bounds & set(_DRAWN_BOUNDS) or bounds - {0.0}
    return bound in chosen


def draw_objective(grid: Grid, titles: dict[str, str], target: float, scale: Scale) -> Image.Image:
    """Figure 1: objective against time (above) and against clocks (below)."""
    verb = "raises" if scale.rising else "lowers"
    question = f"Which model {verb} the objective soonest, and per clock?"
    figure, axes = subplots(2, [titles[name] for name in grid], question)
    for column, by_label in enumerate(grid.values()):
        bounds = {one["bound"] for one in by_label.values() if one["model"] == "ESSP"}
        longest, best = 0.0, scale.best([one["final_objective"] for one in by_label.values()])
        for label, one in by_label.items():
            if not _drawn(one["bound"], one["model"], bounds):
                continue
            curve = {name: np.array(values, float) for name, values in one["curve"].items()}
            largest = max(other["bound"] or 0 for other in by_label.values() if other["model"] == one["model"])
            dashed = "--" if one["bound"] == largest else "-"
            look = {"color": COLORS[one["model"]], "ls": dashed, "lw": 1, "label": label}
            axes[0, column].plot(curve["seconds"], curve["objective"], **look)
            axes[1, column].plot(curve["clocks"], curve["objective"], **look)
            if one["model"] not in ("single",):
                longest = max(longest, curve["seconds"][-1])
        axes[0, column].set_xlim(0, longest)
        for ax, name in ((axes[0, column], "seconds"), (axes[1, column], "clocks (mean of the workers)")):
            ax.axhline(target, color="lightgray", zorder=0)
            ax.set_xlabel(name)
            scale.limit(ax, best, 0.025, scale.worse(target, 0.35))
        axes[1, column].legend(fontsize=6)
    axes[0, 0].set_ylabel(scale.quantity)
    axes[1, 0].set_ylabel(scale.quantity)
    return image(figure)


def draw_shares(grid: Grid, titles: dict[str, str]) -> Image.Image:
    """Figure 2: shares of time for each model and staleness."""
    figure, axes = subplots(1, [titles[name] for name in grid], "What do workers spend their time on?", height=3.6)
    for ax, by_label in zip(axes[0], grid.values(), strict=True):
        labels = [label for label, one in by_label.items() if one["model"] != "single"]
        bottom = np.zeros(len(labels))
        for name, color in _SHARES.items():
            heights = np.array([by_label[label]["mean_shares"][name] for label in labels])
            ax.bar(labels, heights, bottom=bottom, color=color, label=name)
            bottom += heights
        ax.tick_params(axis="x", rotation=90, labelsize=7)
    axes[0, 0].set_ylabel("share of the workers' time")
    axes[0, 0].legend(fontsize=7, loc="lower left")
    return image(figure)


def _against_staleness(ax: Axes, by_label: dict[str, Numbers], key: str) -> None:
    """Draw SSP and ESSP as lines over s, the others as levels."""
    known = [one["bound"] for one in by_label.values() if one["model"] == "SSP"]
    for model in ("SSP", "ESSP"):
        points = [one for one in by_label.values() if one["model"] == model or (model == "ESSP" and one["bound"] == 0)]
        points.sort(key=lambda one: one["bound"])
        places = [known.index(one["bound"]) for one in points]
        # What diverged has no point.
        middle, low, high = (np.array([one[key][end] for one in points], float) for end in ("median", "min", "max"))
        ax.errorbar(
            places,
            middle,
            [middle - low, high - middle],
            color=COLORS[model],
            label=model,
            marker="o",
            ms=3,
            lw=1,
            capsize=2,
        )
    for label, one in by_label.items():
        if one["model"] in ("BSP", "ASP", "VAP", "Hogwild") and one[key]["median"] is not None:
            ax.axhline(one[key]["median"], color=COLORS[one["model"]], lw=0.8, ls=":", label=label)
    ax.set_xticks(range(len(known)), [f"{s:g}" for s in known])
    ax.set_xlabel("staleness s")


def draw_quantity_quality(grid: Grid, titles: dict[str, str], clock: int, scale: Scale) -> Image.Image:
    """Figure 3: clocks per second (above) and the objective at one clock (below) against s."""
    question = "More clocks per second for worse ones? (quantity above, quality below)"
    figure, axes = subplots(2, [titles[name] for name in grid], question, height=2.6)
    for column, by_label in enumerate(grid.values()):
        _against_staleness(axes[0, column], by_label, "clocks_per_second")
        _against_staleness(axes[1, column], by_label, "objective_at_clock")
        best = scale.best([one["objective_at_clock"] for one in by_label.values()], "median")
        known = [one["objective_at_clock"]["median"] for one in by_label.values() if one["model"] in ("SSP", "ESSP")]
        range_ = max((abs(value - best) for value in known if value is not None), default=0.0)
        share = min(max(range_ / scale.span, 0.05), 0.15)  # what diverged lies outside
        scale.limit(axes[1, column], best, 0.005, scale.worse(best, share))
    axes[0, 0].set_ylabel("clocks per second")
    axes[1, 0].set_ylabel(f"{scale.quantity}\nafter {clock} clocks")
    axes[0, 0].legend(fontsize=7)
    return image(figure)


def draw_staleness(grid: Grid, titles: dict[str, str]) -> Image.Image:
    """Figure 4: histograms of the clock differential of SSP and ESSP at the staleness drawn."""
    bounds = sorted({one["bound"] for by_label in grid.values() for one in by_label.values() if one["model"] == "ESSP"})
    drawn = [s for s in bounds if s in _DRAWN_BOUNDS] or bounds
    question = "How stale are reads? Visible clock minus the reader's clock"
    figure, axes = subplots(len(drawn), [titles[name] for name in grid], question, height=2.4)
    for row, s in enumerate(drawn):
        for ax, by_label in zip(axes[row], grid.values(), strict=True):
            for shift, model in ((-0.2, "SSP"), (0.2, "ESSP")):
                one = by_label.get(f"{model}({s:g})")
                if one is None:  # not every condition has every staleness
                    continue
                counts = {int(d): n for d, n in one["counts"].items()}
                shares = np.array(list(counts.values())) / sum(counts.values())
                text = f"{model}({s:g}): mean {one['mean']['median']:.2f}, variance {one['variance']['median']:.2f}"
                ax.bar(np.array(list(counts)) + shift, shares, 0.4, color=COLORS[model], label=text)
            if not ax.containers:
                ax.axis("off")
                continue
            ax.legend(fontsize=7)
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[row, 0].set_ylabel("share of reads")
    for ax in axes[-1]:
        ax.set_xlabel("clock differential")
    return image(figure)


def draw_divergence(cells: list[Numbers], titles: dict[str, str]) -> Image.Image:
    """Figure 5: final objective over staleness and step size, one map for each condition and model.

    Only of objectives that fall to something above 0.
    """
    steps = sorted({cell["step"] for cell in cells})
    bounds = sorted({cell["bound"] for cell in cells})
    maps = sorted({(cell["condition"], cell["model"]) for cell in cells}, key=lambda one: (one[0], len(one[1])))
    names = [f"{model}\n{titles[condition]}" for condition, model in maps]
    figure, axes = subplots(1, names, "Where does training diverge? Final objective, median", height=2.8)
    best = min(cell["final_objective"]["median"] or math.inf for cell in cells)
    for ax, chosen in zip(axes[0], maps, strict=True):
        values = np.full((len(bounds), len(steps)), np.nan)
        for cell in cells:
            if (cell["condition"], cell["model"]) == chosen and cell["final_objective"]["median"] is not None:
                values[bounds.index(cell["bound"]), steps.index(cell["step"])] = cell["final_objective"]["median"]
        ax.set_facecolor("black")
        ax.imshow(values, cmap="viridis_r", vmin=best, vmax=1.25 * best, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(values):
            text = "diverged" if math.isnan(value) else f"{value:.3f}" if value < 100 else f"{value:.0e}"
            color = "white" if math.isnan(value) or value > 1.12 * best else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
        ax.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
        ax.set_yticks(range(len(bounds)), [f"{s:g}" for s in bounds])
        ax.set_xlabel("step size")
        ax.set_ylabel("staleness s")
    return image(figure)


def draw_target(grid: Grid, titles: dict[str, str]) -> Image.Image:
    """Figure 6: time to the target, baselines included."""
    question = "Seconds to the objective of one worker at half its epochs: median, minimum, maximum"
    figure, axes = subplots(1, [titles[name] for name in grid], question, height=3.8)
    for ax, by_label in zip(axes[0], grid.values(), strict=True):
        for place, one in enumerate(by_label.values()):
            hit = one["seconds_to_target"]
            color = COLORS[one["model"]]
            if hit["median"] is None:
                ax.text(0, place, " never", va="center", fontsize=7, color=color)
                continue
            high = hit["median"] if hit["max"] is None else hit["max"]
            error = [[hit["median"] - hit["min"]], [high - hit["median"]]]
            ax.barh(place, hit["median"], xerr=error, color=color, height=0.7, error_kw={"lw": 1, "capsize": 2})
        ax.set_yticks(range(len(by_label)), list(by_label), fontsize=7)
        ax.invert_yaxis()
        ax.set_xlabel("seconds")
    return image(figure)
