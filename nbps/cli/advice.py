"""What is wrong with a machine and what to do about it: a sentence or two for each problem."""

from __future__ import annotations

from typing import Any

# Docker's default; too small for the tables of MovieLens 10M at rank 128.
_SMALL_SHARED_MEMORY = 64 << 20
# A worker takes a handful of descriptors, the driver the same number for each of them.
_FEW_OPEN_FILES = 256


def advise(facts: dict[str, Any], cleaned: bool = False) -> list[str]:
    """Return the problems in what `nbps.cli.machine.inspect` found; `cleaned`: orphans were to be removed."""
    problems = []
    memory, processor, limits = facts["shared_memory"], facts["processor"], facts["limits"]
    orphans = orphans_of(facts)
    if not memory["total_bytes"]:
        problems.append(f"There is no {memory['folder']}, where the tables live. Mount a tmpfs there.")
    elif memory["total_bytes"] <= _SMALL_SHARED_MEMORY:
        problems.append(
            f"{memory['folder']} is small ({size(memory['total_bytes'])}). Enlarge it: "
            "docker run --shm-size=2g, or "
            f"mount -o remount,size=2g {memory['folder']}."
        )
    if orphans:
        total = size(sum(segment["bytes"] for segment in orphans))
        left = f"{len(orphans)} segments ({total}) are left over from killed processes"
        problems.append(
            f"{left} of other users. Remove them as these users, or as root: nbps doctor --clean."
            if cleaned
            else f"{left}. Remove them: nbps doctor --clean."
        )
    if processor["compare_and_swap_bytes"] < 16:
        problems.append("Lossless additions go 8 bytes at a time; processors with a 16-byte form are faster.")
    if limits["open_files"] is not None and limits["open_files"] < _FEW_OPEN_FILES:
        problems.append(f"Only {limits['open_files']} files may be open at once. Raise it: ulimit -n 1024.")
    return problems


def orphans_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the segments whose process no longer runs, as far as can be judged from here."""
    return [s for s in facts["shared_memory"]["segments"] if not (s["alive"] or s["foreign"])]


def size(count: float) -> str:
    """Return a number of bytes in words, with binary units."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
