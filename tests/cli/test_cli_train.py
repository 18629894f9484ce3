"""nbps train mf and nbps recommend, with the real model on small files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

import nbps.models
from nbps.data import generate_ratings, read_ratings
from nbps.runtime.segments import find_segments

pytestmark = pytest.mark.skipif(
    not hasattr(nbps.models, "MatrixFactorization"), reason="MatrixFactorization is not there yet"
)

QUICK = ["--epochs", "3", "--rank", "4", "--workers", "2"]


def result_of(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the JSON object that a run printed last."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_json_has_everything(nbps, data_file):
    """Errors, speed, parameters, history, report; readable text is on the other stream."""
    done = nbps("train", "mf", "--data", data_file, *QUICK, "--json")
    result = result_of(done)
    assert len(done.stdout.splitlines()) == 1
    assert 0.3 < result["train_rmse"] < 2
    assert 0.3 < result["test_rmse"] < 2
    assert result["train_seconds"] > 0
    assert result["ratings_per_second"] > 0
    assert result["parameters"]["rank"] == 4
    assert result["parameters"]["workers"] == 2
    assert result["parameters"]["consistency"] == "essp"
    assert [record["epoch"] for record in result["history"]] == [1, 2, 3]
    assert result["report"]
    train, test = read_ratings(data_file).split(0.1, 0)
    assert result["data"]["train_ratings"] == len(train)
    assert result["data"]["test_ratings"] == len(test)
    assert "test RMSE" in done.stderr
    assert "epoch 3/3" in done.stderr


def test_text_goes_to_standard_output(nbps, data_file):
    """Without --json the table is the output, progress is not."""
    done = nbps("train", "mf", "--data", data_file, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "test RMSE" in done.stdout
    assert "epoch 1/3" in done.stderr
    assert "epoch 1/3" not in done.stdout


def test_quiet_prints_nothing(nbps, data_file):
    """Nothing but JSON, if that is asked for."""
    done = nbps("train", "mf", "--data", data_file, *QUICK, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = nbps("train", "mf", "--data", data_file, *QUICK, "-q", "--json")
    assert result_of(done)["epochs"] == 3
    assert done.stderr == ""


def test_a_choice_that_the_model_refuses(nbps, data_file):
    """The model's own words reach the user."""
    done = nbps("train", "mf", "--data", data_file, "--consistency", "asp", "--schedule", "rotate")
    assert done.returncode == 1
    assert "error: schedule='rotate' with ASP()" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--consistency", "bsp"],
        ["--consistency", "ssp", "--staleness", "1"],
        ["--consistency", "asp", "--schedule", "direct"],
        ["--schedule", "cached"],
        ["--schedule", "direct"],
        ["--optimizer", "sgd", "--learning-rate", "0.01", "--regularization", "0.05"],
        ["--seed", "3"],
        ["--workers", "1"],
    ],
)
def test_every_choice_trains(nbps, data_file, options):
    """The options reach the model and the error stays sane."""
    result = result_of(nbps("train", "mf", "--data", data_file, *QUICK, "--json", "-q", *options))
    assert 0.3 < result["test_rmse"] < 2
    name = options[0].removeprefix("--").replace("-", "_")
    assert str(result["parameters"][name]) == options[1]


def test_without_test_ratings(nbps, data_file):
    """A test fraction of 0 trains on everything."""
    result = result_of(nbps("train", "mf", "--data", data_file, *QUICK, "--json", "--test-fraction", "0"))
    assert result["test_rmse"] is None
    assert result["data"]["train_ratings"] == 6_000
    assert all(record["validation_rmse"] is None for record in result["history"])


def test_early_stopping_stops(nbps, data_file):
    """On six thousand ratings a model of high rank soon stops getting better."""
    options = ["--epochs", "200", "--rank", "16", "--workers", "2", "--early-stopping", "2"]
    result = result_of(nbps("train", "mf", "--data", data_file, *options, "--json", "-q"))
    assert result["epochs"] < 200
    errors = [record["validation_rmse"] for record in result["history"]]
    assert result["test_rmse"] == min(errors)
    assert errors[result["best_epoch"] - 1] == min(errors)


