"""Where a process stands among the nodes: every launcher's variables, and every bad one."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from nbps import Nodes
from nbps.errors import ConfigError
from nbps.nodes.launchers import slurm_hosts
from support.launchers import (
    OPEN_MPI,
    OPERATOR,
    OURS,
    SALLOC,
    SALLOC_ON_LOGIN,
    SBATCH,
    SMALL_STEP,
    SRUN,
    STANDALONE,
    TORCHRUN,
    TRUSTED,
    without,
)


@pytest.mark.parametrize(
    ("environ", "source", "place", "rendezvous", "job"),
    [
        ({}, "default", (1, 0), None, "nbps"),
        ({"HOME": "/root", "RANK": "3"}, "default", (1, 0), None, "nbps"),
        ({"WORLD_SIZE": "3"}, "default", (1, 0), None, "nbps"),
        ({"NBPS_TRANSPORT": "none", "NBPS_SECRET_FILE": "/absent"}, "default", (1, 0), None, "nbps"),
        (OURS, "NBPS_*", (4, 2), "127.0.0.1:29500", "nbps"),
        (OURS | {"NBPS_JOB": "mine"}, "NBPS_*", (4, 2), "127.0.0.1:29500", "mine"),
        ({"NBPS_NODES": "1", "NBPS_NODE_RANK": "0"}, "NBPS_*", (1, 0), None, "nbps"),
        ({"NBPS_NODES": "1"}, "NBPS_*", (1, 0), None, "nbps"),
        (OURS | TORCHRUN | SRUN | OPEN_MPI, "NBPS_*", (4, 2), "127.0.0.1:29500", "nbps"),
        (TORCHRUN, "torchrun", (2, 1), "gpu01:29401", "torchrun-7c1b"),
        (TORCHRUN | SRUN, "torchrun", (2, 1), "gpu01:29401", "torchrun-7c1b"),
        (TORCHRUN | {"MASTER_ADDR": "fd00::1"}, "torchrun", (2, 1), "[fd00::1]:29401", "torchrun-7c1b"),
        (TORCHRUN | {"MASTER_ADDR": "[fd00::1]"}, "torchrun", (2, 1), "[fd00::1]:29401", "torchrun-7c1b"),
        (TORCHRUN | {"NBPS_RENDEZVOUS": "a:1"}, "torchrun", (2, 1), "a:1", "torchrun-7c1b"),
        (TORCHRUN | {"NBPS_JOB": "mine"}, "torchrun", (2, 1), "gpu01:29401", "mine"),
        (STANDALONE, "torchrun", (4, 3), "127.0.0.1:41234", "torchrun-7c1b"),
        (OPERATOR, "torchrun", (3, 2), "train-master-0:23457", "nbps"),
        (OPEN_MPI | {"NBPS_RENDEZVOUS": "head:5000"}, "Open MPI", (8, 5), "head:5000", "nbps"),
        (OPEN_MPI | SRUN | {"NBPS_RENDEZVOUS": "head:5000"}, "Open MPI", (8, 5), "head:5000", "nbps"),
        (SRUN, "Slurm", (6, 2), "gpu01:21344", "slurm-1731344.0"),
        (SRUN | {"SLURM_STEP_ID": "4"}, "Slurm", (6, 2), "gpu01:21748", "slurm-1731344.4"),
        (SRUN | {"NBPS_RENDEZVOUS": "login1:5000"}, "Slurm", (6, 2), "login1:5000", "slurm-1731344.0"),
        (SRUN | {"SLURM_NTASKS": "12"}, "Slurm", (6, 2), "gpu01:21344", "slurm-1731344.0"),
        (SMALL_STEP, "Slurm", (2, 1), "127.0.0.1:21647", "slurm-1731344.3"),
        (SBATCH, "default", (1, 0), None, "nbps"),
        (SALLOC, "default", (1, 0), None, "nbps"),
        (SALLOC_ON_LOGIN, "default", (1, 0), None, "nbps"),
    ],
)
def test_every_launcher_is_understood(environ, source, place, rendezvous, job):
    """Who said so, how many nodes, which one, where they meet: from environments as launchers really set them."""
    nodes = Nodes.from_environment(environ | TRUSTED)
    assert nodes.source == source
    assert (nodes.count, nodes.rank) == place
    assert nodes.rendezvous == rendezvous
    assert nodes.job == job
    assert nodes.secret == (b"" if source == "default" else b"of all nodes")


def test_older_slurm_says_less():
    """Without the numbers of the step those of the job count."""
    environ = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP_")}
    nodes = Nodes.from_environment(environ | {"SLURM_STEP_ID": "0"} | TRUSTED)
    assert (nodes.count, nodes.rank, nodes.rendezvous, nodes.local_count) == (6, 2, "gpu01:21344", 1)


@pytest.mark.parametrize(
    ("environ", "count", "advice"),
    [
        (STANDALONE, 4, "torchrun --nproc-per-node=1"),
        (OPEN_MPI | {"NBPS_RENDEZVOUS": "head:5000"}, 4, "mpirun --map-by ppr:1:node"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1(x2),3,2(x3)"}, 3, "srun --ntasks-per-node=1"),
        (SMALL_STEP, 2, "srun --ntasks-per-node=1"),
    ],
)
def test_several_processes_on_a_machine_are_said_to_be_nodes(environ, count, advice):
    """A user who wanted one node for each machine sees how to get it."""
    nodes = Nodes.from_environment(environ | TRUSTED)
    assert nodes.local_count == count
    assert f"{count} of the nodes run on this machine, each process is one: {advice}" in str(nodes)
    assert "on this machine" not in str(Nodes.from_environment(TORCHRUN | TRUSTED))


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        # Ours, one by one.
        (OURS | {"NBPS_NODES": "zero"}, ["NBPS_NODES is 'zero'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "0"}, ["NBPS_NODES is 0", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "-1"}, ["NBPS_NODES is '-1'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": ""}, ["NBPS_NODES is ''", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "1_0"}, ["NBPS_NODES is '1_0'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "9" * 5000}, ["NBPS_NODES is '999", "whole number >= 1"]),
        (OURS | {"NBPS_NODE_RANK": "4"}, ["NBPS_NODE_RANK is 4, but NBPS_NODES is 4", "0 to 3"]),
        (OURS | {"NBPS_NODE_RANK": "1.0"}, ["NBPS_NODE_RANK is '1.0'"]),
        (without(OURS, "NBPS_NODE_RANK"), ["NBPS_NODES is set, but NBPS_NODE_RANK is not"]),
        (without(OURS, "NBPS_NODES"), ["NBPS_NODE_RANK is set, but NBPS_NODES is not"]),
        (without(OURS, "NBPS_RENDEZVOUS"), ["NBPS_RENDEZVOUS is not set, but NBPS_NODES is 4", "host:port of node 0"]),
        ({"NBPS_RENDEZVOUS": "127.0.0.1:5000"}, ["NBPS_RENDEZVOUS is set, but NBPS_NODES and NBPS_NODE_RANK are not"]),
        (OURS | {"NBPS_TRANSPORT": "pigeon"}, ["NBPS_TRANSPORT is 'pigeon'", "'shm', 'tcp'"]),
        (OURS | {"NBPS_TRANSPORT": ""}, ["NBPS_TRANSPORT is empty"]),
        (OURS | {"NBPS_JOB": " "}, ["NBPS_JOB is empty"]),
        (OURS | {"NBPS_JOB": "x" * 151}, ["NBPS_JOB is 'xxx", "1 to 150 printable"]),
        (OURS | {"NBPS_SECRET": " \n"}, ["NBPS_SECRET is empty", "token_hex"]),
        (OURS | {"NBPS_SECRET": "a", "NBPS_SECRET_FILE": "b"}, ["NBPS_SECRET and NBPS_SECRET_FILE are both set"]),
        (OURS | {"NBPS_BIND": "eth0"}, ["NBPS_BIND is 'eth0'", "expected an IP address", "0.0.0.0"]),
        (OURS | {"NBPS_BIND": "127.0.0.1:0"}, ["NBPS_BIND is '127.0.0.1:0'"]),
        (OURS | {"NBPS_BIND": "[::1]"}, ["NBPS_BIND is '[::1]'"]),
        (OURS | {"NBPS_INSECURE": "maybe"}, ["NBPS_INSECURE is 'maybe'", "1 or 0"]),
        (OURS | {"NBPS_TLS_CERT": "a", "NBPS_TLS_KEY": "b"}, ["NBPS_TLS_CA is not set", "all three"]),
        (
            OURS | {"NBPS_TLS_CERT": "/absent/cert.pem", "NBPS_TLS_KEY": "b", "NBPS_TLS_CA": "c"},
            ["NBPS_TLS_CERT is '/absent/cert.pem'", "PEM"],
        ),
        # Addresses.
        *(
            (OURS | {"NBPS_RENDEZVOUS": address}, [f"NBPS_RENDEZVOUS is {address!r}", "expected host:port"])
            for address in [
                "127.0.0.1", "5000", ":5000", "host:", "host:port", "host:0", "host:65536", "host:-1", "host:+1",
                "::1:5000", "[::1]", "[::1:5000", "::1]:5000", "[]:5000", "[host:1]:5000", "[1:2]:5000",
                "tcp://host:5000", "host/x:5000", "ho st:5000", "host:5000/x", "host: 5000", "host:\u0665", "host:1e3",
            ]
        ),
        (OURS | {"NBPS_RENDEZVOUS": ""}, ["NBPS_RENDEZVOUS is empty"]),
        # torchrun
        (without(TORCHRUN, "RANK"), ["RANK is not set"]),
        (without(TORCHRUN, "WORLD_SIZE"), ["WORLD_SIZE is not set"]),
        (TORCHRUN | {"RANK": "2"}, ["RANK is 2, but WORLD_SIZE is 2"]),
        (TORCHRUN | {"WORLD_SIZE": "two"}, ["WORLD_SIZE is 'two'"]),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, ["LOCAL_WORLD_SIZE is 0"]),
        (TORCHRUN | {"MASTER_PORT": "http"}, ["MASTER_PORT is 'http'", "from 1 to 65535"]),
        (TORCHRUN | {"MASTER_PORT": "65535"}, ["MASTER_PORT is 65535", "next port", "NBPS_RENDEZVOUS"]),
        (without(TORCHRUN, "MASTER_PORT"), ["MASTER_ADDR and MASTER_PORT", "NBPS_RENDEZVOUS=host:port"]),
        (TORCHRUN | {"MASTER_ADDR": ""}, ["MASTER_ADDR and MASTER_PORT", "NBPS_RENDEZVOUS=host:port"]),
        # Open MPI
        (OPEN_MPI, ["NBPS_RENDEZVOUS is not set", "Open MPI's variables hold no address", "mpirun -x"]),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_RANK"), ["OMPI_COMM_WORLD_RANK is not set"]),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_SIZE"), ["OMPI_COMM_WORLD_SIZE is not set"]),
        # Slurm
        (SRUN | {"SLURM_PROCID": "6"}, ["SLURM_PROCID is 6, but SLURM_STEP_NUM_TASKS is 6"]),
        (SRUN | {"SLURM_STEP_ID": "x"}, ["SLURM_STEP_ID is 'x'"]),
        (without(SRUN, "SLURM_JOB_ID"), ["SLURM_JOB_ID is not set"]),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[1-"}, ["SLURM_STEP_NODELIST is 'gpu[1-'", "NBPS_RENDEZVOUS"]),
        (
            without(SRUN, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"),
            ["SLURM_JOB_NODELIST is not set", "NBPS_RENDEZVOUS"],
        ),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, ["SLURM_STEP_TASKS_PER_NODE is '1(x2)'", "SLURM_NODEID is 2"]),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1,,1"}, ["SLURM_STEP_TASKS_PER_NODE is '1,,1'"]),
    ],
)  # fmt: skip
def test_a_bad_variable_is_named(environ, words):
    """The message says which variable, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        Nodes.from_environment(environ if "NBPS_SECRET" in environ else environ | TRUSTED)
    for word in words:
        assert word in str(caught.value)


