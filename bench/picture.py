"""Draw the README's picture of what `mf.py` measured last: test error over training seconds, beside the peers."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from measure import RESULTS
from readme import load

# Name in the results, name in the picture, colour; from the fastest to the slowest.
_LINES = (
    ("nbps", "nbps, 2 worker processes", "tab:blue"),
    ("libmf", "LIBMF, 2 threads", "tab:orange"),
    ("torch", "PyTorch, Hogwild, 2 processes", "tab:green"),
    ("ray", "Ray, actor as parameter server, 2 workers", "tab:red"),
)


def curve(system: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return training seconds and test RMSE after each epoch, of the run that took the median time."""
    runs = sorted(system["epochs"], key=lambda epochs: epochs[-1]["train_seconds"])
    epochs = runs[len(runs) // 2]
    return [one["train_seconds"] for one in epochs], [one["test_rmse"] for one in epochs]


def main() -> None:
    """Write ``results/mf.svg``."""
    result = load("mf")
    mpl.rcParams.update({"svg.hashsalt": "nbps", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, ax = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for name, label, color in _LINES:
        if name in result["systems"]:
            seconds, errors = curve(result["systems"][name])
            ax.plot(seconds, errors, marker="o", ms=3, lw=1.5, color=color, label=label)
    ax.set_xscale("log")
    ax.set_ylim(0.835, 0.955)
    ax.set_xlabel("seconds of training (logarithmic)")
    ax.set_ylabel("RMSE on held-out ratings")
    ax.set_title(f"MovieLens 1M, rank {result['rank']}, {result['machine']['usable_cores']} cores: a point an epoch")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "mf.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
