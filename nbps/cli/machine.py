"""What ``nbps doctor`` finds out about this machine, as plain dicts: the content of its JSON."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nbps.cgroup import memory_limit, quota_cores
from nbps.cli.versions import version_of
from nbps.kernels import cache, relaxed
from nbps.memory import segments
from nbps.runtime.cores import usable_cores

_PACKAGES = ("nbps", "numpy", "numba", "pyarrow")


def inspect(clean: bool) -> dict[str, Any]:
    """Return every section of the report; with `clean`, first remove what is left over or damaged."""
    return {
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}},
        "shared_memory": _shared_memory(clean),
        "processor": _processor(),
        "compiler_cache": _compiler_cache(clean),
        "limits": _limits(),
    }


def _shared_memory(clean: bool) -> dict[str, Any]:
    folder = str(segments.FOLDER)
    if not segments.FOLDER.is_dir():
        return {"folder": folder, "total_bytes": 0, "free_bytes": 0, "segments": [], "removed": []}
    removed = segments.remove_orphans() if clean else []
    usage = segments.shared_memory_usage()
    return {
        "folder": folder,
        "total_bytes": usage.total_bytes,
        "free_bytes": usage.free_bytes,
        "segments": [asdict(segment) for segment in segments.find_segments()],
        "removed": [asdict(segment) for segment in removed],
    }


def _processor() -> dict[str, Any]:
    return {
        "model": _processor_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "quota_cores": quota_cores(),
        "compare_and_swap_bytes": relaxed.PACK_BYTES,
    }


def _processor_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _compiler_cache(clean: bool) -> dict[str, Any]:
    folder, rejected = cache.chosen_folder()
    damaged = {} if folder is None else cache.damaged_files(folder)
    outdated = {str(other): _bytes_in(other) for other in cache.other_folders()}
    removed, kept = _clean_cache(damaged, outdated) if clean else ([], {})
    files = [] if folder is None else [path for path in folder.iterdir() if path.is_file()]
    return {
        "folder": None if folder is None else str(folder),
        "rejected": list(rejected),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "free_bytes": None if folder is None else shutil.disk_usage(folder).free,
        "damaged": {path.name: reason for path, reason in damaged.items() if str(path) not in removed},
        "outdated": {other: size for other, size in outdated.items() if other not in removed},
        "removed": removed,
        "kept": kept,
    }


def _clean_cache(damaged: Iterable[Path], outdated: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Remove these files and folders; return which are gone, and why the others are not."""
    removed: list[str] = []
    kept: dict[str, str] = {}
    for path in damaged:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            removed.append(str(path))
        except OSError as error:
            kept[str(path)] = str(error.strerror)
    for folder in outdated:
        reason = cache.remove_folder(Path(folder))
        if reason is None:
            removed.append(folder)
        else:
            kept[folder] = reason
    return removed, kept


def _bytes_in(folder: Path) -> int:
    with contextlib.suppress(OSError):  # removed meanwhile
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def _limits() -> dict[str, Any]:
    """Return the soft limits that a run can meet; None for no limit."""
    return {
        "open_files": _soft_limit(resource.RLIMIT_NOFILE),
        "processes": _soft_limit(resource.RLIMIT_NPROC),
        "address_space_bytes": _soft_limit(resource.RLIMIT_AS),
        "container_memory_bytes": memory_limit(),
    }


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft
