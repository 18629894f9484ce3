"""What is wrong with a machine and what to do about it: a sentence or two for each problem."""

from __future__ import annotations

from typing import Any

# Docker's default; too small for the tables of MovieLens 10M at rank 128.
_SMALL_SHARED_MEMORY = 64 << 20
# A worker takes a handful of descriptors, the driver the same number for each of them.
_FEW_OPEN_FILES = 256
# All kernels of a job of several nodes take about 2 MiB for each type of its tables.
_LITTLE_ROOM = 16 << 20
_NAMED = 3  # damaged files; all of them are in the JSON


def advise(facts: dict[str, Any], cleaned: bool = False) -> list[str]:
    """Return the problems in what `nbps.cli.machine.inspect` found; `cleaned`: it was to clean up."""
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
    problems += _advise_on_cache(facts["compiler_cache"], cleaned)
    if processor["compare_and_swap_bytes"] < 16:
        problems.append("Lossless additions go 8 bytes at a time; processors with a 16-byte form are faster.")
    if limits["open_files"] is not None and limits["open_files"] < _FEW_OPEN_FILES:
        problems.append(f"Only {limits['open_files']} files may be open at once. Raise it: ulimit -n 1024.")
    return problems


def _advise_on_cache(cache: dict[str, Any], cleaned: bool) -> list[str]:
    problems = []
    folder, choose = cache["folder"], "set NBPS_CACHE_DIR to a folder that only you can write to"
    because = "; ".join(cache["rejected"])
    if folder is None:
        return [f"Compiled kernels cannot be kept ({because}): every start compiles them. Mend that, or {choose}."]
    if cache["rejected"]:
        problems.append(f"Compiled kernels are kept in {folder} ({because}). Mend that, or {choose}.")
    if cache["damaged"]:
        which = "; ".join(f"{name}: {reason}" for name, reason in list(cache["damaged"].items())[:_NAMED])
        more = f"; {len(cache['damaged']) - _NAMED} more" if len(cache["damaged"]) > _NAMED else ""
        problems.append(
            f"{len(cache['damaged'])} of the files in {folder} are damaged ({which}{more}). Jobs compile these kernels "
            + (
                "again. They cannot be removed: look at that folder."
                if cleaned
                else "again. Remove them: nbps doctor --clean."
            )
        )
    if cache["free_bytes"] < _LITTLE_ROOM:
        problems.append(
            f"Only {size(cache['free_bytes'])} are free for compiled kernels in {folder}; what finds no room there "
            f"every start compiles again. Free some, or {choose}."
        )
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
