"""What our own variables, torchrun, Open MPI and Slurm say about the place of a process among the nodes.

A launcher counts only if it started this very process as one of several: its variables also exist in the shell of an
allocation, in a batch script, and beside programs that were started by hand.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nbps.errors import ConfigError
from nbps.transport.addresses import FIRST_PORT, LOOPBACK, PORTS, join_address

# Steps that Slurm numbers from here were not started by srun: a batch script, the shell of `salloc`.
_SLURM_RESERVED_STEPS = 0xFFFF_FFF0
_HIGHEST_PORT = 65_535
_MOST_BRACKETS = 8  # in the name of a host; Slurm knows as many dimensions

_ITEM = re.compile(r"(?:[^\[\],\s]|\[[^\[\]\s]*\])+")
_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)
_TASKS = re.compile(r"(\d{1,9})(?:\(x(\d{1,9})\))?", re.ASCII)


@dataclass(frozen=True)
class Assignment:
    """Which node a launcher, or whoever set our variables, has this process be.

    `rendezvous` and `job` are None where nothing was said of them.

    `local_count` is the number of processes that the launcher started on this machine.
    """

    source: str
    count: int
    rank: int
    rendezvous: str | None = None
    job: str | None = None
    local_count: int = 1


def find_assignment(environ: Mapping[str, str]) -> Assignment | None:
    """Return what the first one says that knows of this process; None if it stands alone.

    Raises
    ------
    ConfigError
        If that cannot be: names the variable.
    """
    # torchrun before the others: it is often started by srun or mpirun, once on each machine.
    return _ours(environ) or _torchrun(environ) or _open_mpi(environ) or _slurm(environ)


def number(environ: Mapping[str, str], name: str, low: int = 0, high: int | None = None) -> int:
    """Return the whole number in variable `name`, from `low` to `high`.

    Raises
    ------
    ConfigError
        If it is not set, or something else.
    """
    expected = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    text = environ.get(name)
    if text is None:
        raise ConfigError(f"{name} is not set; expected {expected}")
    # int() would take underscores and the digits of every script.
    if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII):
        raise ConfigError(f"{name} is {text!r}; expected {expected}")
    value = int(text)
    if value < low or (high is not None and value > high):
        raise ConfigError(f"{name} is {value}; expected {expected}")
    return value


def _ours(environ: Mapping[str, str]) -> Assignment | None:
    names = ("NBPS_NODES", "NBPS_NODE_RANK")
    if not any(name in environ for name in names):
        return None
    if environ.get(names[0], "").strip() == "1" and names[1] not in environ:
        return Assignment("NBPS_*", 1, 0)  # the only node can be told nothing else
    for name, other in (names, names[::-1]):
        if name not in environ:
            raise ConfigError(f"{other} is set, but {name} is not; set both, or neither for a job on one machine")
    return Assignment("NBPS_*", number(environ, names[0], 1), number(environ, names[1]))


def _torchrun(environ: Mapping[str, str]) -> Assignment | None:
    """Read torchrun's variables, which Kubernetes' PyTorch operator sets as well.

    With ``--nproc-per-node=1`` RANK is GROUP_RANK and WORLD_SIZE is GROUP_WORLD_SIZE; with more, each process runs the
    script and is a node of its own. The nodes meet one port above MASTER_PORT, where torch's own store listens.
    """
    missing = [name for name in ("WORLD_SIZE", "RANK") if name not in environ]
    if missing and "TORCHELASTIC_RUN_ID" not in environ:
        return None  # either name alone is anybody's
    if missing:
        raise ConfigError(f"torchrun started this process, but {missing[0]} is not set; do not unset it")
    count, rank = number(environ, "WORLD_SIZE", 1), number(environ, "RANK")
    run = environ.get("TORCHELASTIC_RUN_ID")
    job = None if run is None else f"torchrun-{run}"
    local = number(environ, "LOCAL_WORLD_SIZE", 1) if "LOCAL_WORLD_SIZE" in environ else 1
    rendezvous = None
    address = environ.get("MASTER_ADDR", "").strip().removeprefix("[").removesuffix("]")
    if "MASTER_PORT" in environ and address:
        port = number(environ, "MASTER_PORT", 1, _HIGHEST_PORT)
        if port == _HIGHEST_PORT:
            raise ConfigError(
                f"MASTER_PORT is {port}, and nbps meets at the next port, which there is not; choose a lower one "
                f"(torchrun --master-port), or set NBPS_RENDEZVOUS=host:port"
            )
        # torchrun names this machine, whose name may not be loopback although nobody else takes part.
        host = LOOPBACK if local == count else address
        rendezvous = join_address(host, port + 1)
    return Assignment("torchrun", count, rank, rendezvous, job, local)


def _open_mpi(environ: Mapping[str, str]) -> Assignment | None:
    size, rank = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"
    if size not in environ and rank not in environ:
        return None
    local = "OMPI_COMM_WORLD_LOCAL_SIZE"
    return Assignment(
        "Open MPI",
        number(environ, size, 1),
        number(environ, rank),
        local_count=number(environ, local, 1) if local in environ else 1,
    )


def _slurm(environ: Mapping[str, str]) -> Assignment | None:
    """Read what srun says of the step that this process is a task of.

    An sbatch script has no step id, the shell of ``salloc`` a reserved one; SLURM_NTASKS and SLURM_PROCID=0 are there
    nonetheless. The numbers of the step come first: it may be smaller than the job.
    """
    if "SLURM_STEP_ID" not in environ or "SLURM_PROCID" not in environ:
        return None
    step = number(environ, "SLURM_STEP_ID")
    if step >= _SLURM_RESERVED_STEPS:
        return None
    count = number(environ, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS", 1)
    rank, job = number(environ, "SLURM_PROCID"), number(environ, "SLURM_JOB_ID")
    if count == 1:
        return Assignment("Slurm", 1, rank)
    lists = [name for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST") if name in environ]
    if not lists:
        raise ConfigError(
            "srun started this process, but SLURM_JOB_NODELIST is not set; do not unset it, or set "
            "NBPS_RENDEZVOUS=host:port"
        )
    first, *others = itertools.islice(slurm_hosts(environ[lists[0]], lists[0]), 2)
    # Steps of one job may run at the same time on the same machine, jobs with ids in a row as well.
    port = FIRST_PORT + (job + 101 * step) % PORTS
    host = first if others else LOOPBACK
    return Assignment(
        "Slurm", count, rank, join_address(host, port), f"slurm-{job}.{step}", _slurm_local_count(environ)
    )


def _slurm_local_count(environ: Mapping[str, str]) -> int:
    """Return the tasks of the step on this machine, from a list such as ``2(x3),1``."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    if name not in environ or "SLURM_NODEID" not in environ:
        return 1
    machine = number(environ, "SLURM_NODEID")
    for item in environ[name].split(","):
        match = _TASKS.fullmatch(item.strip())
        if match is None:
            break
        machine -= int(match[2] or 1)
        if machine < 0:
            return max(1, int(match[1]))
    raise ConfigError(
        f"{name} is {environ[name]!r}, and SLURM_NODEID is {environ['SLURM_NODEID']}; expected a number of tasks for "
        f"each machine, as in '2(x3),1'"
    )


