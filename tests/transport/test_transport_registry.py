"""Transports by name: ours, those of other packages, and those that are not what they should be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nbps.errors import ConfigError
from nbps.transport import Options, Transport, get_transport, transport_names


@pytest.fixture
def pigeons(tmp_path, monkeypatch):
    """Install a package that registers three transports, of which one is good."""
    (tmp_path / "pigeons.py").write_text(
        "from nbps.transport.carriers.inproc import InprocTransport\n"
        "class PigeonTransport(InprocTransport):\n"
        "    name = 'pigeon'\n"
        "def tired():\n"
        "    raise RuntimeError('no wind')\n"
    )
    info = tmp_path / "pigeons-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[nbps.transports]\npigeon = pigeons:PigeonTransport\ntired = pigeons:tired\nint = builtins:int\n"
        "lost = pigeons:LostTransport\ntcp = pigeons:PigeonTransport\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("pigeons", None)


@pytest.mark.parametrize("name", ["inproc", "shm", "tcp"])
def test_ours_are_known(name):
    """Each name gives the transport of that name."""
    found = get_transport(name)
    assert isinstance(found, Transport)
    assert found.name == name


def test_an_unknown_name_is_answered_with_the_known_ones():
    """The error names them and says where others come from."""
    with pytest.raises(ConfigError, match=r"no transport 'udp'; known are 'inproc', 'shm', 'tcp'\..*entry point"):
        get_transport("udp")


def test_another_package_brings_a_transport(pigeons):
    """Its entry point is found, and takes no name of ours."""
    assert get_transport("pigeon").name == "pigeon"
    assert get_transport("tcp").name == "tcp"
    assert transport_names() == ["inproc", "int", "lost", "pigeon", "shm", "tcp", "tired"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("tired", "of package 'pigeons'.*no wind"), ("lost", "LostTransport.*package 'pigeons'"), ("int", "gives 0")],
)
def test_a_transport_that_is_none_is_named_with_its_package(pigeons, name, said):
    """One that fails, one that is not there, and one that is something else."""
    with pytest.raises(ConfigError, match=f"transport '{name}'.*{said}"):
        get_transport(name)


def test_importing_the_registry_is_cheap():
    """It brings neither Numba nor sockets of ours."""
    script = (
        "import sys; from nbps.transport import transport_names; transport_names();"
        "print(sorted({'numba', 'pyarrow', 'ssl', 'nbps.transport.carriers.tcp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("frame_limit", -1), ("queue_bytes", -5), ("user_timeout_s", 0), ("user_timeout_s", float("nan"))],
)
def test_options_are_checked(field, value):
    """Each wrong one is named with what was expected."""
    with pytest.raises(ConfigError, match=f"{field} is {value}; expected"):
        Options(**{field: value})
