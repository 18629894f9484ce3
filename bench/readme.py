"""Put what the benchmarks printed last into bench/README.md: the tables between its ``bench`` markers, nothing else."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from measure import RESULTS

_PAGE = Path(__file__).with_name("README.md")
_MEDIANS = " Medians; in brackets minimum and maximum."


def load(name: str) -> dict[str, Any]:
    """Return the result of benchmark `name`."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def origin(*results: dict[str, Any]) -> str:
    """Return where and when `results` were measured, and how busy the machine was."""
    machine = results[0]["machine"]
    loads = ", ".join(f"{result['load_average_at_start']:.1f}" for result in results)
    return (
        f"{machine['cpu']}, {machine['usable_cores']} cores, Python {machine['python']}, "
        f"numba {machine['versions']['numba']}, {results[0]['date'][:10]}; "
        f"load average at the start: {loads}.{_MEDIANS}"
    )


def factorization() -> str:
    """Return the table of `mf.py` and `mf_scale.py`."""
    result, scale = load("mf"), load("mf_scale")
    lines = [
        f"ml-1m, 90/10, rank {result['rank']}, {result['workers']} workers or threads. *Seconds* are training time "
        f"until the test RMSE passes {result['goal']}; a *yardstick epoch* is one pass of a plain one-core Numba loop "
        f"({result['yardstick_epoch_seconds'] * 1e3:.0f} ms here).",
        "",
        "| system | best test RMSE | epochs | seconds | yardstick epochs | million ratings/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in result["systems"].items():
        hit, speed = one["seconds_to_goal"], one["ratings_per_second"]
        passed = ["-"] * 3
        if hit is not None:
            seconds = f"{hit['median']:.3f} ({hit['min']:.3f}-{hit['max']:.3f})"
            share = hit["median"] / result["yardstick_epoch_seconds"]
            passed = [f"{one['epochs_to_goal']['median']:g}", seconds, f"{share:.1f}"]
        rate = "{median:.3g} ({min:.3g}-{max:.3g})".format(**{k: speed[k] / 1e6 for k in ("median", "min", "max")})
        told = f" ({result['options'][name]})" if name in result.get("options", {}) else ""
        lines.append(f"| {name}{told} | {one['best_test_rmse']['median']:.4f} | {' | '.join(passed)} | {rate} |")
    lines += ["", "10 million generated ratings, 72,000 x 10,700, rank 32:", "", *quantities(scale)]
    return "\n".join([*lines, "", origin(result, scale)])


def kernels() -> str:
    """Return the table of `kernels.py`, `clock.py` and `startup.py`."""
    results = [load(name) for name in ("kernels", "clock", "startup")]
    lines = quantities(results[0])
    for result in results[1:]:
        lines += quantities(result)[2:]
    return "\n".join([*lines, "", origin(*results)])


def command() -> str | None:
    """Return the table of `command.py`, without the phases; None where it has not been run."""
    if not (RESULTS / "command.json").exists():
        return None
    result = load("command")
    shown = [one for one in result["results"] if not one["name"].startswith("  of it")]
    return "\n".join([*quantities({"results": shown}), "", origin(result)])


def defaults() -> str:
    """Return the table of `defaults.py`."""
    result = load("defaults")
    lines = ["| set | ratings | users x items | validation | test | biases alone | stopped early |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, one in result["sets"].items():
        test = one["test"]
        validation, tested, stopped = (
            f"{statistics.mean(one[part]['samples']):.4f}" for part in ("validation", "test", "stopped_early")
        )
        lines.append(
            f"| {_shown(name, one['real'])} | {one['ratings']:,} | {one['users']:,} x {one['items']:,} | "
            f"{validation} | {tested} ({test['min']:.4f}-{test['max']:.4f}) | {one['biases_alone']:.4f} | {stopped} |"
        )
    return "\n".join([*lines, "", origin(result).removesuffix(_MEDIANS)])


def _shown(name: str, is_real: bool) -> str:
    """Return the name of a set without the shape of a generated one, which has columns of its own."""
    return name if is_real else ", ".join(["generated", *name.split(", ")[1:]])


def choice() -> str | None:
    """Return the table of what other constants would give; None where they were not compared."""
    others = load("defaults").get("others")
    if others is None:
        return None
    lines = ["| | chosen | others: how much worse |", "|---|---|---|"]
    for name, own in {line["name"]: line["default"] for line in others}.items():
        told = ", ".join(f"{one['value']:g}: {one['worse']:+.2%}" for one in others if one["name"] == name)
        lines.append(f"| `{name}` | {own:g} | {told} |")
    return "\n".join(lines)


def quantities(result: dict[str, Any]) -> list[str]:
    """Return a table of a benchmark's lines, with their targets."""
    lines = ["| quantity | measured | target |", "|---|---|---|"]
    for one in result["results"]:
        measured = f"{one['median']:.3g} ({one['min']:.3g}-{one['max']:.3g}) {one['unit']}"
        target = f"{one['target']:g}: {'reached' if one['reached'] else 'missed'}" if "target" in one else ""
        told = f" ({one['note']})" if one["name"].startswith("libmf") and one["note"] else ""
        lines.append(f"| {one['name']}{told} | {measured} | {target} |")
    return lines


_NODE_PARTS = ("rows", "clock", "bytes", "mf", "soak")
# Beside the quantities that have a target: what those are compared with, and what a user asks for.
_OF_NODES = ("raw TCP", "empty clock", "a node sends", "matrix factorization", "connections cut", "clocks")


def nodes() -> str:
    """Return the table of `nodes.py`, without what only explains it."""
    results = [load(f"nodes_{part}") for part in _NODE_PARTS if (RESULTS / f"nodes_{part}.json").exists()]
    lines: list[str] = []
    for result in results:
        shown = [one for one in result["results"] if "target" in one or one["name"].startswith(_OF_NODES)]
        lines += quantities({"results": shown})[2 if lines else 0 :]
    return "\n".join([*lines, "", origin(*results)])


def lasso() -> str:
    """Return the table of `lasso.py`: a row for each task, a column for each peer."""
    result = load("lasso")
    peers = list(dict.fromkeys(line["peer"] for line in result["lines"]))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for line in result["lines"]:
        cell = f"{line['seconds']['median']:.3g} ({line['gap']:.0e})"
        rows.setdefault((line["problem"], line["task"]), {})[line["peer"]] = cell
    lines = [f"| problem | task | {' | '.join(peers)} |", "|---" * (len(peers) + 2) + "|"]
    for (problem, task), cells in rows.items():
        lines.append(f"| {problem} | {task} | {' | '.join(cells.get(peer, '-') for peer in peers)} |")
    return "\n".join([*lines, "", origin(result).removesuffix(_MEDIANS) + " Medians; in brackets the gap at the end."])


_APPLICATIONS = {"factorization": "factorization", "lda": "LDA", "lasso": "Lasso"}


def papers() -> str:
    """Return the answers to the papers' questions, a column for each application and backend."""
    results = {name: load(f"papers/{name}/papers") for name in _APPLICATIONS if _of_papers(name).exists()}
    columns = {
        f"{_APPLICATIONS[name]}, {backend}": {verdict["question"]: verdict for verdict in verdicts}
        for name, result in results.items()
        for backend, verdicts in result["verdicts"].items()
    }
    questions = list(dict.fromkeys(question for verdicts in columns.values() for question in verdicts))
    lines = ["| yes / tie / no | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for question in questions:
        found = [verdicts.get(question) for verdicts in columns.values()]
        cells = ["" if one is None else f"{one['yes']} / {one['tie']} / {one['no']}" for one in found]
        lines.append(f"| {question} | {' | '.join(cells)} |")
    origins = [
        f"*{_APPLICATIONS[name]}*: {_repeats(result)}, {result['data']}. {_measured(result)}"
        for name, result in results.items()
    ]
    return "\n".join([*lines, "", *(f"- {line}" for line in origins)])


def _of_papers(name: str) -> Path:
    return RESULTS / "papers" / name / "papers.json"


def _repeats(result: dict[str, Any]) -> str:
    """Return how many times real runs were repeated."""
    grid = next(iter(result["figures"]["2_shares"]["real"].values()))
    count = max(len(one["shares"]["waiting"]["samples"]) for one in grid.values())
    return "1 real run of each setting" if count == 1 else f"{count} real runs of each setting"


def _measured(result: dict[str, Any]) -> str:
    return origin(result).removesuffix(_MEDIANS)


def main() -> None:
    """Replace the tables, wherever their markers are."""
    tables = {
        "mf": factorization(), "command": command(), "defaults": defaults(), "choice": choice(), "kernels": kernels(),
        "nodes": nodes(), "lasso": lasso(), "papers": papers(),
    }  # fmt: skip
    page = _PAGE.read_text()
    for name, table in tables.items():
        if table is None:
            continue  # the page keeps what it has
        pattern = rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)"
        page, found = re.subn(
            pattern, lambda marks, table=table: f"{marks[1]}{table}\n{marks[2]}", page, flags=re.DOTALL
        )
        if not found:
            raise SystemExit(f"{_PAGE} has no markers bench:{name}")
    _PAGE.write_text(page)


if __name__ == "__main__":
    main()