def slurm_hosts(text: str, name: str = "node list") -> Iterator[str]:
    """Return the hosts of a list as Slurm writes it, such as ``gpu[01-04,07],login1``, in its order.

    Raises
    ------
    ConfigError
        If it is not one; `name` says where it was found.
    """
    text = text.strip()
    position = 0
    while True:
        match = _ITEM.match(text, position)
        if match is None or match[0].count("[") > _MOST_BRACKETS:
            raise _no_hosts(text, name)
        yield from _expand(match[0], text, name)
        position = match.end()
        if position == len(text):
            return
        if text[position] != ",":
            raise _no_hosts(text, name)
        position += 1


def _expand(item: str, text: str, name: str) -> Iterator[str]:
    """Return the hosts of one entry; several brackets count like digits, the last one fastest."""
    head, bracket, rest = item.partition("[")
    if not bracket:
        yield head
        return
    inside, _, tail = rest.partition("]")
    for part in inside.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise _no_hosts(text, name)
        for value in range(int(match[1]), int(match[2] or match[1]) + 1):
            for end in _expand(tail, text, name):
                yield f"{head}{value:0{len(match[1])}}{end}"


def _no_hosts(text: str, name: str) -> ConfigError:
    return ConfigError(
        f"{name} is {text!r}; expected hosts as Slurm lists them, for instance 'gpu[01-04,07],login1'; "
        f"set NBPS_RENDEZVOUS=host:port if this is another format"
    )