def test_a_test_file_is_mapped_and_unknown_ids_counted(nbps, write, tmp_path, data_file):
    """Ratings of users or items that are not in the training file are left out with a note."""
    test = write(generate_ratings(310, 200, 900, seed=5), tmp_path / "test.data")
    known = read_ratings(data_file)
    _, dropped = read_ratings(test).recode(known.user_ids, known.item_ids)
    assert dropped > 0
    done = nbps("train", "mf", "--data", data_file, "--test", test, *QUICK, "--json")
    result = result_of(done)
    assert result["data"]["dropped_test_ratings"] == dropped
    assert result["data"]["test_ratings"] == 900 - dropped
    assert f"{dropped} test ratings dropped" in done.stderr


def test_generated_ratings_without_data(nbps):
    """The first command of the README works without a download."""
    result = result_of(nbps("train", "mf", "--epochs", "1", "--rank", "4", "--json", "-q"))
    assert result["data"]["users"] == 6_040
    assert result["data"]["train_ratings"] + result["data"]["test_ratings"] == 1_000_209


def test_columns_of_an_unknown_header(nbps, tmp_path, data_file):
    """--columns takes names and positions."""
    path = tmp_path / "x.csv"
    path.write_text("who,what,stars\n" + data_file.read_text().replace("\t", ","))
    for columns in ("who,what,stars", "0, 1, stars"):
        done = nbps("train", "mf", "--data", path, "--columns", columns, *QUICK, "--json", "-q")
        assert result_of(done)["data"]["users"] == 300


@pytest.fixture(scope="module")
def model(nbps, data_file, tmp_path_factory):
    """Return the folder of a trained and saved model."""
    folder = tmp_path_factory.mktemp("saved") / "deep" / "model"
    done = nbps("train", "mf", "--data", data_file, *QUICK, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    return folder


def test_recommend_leaves_out_what_the_user_has_rated(nbps, model, data_file):
    """Best first, as many as asked for, none of the training data."""
    done = nbps("recommend", model, "--user", "7", "--n", "5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["user"] == 7
    items = [entry["item"] for entry in result["recommendations"]]
    scores = [entry["score"] for entry in result["recommendations"]]
    assert len(set(items)) == 5
    assert scores == sorted(scores, reverse=True)
    train, _ = read_ratings(data_file).split(0.1, 0)
    rated = train.items[train.users == train.user_ids.encode(7)[0]]
    assert not set(items) & set(train.item_ids.decode(rated).tolist())
    text = nbps("recommend", model, "--user", "7", "--n", "5").stdout
    assert all(str(item) in text for item in items)


def test_recommend_refuses_unknown_users_and_folders(nbps, model, tmp_path):
    """The id is named, with known ones; so is a folder that is no model."""
    done = nbps("recommend", model, "--user", "31415")
    assert done.returncode == 1
    assert "31415" in done.stderr
    assert "300" in done.stderr
    for folder in (tmp_path, tmp_path / "absent"):
        done = nbps("recommend", folder, "--user", "1")
        assert done.returncode == 1
        assert str(folder) in done.stderr
    assert nbps("recommend", model).returncode == 2


def test_interrupting_stops_cleanly(command, data_file):
    """Ctrl-C in the middle of training: one word, code 130, nothing left behind."""
    process = subprocess.Popen(
        [*command, "train", "mf", "--data", str(data_file), "--epochs", "1000000", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        while not process.stderr.readline().startswith("epoch 2/"):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    assert "Traceback" not in rest
    deadline = time.monotonic() + 10
    while leftover := [segment for segment in find_segments() if segment.pid == process.pid]:
        assert time.monotonic() < deadline, leftover
        time.sleep(0.05)
