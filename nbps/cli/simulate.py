"""``nbps sim``: the protocol on simulated machines, checked; a failing seed prints the command that replays it."""

from __future__ import annotations

import enum
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nbps.cli.failure import Debug

if TYPE_CHECKING:
    from nbps.cli.console import Output
    from nbps.sim import Fault, Outcome

_CLUSTER, _TROUBLE, _CHECK = "Cluster", "What goes wrong", "What is run"
_SHOWN = 3  # failing seeds that are printed
_CHUNK = 20  # seeds that a process takes at a time


class ModelName(enum.StrEnum):
    """Names of the consistency models."""

    BSP = "bsp"
    SSP = "ssp"
    ESSP = "essp"
    ASP = "asp"
    VAP = "vap"


class SpeedName(enum.StrEnum):
    """How workers' times are distributed."""

    CONSTANT = "constant"
    EXPONENTIAL = "exponential"
    UNIFORM = "uniform"


def _option(text: str, panel: str, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **limits)


# Long because its parameters are the options of the command.
def sim(
    context: typer.Context,
    nodes: Annotated[int, _option("Machines.", _CLUSTER, min=1)] = 1,
    workers: Annotated[int, _option("Workers on each machine.", _CLUSTER, min=1)] = 2,
    clocks: Annotated[int, _option("Units of work of each worker.", _CLUSTER, min=1)] = 10,
    model: Annotated[ModelName, _option("Consistency model.", _CLUSTER)] = ModelName.ESSP,
    staleness: Annotated[int, _option("Clocks a read may lag behind, for ssp and essp.", _CLUSTER, min=0)] = 2,
    value_bound: Annotated[float, _option("v0 of vap.", _CLUSTER)] = 1.0,
    rows: Annotated[int, _option("Rows that each machine owns.", _CLUSTER, min=1)] = 1,
    cached: Annotated[bool, _option("Workers have private copies; bsp always has.", _CLUSTER, "--cached")] = False,
    sparse: Annotated[bool, _option("Machines keep only rows fresh that they read.", _CLUSTER, "--sparse")] = False,
    no_wait: Annotated[bool, _option("clock(wait=False).", _CLUSTER, "--no-wait")] = False,
    compute: Annotated[float, _option("Mean seconds of computing in a clock.", _CLUSTER, min=0.0)] = 0.01,
    speed: Annotated[SpeedName, _option("Their distribution.", _CLUSTER)] = SpeedName.EXPONENTIAL,
    latency: Annotated[float, _option("Seconds from machine to machine.", _CLUSTER, min=0.0)] = 50e-6,
    bandwidth: Annotated[float, _option("Bytes per second that a machine sends.", _CLUSTER, min=1.0)] = 1.25e9,
    straggler: Annotated[float, _option("Probability of a ten times slower clock.", _TROUBLE, min=0.0, max=1.0)] = 0.0,
    slow_worker: Annotated[float, _option("How many times slower worker 0 is.", _TROUBLE, min=1.0)] = 1.0,
    loss: Annotated[float, _option("Probability that a frame is lost.", _TROUBLE, min=0.0, max=0.89)] = 0.0,
    duplication: Annotated[float, _option("... that it arrives twice.", _TROUBLE, min=0.0, max=1.0)] = 0.0,
    reordering: Annotated[float, _option("... that it overtakes others.", _TROUBLE, min=0.0, max=1.0)] = 0.0,
    preemption: Annotated[
        float, _option("... that a step is interrupted in the middle.", _TROUBLE, min=0.0, max=1.0)
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        _option(
            "KIND:AT:FOR:WHO[:OTHER], times in seconds; KIND is pause_worker, pause_node, cut, partition, crash_worker "
            "or crash_node. May be repeated.",
            _TROUBLE,
        ),
    ] = None,
    checkpoint_every: Annotated[int, _option("Clocks between checkpoints, 0 for none.", _TROUBLE, min=0)] = 0,
    restart: Annotated[bool, _option("Start again from the last checkpoint after a crash.", _TROUBLE, "--restart")] = (
        False
    ),
    seed: Annotated[int, _option("Decides everything that is drawn.", _CHECK, min=0)] = 0,
    schedules: Annotated[
        int, _option("Run so many random scenarios from --seed on, instead of the one described.", _CHECK, min=0)
    ] = 0,
    jobs: Annotated[int | None, _option("Processes for --schedules. Default: one per core.", _CHECK, min=1)] = None,
    validate: Annotated[bool, _option("Check every invariant after every step; slow.", _CHECK, "--validate")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Simulate the protocol on many machines and check what every read saw."""
    from nbps.cli.console import Output
    from nbps.consistency import consistency_named
    from nbps.sim import Network, Scenario, Speed, simulate

    output = Output(json=json)
    if schedules:
        given = set(_given(context)) - {"seed", "schedules", "jobs", "validate"}
        if given:
            raise typer.BadParameter(
                f"random schedules draw what {', '.join(sorted(given))} would set", param_hint="--schedules"
            )
        _run_schedules(range(seed, seed + schedules), jobs, validate, output)
        return
    scenario = Scenario(
        nodes=nodes,
        workers=workers,
        clocks=clocks,
        consistency=consistency_named(model, value_bound if model is ModelName.VAP else staleness),
        seed=seed,
        rows=rows,
        cached=cached or model is ModelName.BSP,
        sparse=sparse,
        wait=not no_wait,
        preemption=preemption,
        checkpoint_every=checkpoint_every,
        restart=restart,
        speed=Speed(compute, speed.value, straggler, slow_worker=0 if slow_worker > 1 else -1, slow_factor=slow_worker),
        network=Network(latency, bandwidth=bandwidth, loss=loss, duplication=duplication, reordering=reordering),
        faults=tuple(_fault(text) for text in fault or ()),
        # Well above a clock: an acknowledgement mostly travels with the next batch, and is then no frame of its own.
        retry_s=max(0.3, 20 * compute, 20 * latency),
        heartbeat_s=1.0,
    )
    outcome = simulate(scenario, validate)
    replay = _replay(context)
    _show(outcome, output, replay)
    output.write_json({**outcome.to_dict(), "replay": replay})
    if outcome.violations:
        raise typer.Exit(1)


def _given(context: typer.Context) -> dict[str, list[str]]:
    """Return the words of every option that differs from its default, by its name; output aside."""
    given = {}
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value in (parameter.default, None, (), []) or parameter.name in ("json", "debug"):
            continue
        many = value if isinstance(value, (list, tuple)) else [value]
        words = [[parameter.opts[0]] if one is True else [parameter.opts[0], str(one)] for one in many]
        given[str(parameter.name)] = [word for pair in words for word in pair]
    return given


def _replay(context: typer.Context) -> str:
    """Return the command that was given, with what differs from the defaults."""
    return shlex.join(["nbps", "sim", *(word for words in _given(context).values() for word in words)])


def _fault(text: str) -> Fault:
    from nbps.errors import ConfigError
    from nbps.sim import Fault

    parts = text.split(":")
    try:
        kind, at, length, who, *other = parts
        return Fault(kind, float(at), float(length), int(who), *map(int, other))
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise typer.BadParameter(
            f"{text!r}: expected KIND:AT:FOR:WHO or KIND:AT:FOR:WHO:OTHER, as in cut:0.05:0.1:0:1", param_hint="--fault"
        ) from None


def _show(outcome: Outcome, output: Output, replay: str) -> None:
    if not output.json:
        output.print_rows(_rows(outcome))
    console = output.result()
    for violation in outcome.violations[:_SHOWN]:
        console.print(f"{violation.property}: {violation.message}", style="red", markup=False, soft_wrap=True)
    if outcome.violations:
        console.print(f"{len(outcome.violations)} violations; replay: {replay}", markup=False, soft_wrap=True)


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    scenario = outcome.scenario
    differentials = ", ".join(f"{d}: {n:,}" for d, n in sorted(outcome.differentials.items(), reverse=True)[:8])
    rows = [
        ("cluster", f"{scenario.nodes} nodes x {scenario.workers} workers, {scenario.clocks} clocks"),
        ("consistency", str(scenario.consistency)),
        ("checked", f"{outcome.reads:,} reads, {outcome.adds:,} additions: {len(outcome.violations)} violations"),
        (
            "time",
            f"{outcome.virtual_s:.3f} virtual seconds in {outcome.real_s:.2f} real ones, {outcome.events:,} events",
        ),
        ("clocks per second", f"{outcome.clocks_per_s:,.0f} of all workers; {outcome.wait_share:.1%} of time waiting"),
        ("clock differential", f"mean {outcome.mean_differential:.2f} ({differentials})"),
        ("frames", f"{outcome.frames:,} ({outcome.bytes:,} bytes), {outcome.frames_lost:,} lost"),
        ("event log", outcome.log),
    ]
    if outcome.value_share:
        rows.append(("value bound", f"at most {outcome.value_share:.0%} of it in transit"))
    if outcome.restarts:
        rows.append(("restarts", str(outcome.restarts)))
    if outcome.ended:
        rows.append(("ended", outcome.ended))
    return rows


def _run_schedules(seeds: range, jobs: int | None, validate: bool, output: Output) -> None:
    """Run random scenarios in several processes; show the first that fail, each with its own command."""
    from rich.progress import track

    total: Counter[str] = Counter()
    failed: list[dict[str, Any]] = []
    chunks = [seeds[n : n + _CHUNK] for n in range(0, len(seeds), _CHUNK)]
    found = track(_in_processes(chunks, jobs, validate), "schedules", len(chunks), console=output.progress())
    for counts, failures in found:
        total.update(counts)
        failed += failures
    failed.sort(key=lambda failure: failure["seed"])
    console = output.result()
    text = f"{total['schedules']:,} schedules, {total['events']:,} events, {total['reads']:,} reads checked"
    console.print(f"{text}: {len(failed)} with violations", markup=False)
    for failure in failed[:_SHOWN]:
        console.print(
            f"{failure['violation']}\n  replay: {failure['replay']}", style="red", markup=False, soft_wrap=True
        )
    output.write_json({**total, "failed": failed})
    if failed:
        raise typer.Exit(1)


def _in_processes(
    chunks: list[range], jobs: int | None, validate: bool
) -> Iterator[tuple[dict[str, int], list[dict[str, Any]]]]:
    import concurrent.futures
    import functools

    work = functools.partial(_run_chunk, validate=validate)
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(chunks))
    if jobs == 1:
        yield from map(work, chunks)
        return
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, chunks)


def _run_chunk(seeds: range, validate: bool) -> tuple[dict[str, int], list[dict[str, Any]]]:
    from nbps.sim import random_scenario, simulate

    counts: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        outcome = simulate(random_scenario(seed), validate)
        counts.update(schedules=1, events=outcome.events, reads=outcome.reads, adds=outcome.adds)
        if outcome.violations:
            first = outcome.violations[0]
            replay = f"nbps sim --schedules 1 --seed {seed}" + (" --validate" if validate else "")
            failures.append({"seed": seed, "violation": f"{first.property}: {first.message}", "replay": replay})
    return dict(counts), failures
