"""A training that was cut off goes on from its checkpoint, as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import nbps
from nbps.data import Ratings
from nbps.errors import CheckpointError, ConfigError
from nbps.models import MatrixFactorization

_SMALL = {"rank": 4, "epochs": 6, "workers": 2}
_CUT_OFF = 3
# Dies of SIGKILL between the epoch's end and the next one's begin.
_KILLED = """
import os, signal, sys
from nbps.data import generate_ratings
from nbps.models import MatrixFactorization

def kill(model, record):
    if record.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

train, test = generate_ratings(users=600, items=300, ratings=30_000, seed=1).split(0.1, seed=0)
MatrixFactorization(rank=4, epochs=6, workers=2, checkpoint=sys.argv[1], callbacks=[kill]).fit(train, validation=test)
"""


class CutOffError(Exception):
    """What ends a training."""


def cut_off(model, record):
    """End training in its third epoch."""
    if record.epoch == _CUT_OFF:
        raise CutOffError


cut_off.needs_model = False


def cut(data, folder, **options):
    """Train until the third epoch."""
    model = MatrixFactorization(**_SMALL, checkpoint=folder, callbacks=[cut_off], **options)
    with pytest.raises(CutOffError):
        model.fit(data[0], validation=data[1])


def go_on(data, folder, **options):
    """Train the rest; return the model and the epochs that this took."""
    epochs = []
    model = MatrixFactorization(
        **_SMALL | options, checkpoint=folder, callbacks=[lambda model, record: epochs.append(record.epoch)]
    )
    return model.fit(data[0], validation=data[1]), epochs


def bits(model):
    """Return everything that training gives."""
    return [each.tobytes() for each in (model.user_factors, model.item_factors, model.user_biases, model.item_biases)]


@pytest.fixture(scope="module")
def whole(data):
    """Return a model whose training was not cut off."""
    return MatrixFactorization(**_SMALL).fit(data[0], validation=data[1])


def errors(model):
    return [(each.epoch, each.train_rmse, each.validation_rmse) for each in model.history_]


def test_a_training_goes_on_to_the_bit(tmp_path, data, whole):
    """The epochs that lie behind it are not trained again, and the model and its history are those of one piece."""
    cut(data, tmp_path)
    model, epochs = go_on(data, tmp_path)
    assert epochs == [4, 5, 6]
    assert bits(model) == bits(whole)
    assert errors(model) == errors(whole)
    again, epochs = go_on(data, tmp_path)
    assert epochs == []
    assert bits(again) == bits(whole)
    assert errors(again) == errors(whole)


def test_a_killed_process_goes_on(tmp_path, data, whole):
    """SIGKILL leaves the checkpoint of the epoch before."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], env=os.environ, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    model, epochs = go_on(data, tmp_path)
    assert epochs == [4, 5, 6]
    assert bits(model) == bits(whole)


def test_the_best_epoch_is_kept_over_a_cut(tmp_path):
    """It lies before the cut: early stopping counts on from it, and its factors are those that remain.

    Without early stopping training goes on to the end, and the last factors remain.
    """
    random = np.random.default_rng(0)  # noise: errors on the test part rise from some epoch on
    ratings = Ratings.from_columns(random.integers(0, 60, 900), random.integers(0, 40, 900), random.normal(size=900))
    data = ratings.split(0.3, seed=0)
    options = {"early_stopping": 2, "regularization": 0.01, "learning_rate": 0.8}
    whole = MatrixFactorization(**_SMALL, **options).fit(data[0], validation=data[1])
    assert whole.best_epoch_ < _CUT_OFF <= len(whole.history_)
    cut(data, tmp_path, **options)
    model, _ = go_on(data, tmp_path, **options)
    assert (model.best_epoch_, len(model.history_)) == (whole.best_epoch_, len(whole.history_))
    assert bits(model) == bits(whole)
    to_the_end, _ = go_on(data, tmp_path, **options | {"early_stopping": None})
    assert to_the_end.best_epoch_ == len(to_the_end.history_) == _SMALL["epochs"]


def test_the_best_epoch_of_another_training_is_not_taken(tmp_path, data):
    """It may be left where somebody removed all other checkpoints."""
    go_on(data, tmp_path, early_stopping=2)
    for folder in tmp_path.glob("clock-*"):
        shutil.rmtree(folder)
    slow = {"learning_rate": 0.001}
    cut(data, tmp_path, **slow)
    model, epochs = go_on(data, tmp_path, **slow, early_stopping=2)
    assert (model.best_epoch_, epochs) == (6, [4, 5, 6])
    assert bits(model) == bits(MatrixFactorization(**_SMALL, **slow).fit(data[0]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"rank": 5}, "rank 4; expected 5"), ({"workers": 1}, "workers 2; expected 1")],
    ids=["parameters", "workers"],
)
def test_another_training_is_refused(tmp_path, data, change, expected):
    """Nothing is trained on from tables that mean something else, and they stay."""
    cut(data, tmp_path)
    with pytest.raises(CheckpointError, match=expected):
        go_on(data, tmp_path, **change)
    assert go_on(data, tmp_path)[1] == [4, 5, 6]


def test_other_ratings_are_refused(tmp_path, data):
    """A single rating that differs is enough."""
    cut(data, tmp_path)
    values = data[0].values.copy()
    values[17] += 1
    with pytest.raises(CheckpointError, match=r"ratings '26,.* checksum .*expected"):
        go_on((Ratings(data[0].users, data[0].items, values, data[0].user_ids, data[0].item_ids), data[1]), tmp_path)


def test_checkpoints_of_another_job_are_refused(tmp_path, data):
    """What a script saved there is not taken for a training."""
    cut(data, tmp_path / "other")
    tables = [nbps.Table(name, rows=3, width=4) for name in ("user_factors", "user_state")]
    with nbps.Job(tables, workers=1) as job:
        job.checkpoint(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=r"tables .*another job's: name another folder"):
        go_on(data, tmp_path / "mine")


def test_a_checkpoint_needs_a_seed(tmp_path, data):
    """Training begun again with other random numbers would be another one."""
    with pytest.raises(ConfigError, match="random_state is None; expected a number"):
        MatrixFactorization(**_SMALL, random_state=None, checkpoint=tmp_path).fit(data[0])
    with pytest.raises(ConfigError, match="checkpoint is 3; expected a folder"):
        MatrixFactorization(**_SMALL, checkpoint=3).fit(data[0])
    model = MatrixFactorization(**_SMALL).fit(data[0]).set_params(random_state=None, checkpoint=tmp_path)
    assert len(model.partial_fit(data[0]).history_) == 7  # which is not saved


def test_saved_models_do_not_say_where_checkpoints_were(tmp_path, data):
    """A loaded model trains without them."""
    model, _ = go_on(data, tmp_path / "checkpoints")
    model.save(tmp_path / "model")
    assert "checkpoint" not in json.loads((tmp_path / "model" / "model.json").read_text())["parameters"]
    assert MatrixFactorization.load(tmp_path / "model").checkpoint is None
