"""The README tells the truth: its commands and programs run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_two_commands_do_everything():
    """The README opens with exactly two commands; continuous integration runs the second one."""
    assert [block.strip() for block in _blocks("sh")] == [
        "pip install . && nbps train mf",
        "pip install '.[test]' && pytest",
    ]
    script = (ROOT / ".ci" / "run").read_text()
    assert "pip install -q '.[test]' && pytest" in script
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "test" in extras


def test_model_of_the_first_screen_learns(tmp_path):
    """The first program that a reader sees finds the weights of a linear model, on all cores."""
    (program,) = _blocks("py")
    path = tmp_path / "program.py"
    check = "    assert np.abs(job.table('weights').to_numpy() - np.arange(8)).max() < 0.1\n"
    path.write_text(program + check)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_training_program_runs(tmp_path):
    """The README's own training function, pasted into a file, converges, and a staleness is chosen for it."""
    (program,) = [block for block in _blocks("python") if "def train(worker" in block]
    (choice,) = [block for block in _blocks("python") if "auto_staleness" in block]
    path = tmp_path / "program.py"
    path.write_text(program + "\nassert max(losses) < 1e-9, losses\n" + choice)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "clocks on average" in done.stdout


@pytest.mark.slow
def test_checkpoint_program_runs(tmp_path):
    """The README's program with checkpoints goes on at clock 200, with one worker instead of two."""
    (program,) = [block for block in _blocks("python") if "Job.resume" in block]
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "clock=200" in done.stdout
    assert "[300. 200.   0." in done.stdout


@pytest.mark.slow
def test_the_same_program_runs_on_two_nodes(tmp_path):
    """``nbps run --nodes 2`` with the README's training program, unchanged, gives every node the true weights."""
    (program,) = [block for block in _blocks("python") if "def train(worker" in block]
    path = tmp_path / "program.py"
    path.write_text(program.replace("workers=2", "workers=1") + "\nassert max(losses) < 1e-9, losses\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("nbps"), "run", "--nodes", "2", path],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("other nodes: sent") == 2


@pytest.mark.slow
def test_first_command_trains(tmp_path):
    """``nbps train mf`` without data trains on the generated set and prints the test error."""
    command = Path(sys.executable).with_name("nbps")
    environment = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        [command, "train", "mf"], capture_output=True, text=True, check=False, timeout=100, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"test RMSE +0\.\d+", done.stdout)


@pytest.mark.parametrize(("document", "at_least"), [("README.md", 1), ("CONTRIBUTING.md", 1), ("tests/README.md", 30)])
def test_every_test_named_exists(document, at_least):
    """Files and folders of tests that the documents name exist; those in `tests/` may name them from there."""
    text = (ROOT / document).read_text()
    named = re.findall(r"\btests/[\w/]*(?:\.\w+)?", text)
    if document.startswith("tests/"):
        named += [f"tests/{name}" for name in re.findall(r"`((?!tests/)\w+(?:/[\w/]*(?:\.py)?|\.py))`", text)]
    assert len(named) >= at_least
    assert [name for name in named if not (ROOT / name).exists()] == []
