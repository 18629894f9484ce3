"""What a job is told: by name, checked, in one place, and the same on all nodes."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import nbps
from nbps.consistency import consistency_named
from nbps.errors import ConfigError
from nbps.job.settings import JobSettings


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "Job: missing a required argument: 'tables'; expected tables, workers, and by name: consistency, "),
        (([], 2, nbps.BSP()), {}, "Job: too many positional arguments; expected tables, workers, and by name: cons"),
        (([], 2), {"staleness": {"t": 0}}, "Job: got an unexpected keyword argument 'staleness'; expected tables, "),
        (([],), {"tables": []}, "Job: multiple values for argument 'tables'; expected tables, workers, and by "),
    ],
)
def test_a_job_takes_its_settings_by_name(arguments, options, message):
    """Only tables and workers go without; what cannot be is a TypeError that says what a job takes."""
    with pytest.raises(TypeError, match=message):
        nbps.Job(*arguments, **options)


def test_a_table_takes_all_but_name_and_shape_by_name():
    """A dtype, access mode and initialiser in a row would say nothing to a reader."""
    with pytest.raises(TypeError, match="takes 4 positional arguments but 5 were given"):
        nbps.Table("t", 1, 1, "int64")
    assert nbps.Table("t", 1, 1, dtype="int64").dtype == "int64"


def test_help_shows_every_setting():
    """The signature of Job is that of its settings, and its docstring describes each of them."""
    shown = inspect.signature(nbps.Job)
    assert list(shown.parameters.values()) == list(inspect.signature(JobSettings).parameters.values())
    described = inspect.getdoc(nbps.Job)  # without the indentation, which `__doc__` has before Python 3.13
    for field in dataclasses.fields(JobSettings):
        assert f"\n{field.name} : " in described


def test_settings_are_filled_in_and_stay_as_they_are(monkeypatch):
    """None stands for the default; what a job was told is there to be read, and nobody changes it."""
    monkeypatch.setenv("NBPS_WORKERS", "3")
    settings = nbps.Job([], None, consistency=None, nodes=None, failure_timeout_s=1e300).settings
    assert (settings.tables, settings.workers, settings.consistency) == ((), 3, nbps.ESSP(2))
    assert (settings.nodes.count, settings.failure_timeout_s) == (1, 1e9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.workers = 4
    with pytest.raises(ConfigError, match="workers is 0"):
        dataclasses.replace(settings, workers=0)


def test_the_number_of_workers_from_the_environment_has_the_same_limit(monkeypatch):
    """The variable is named, not the argument that nobody gave."""
    monkeypatch.setenv("NBPS_WORKERS", "820")
    with pytest.raises(ConfigError, match="NBPS_WORKERS is 820; expected a whole number from 1 to 819"):
        nbps.Job([])


@pytest.mark.parametrize("name", ["BSP", "ssp", "Essp", "ASP", "vap"])
def test_models_are_found_by_name(name):
    """In capitals or not; a bound goes to those that have one."""
    model = consistency_named(name, 3)
    assert type(model) is getattr(nbps, name.upper())
    assert 3 in (model.staleness, getattr(model, "v0", 3))


def test_a_name_of_no_model_is_refused():
    """As is a bound that a model cannot have."""
    with pytest.raises(ConfigError, match="no model is called 'hogwild'; expected one of BSP, SSP, ESSP, ASP, VAP"):
        consistency_named("hogwild")
    with pytest.raises(ConfigError, match="SSP: staleness is None"):
        consistency_named("ssp")


@pytest.mark.parametrize("function", [3, None, "train"])
def test_what_cannot_be_called_is_not_run(function):
    """The job says so and stays as it was."""
    with nbps.Job([], workers=1) as job:
        with pytest.raises(ConfigError, match=r"run: function is .*; expected one whose first argument is the worker"):
            job.run(function)
        assert job.run(lambda worker: worker.rank) == [0]