# Hosts as Slurm compresses them: a model that expands by itself, with every pad width and several brackets.
_letters = st.text("abcxyz-.", min_size=1, max_size=4)


@st.composite
def _numbers(draw):
    """One bracket, and the texts that it stands for."""
    parts, texts = [], []
    for _ in range(draw(st.integers(1, 3))):
        width, low, more = draw(st.integers(1, 4)), draw(st.integers(0, 120)), draw(st.integers(0, 12))
        first = str(low).rjust(width, "0")
        parts.append(first if more == 0 else f"{first}-{str(low + more).rjust(len(first), '0')}")
        texts += [str(value).rjust(len(first), "0") for value in range(low, low + more + 1)]
    return f"[{','.join(parts)}]", texts


@st.composite
def _entry(draw):
    """One entry of a list, and its hosts."""
    name = draw(_letters)
    pieces: list[tuple[str, list[str]]] = [(name, [name])]
    for _ in range(draw(st.integers(0, 2))):
        pieces.append(draw(_numbers()))
        if draw(st.booleans()):
            tail = draw(_letters)
            pieces.append((tail, [tail]))
    return "".join(text for text, _ in pieces), ["".join(c) for c in itertools.product(*(t for _, t in pieces))]


@hypothesis.given(st.lists(_entry(), min_size=1, max_size=4))
def test_slurm_lists_are_expanded(entries):
    """Ranges, padding and several brackets give the hosts that they were made from, in order."""
    text = ",".join(text for text, _ in entries)
    assert list(slurm_hosts(text)) == [host for _, hosts in entries for host in hosts]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("gpu[01-04,07],login1", ["gpu01", "gpu02", "gpu03", "gpu04", "gpu07", "login1"]),
        ("nid001096", ["nid001096"]),
        ("r[1-2]n[08-09]-ib", ["r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("a.example.org,b\n", ["a.example.org", "b"]),
    ],
)
def test_slurm_lists_by_hand(text, hosts):
    """The common forms, written out."""
    assert list(slurm_hosts(text)) == hosts


@pytest.mark.parametrize(
    "text",
    ["", ",", "a,", ",a", "a,,b", "n[", "n[]", "n]", "n[1", "n[1-]", "n[-1]", "n[2-1]", "n[1,]", "n[a]", "a b",
     "n[[1]]", "n[1-2-3]", "n" + "[1]" * 9, "n[" + "1" * 19 + "]", "n[1]]"],
)  # fmt: skip
def test_what_is_no_slurm_list(text):
    """Anything else is an error, which shows it."""
    with pytest.raises(ConfigError, match="Slurm"):
        list(slurm_hosts(text))


def test_a_huge_slurm_list_is_not_expanded():
    """The first host of a billion takes no time and no memory."""
    assert next(slurm_hosts("n[000000000-999999999]x[0-999999999]")) == "n000000000x0"


@hypothesis.given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text("n[]-,01", max_size=30))
def test_any_slurm_list_is_read_or_refused(text):
    """No text whatever leads to another error."""
    try:
        assert all(itertools.islice(slurm_hosts(text), 100))
    except ConfigError as error:
        assert repr(text.strip()) in str(error)  # noqa: PT017


@hypothesis.given(
    st.dictionaries(
        st.sampled_from(sorted({*OURS, *TORCHRUN, *OPEN_MPI, *SRUN, "NBPS_TRANSPORT", "NBPS_BIND", "NBPS_TLS_CA"})),
        st.sampled_from(
            ["", "0", "1", "2", "4", "x", "::1", "a:1", "127.0.0.1:5000", "shm", "n[1-2]", "\u0663", "\x00"]
        )
        | st.text(max_size=6),
    )
)
def test_no_environment_crashes(environ):
    """Whatever variables hold, the answer is a place that makes sense, or a ConfigError that names a variable."""
    try:
        nodes = Nodes.from_environment(environ)
    except ConfigError as error:
        assert any(name in str(error) for name in (*environ, *SRUN, "NBPS_", "RANK", "WORLD_SIZE"))  # noqa: PT017
    else:
        assert 0 <= nodes.rank < nodes.count
        assert nodes.count == 1 or nodes.rendezvous
