"""``nbps doctor``: what this machine offers, what is left over, what is wrong."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nbps.cli.failure import Debug

_CLEAN = (
    "Remove shared memory whose process no longer runs, and compiled kernels that are damaged or of other versions."
)


def doctor(
    clean: Annotated[bool, typer.Option("--clean", help=_CLEAN)] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Show shared memory, processor, compiler cache and limits, and what to do about problems."""
    from nbps.cli.advice import advise
    from nbps.cli.console import Output
    from nbps.cli.machine import inspect

    facts = inspect(clean)
    problems = advise(facts, clean)
    output = Output(json=json)
    if not json:
        output.print_rows(_rows(facts))
        for problem in problems:
            output.result().print(f"problem: {problem}", style="yellow", markup=False, soft_wrap=True)
        if not problems:
            output.result().print("no problems found", style="green")
    output.write_json({**facts, "problems": problems})


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from nbps.cli.advice import orphans_of, size

    memory, processor = facts["shared_memory"], facts["processor"]
    cache, limits = facts["compiler_cache"], facts["limits"]
    segments, orphans = memory["segments"], orphans_of(facts)
    rows = [
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        (
            "shared memory",
            f"{size(memory['free_bytes'])} free of {size(memory['total_bytes'])} in {memory['folder']}",
        ),
        (
            "segments",
            f"{len(segments)} ({size(sum(s['bytes'] for s in segments))}), of these {len(orphans)} orphaned, "
            f"{sum(s['foreign'] for s in segments)} of other containers",
        ),
        *(("orphan", f"{s['name']} ({size(s['bytes'])}, process {s['pid']})") for s in orphans),
        *(("removed", f"{s['name']} ({size(s['bytes'])}, process {s['pid']})") for s in memory["removed"]),
        ("processor", processor["model"]),
        ("cores", f"{processor['usable_cores']} usable of {processor['cores']}{_quota(processor)}"),
        ("compare and swap", f"{processor['compare_and_swap_bytes']} bytes"),
        ("compiled kernels", f"{size(cache['bytes'])} in {cache['files']} files in {cache['folder'] or 'no folder'}"),
        *([("outdated kernels", _outdated(cache["outdated"]))] if cache["outdated"] else []),
        *(("removed", path) for path in cache["removed"]),
        *(("not removed", f"{path}: {reason}") for path, reason in cache["kept"].items()),
    ]
    for name, value in limits.items():
        text = "no limit" if value is None else size(value) if name.endswith("_bytes") else f"{value:,}"
        rows.append((name.removesuffix("_bytes").replace("_", " "), text))
    return rows


def _outdated(folders: dict[str, int]) -> str:
    from nbps.cli.advice import size

    return f"{size(sum(folders.values()))} in {len(folders)} folders of other versions (--clean removes them)"


def _quota(processor: dict[str, Any]) -> str:
    return "" if processor["quota_cores"] is None else f", time of {processor['quota_cores']:g}"
