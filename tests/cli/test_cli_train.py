"""nbps train mf and nbps recommend, with the real model on small files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nbps.data import Ratings, generate_ratings, read_ratings
from nbps.memory.segments import FOLDER, find_segments
from nbps.runtime.cores import usable_cores
from support.mounts import disk, mounted

QUICK = ["--epochs", "3", "--rank", "4", "--workers", "2"]


def result_of(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the JSON object that a run printed last."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_json_has_everything(trained, data_file):
    """Errors, speed, parameters, history, report; readable text is on the other stream."""
    result = trained.result
    assert len(trained.done.stdout.splitlines()) == 1
    assert 0.3 < result["train_rmse"] < 2
    assert 0.3 < result["test_rmse"] < 2
    assert result["train_seconds"] > 0
    assert result["ratings_per_second"] > 0
    assert result["parameters"]["rank"] == 4
    assert result["parameters"]["workers"] == 2
    assert result["parameters"]["consistency"] == "essp"
    assert [record["epoch"] for record in result["history"]] == [1, 2, 3]
    assert result["report"]["consistency"] == "ESSP(staleness=2)"
    train, test = read_ratings(data_file).split(0.1, 0)
    assert result["data"]["train_ratings"] == len(train)
    assert result["data"]["test_ratings"] == len(test)
    for words in ("test RMSE", "epoch 3/3", "ESSP(staleness=2)", str(trained.folder)):
        assert words in trained.done.stderr
    assert "note:" not in trained.done.stderr


def test_text_goes_to_standard_output(nbps, data_file):
    """Without --json the table is the output; progress and notes are not, and --quiet leaves out all of them."""
    done = nbps("train", "mf", "--data", data_file, "--epochs", 1, "--rank", 2, "--workers", 2 * usable_cores() + 1)
    assert done.returncode == 0, done.stderr
    assert "test RMSE" in done.stdout
    assert "epoch 1/1" in done.stderr
    assert "workers share" in done.stderr
    assert "epoch 1/1" not in done.stdout
    done = nbps("train", "mf", "--data", data_file, "--epochs", 1, "--rank", 2, "--workers", 1, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_profile_says_where_the_time_went(process, data_file, tmp_path):
    """All phases in order, as text and in the JSON; they make up the time of the process."""
    options = ["--data", data_file, *QUICK, "--out", tmp_path / "model", "--profile", "--json"]
    start = time.monotonic()
    done = process("train", "mf", *options)
    seconds = time.monotonic() - start
    found = result_of(done)["profile"]
    phases = ["imports", "read", "ids", "split", "schedule", "start", "train", "evaluate", "save", "other", "total"]
    assert list(found) == phases
    assert all(value >= 0 for value in found.values())
    assert sum(found.values()) - found["total"] == pytest.approx(found["total"], abs=1e-6)
    assert 0 < found["total"] <= seconds
    shown = [line.split()[0] for line in done.stderr.splitlines() if "%" in line and " s " in line]
    assert shown[-len(phases) :] == phases


@pytest.mark.parametrize(
    "options",
    [
        {"consistency": "bsp", "optimizer": "sgd", "learning_rate": 0.01, "regularization": 0.05},
        {"consistency": "ssp", "staleness": 1, "schedule": "cached", "seed": 3},
        {"consistency": "asp", "schedule": "direct", "workers": 1},
    ],
)
def test_every_choice_trains(nbps, data_file, options):
    """The options reach the model and the error stays sane; --quiet leaves nothing but the JSON."""
    listed = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = nbps("train", "mf", "--data", data_file, *QUICK, "--json", "-q", *listed)
    result = result_of(done)
    assert done.stderr == ""
    assert 0.3 < result["test_rmse"] < 2
    assert {name: result["parameters"][name] for name in options} == options


def test_few_items_or_users(nbps, tmp_path):
    """MovieLens' users.dat read as ratings trains, with a note; one item does not, and the note says why."""
    path = tmp_path / "users.dat"
    path.write_text("".join(f"{user}::{'FM'[user % 2]}::{user * 7 % 50}::10::48067\n" for user in range(1, 60)))
    done = nbps("train", "mf", "--data", path, *QUICK, "--workers", 1)
    assert done.returncode == 0
    assert "note: the data has 59 users and 2 items: are these the right columns?" in done.stderr
    path.write_text("1::7::5\n2::7::4\n3::7::4\n")
    done = nbps("train", "mf", "--data", path, "--test-fraction", 0)
    assert done.returncode == 1
    assert "3 users and 1 items" in done.stderr
    assert "--columns user,item,rating" in done.stderr
    assert "at least two" in done.stderr.splitlines()[-1]


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
    assert f"tested on      {900 - dropped} ratings ({dropped} more dropped: their user or item is not" in done.stderr


def test_test_ratings_that_are_trained_on_are_counted_in_a_note(nbps, write, tmp_path, data_file):
    """The same file twice; one with other ratings of the same pairs beside new ones; none of the pairs."""
    every = read_ratings(data_file)
    pairs = every.users.astype(np.int64) * every.shape[1] + every.items
    old, new = np.unique(pairs)[:30], np.setdiff1d(np.arange(300), pairs)[:12]
    for codes, trained in ((np.concatenate([new, old]), 30), (new, 0)):
        users, items = np.divmod(codes, every.shape[1])
        other = Ratings.from_columns(every.user_ids.decode(users), every.item_ids.decode(items), np.full(codes.size, 2))
        test = write(other, tmp_path / "test.data")
        done = nbps("train", "mf", "--data", data_file, "--test", test, *QUICK, "--json")
        assert result_of(done)["data"]["trained_test_ratings"] == trained
        note = f"note: {trained} of {codes.size} test ratings are also in --data (the same user and item)"
        assert (note in done.stderr) == bool(trained)
    done = nbps("train", "mf", "--data", data_file, "--test", data_file, *QUICK)
    assert f"note: {len(every):,} of {len(every):,} test ratings are also in --data" in done.stderr


def test_training_for_too_long_is_noted(nbps, data_file):
    """With the best epoch, which the option would keep; not where it does, nor where the last epochs are the best."""
    options = ["train", "mf", "--data", data_file, "--rank", 16, "--workers", 2, "--regularization", 0, "--json"]
    done = nbps(*options, "--epochs", 40)
    errors = [record["validation_rmse"] for record in result_of(done)["history"]]
    best = int(np.argmin(errors))
    assert errors[-1] > 1.01 * errors[best]
    words = f"best after epoch {best + 1} ({errors[best]:.4f}) and {errors[-1]:.4f} in the end: try --early-stopping 3"
    assert words in done.stderr
    assert "try --early-stopping" not in nbps(*options, "--epochs", 40, "--early-stopping", 3).stderr
    assert "try --early-stopping" not in nbps(*options, "--epochs", 2).stderr


def test_generated_ratings_without_data(nbps):
    """The first command of the README works without a download."""
    result = result_of(nbps("train", "mf", "--epochs", "1", "--rank", "4", "--json", "-q"))
    assert result["data"]["users"] == 6_040
    assert result["data"]["train_ratings"] + result["data"]["test_ratings"] == 1_000_209


def test_columns_and_no_test_ratings(nbps, tmp_path, data_file):
    """--columns takes names and positions; a test fraction of 0 trains on everything."""
    path = tmp_path / "x.csv"
    path.write_text("who,what,stars\n" + data_file.read_text().replace("\t", ","))
    done = nbps("train", "mf", "--data", path, *QUICK)
    assert done.returncode == 1
    assert "--columns user,item,rating" in done.stderr
    options = ["--columns", "0, what, stars", "--test-fraction", 0, "--workers", 1]
    result = result_of(nbps("train", "mf", "--data", path, *QUICK, "--json", *options))
    assert result["data"]["users"] == 300
    assert result["data"]["train_ratings"] == 6_000
    assert result["test_rmse"] is None
    assert all(record["validation_rmse"] is None for record in result["history"])


def test_other_formats_of_data(nbps, tmp_path, data_file):
    """--delimiter says what separates the columns, of both files; JSON lines need nothing."""
    path = tmp_path / "x.txt"
    path.write_text(data_file.read_text().replace("\t", "|"))
    done = nbps("train", "mf", "--data", path, *QUICK)
    assert done.returncode == 1
    assert "--delimiter" in done.stderr
    expected = result_of(nbps("train", "mf", "--data", data_file, "--test", data_file, *QUICK, "--json"))
    options = [*QUICK, "--json", "--delimiter", "|"]
    assert (
        result_of(nbps("train", "mf", "--data", path, "--test", path, *options))["test_rmse"] == expected["test_rmse"]
    )
    options[-1] = r"\t"
    assert result_of(nbps("train", "mf", "--data", data_file, *options))["data"]["users"] == 300
    assert nbps("train", "mf", "--delimiter", "|").returncode == 2
    lines = tmp_path / "x.json"
    rows = [line.split("\t") for line in data_file.read_text().splitlines()]
    names = ("user", "item", "rating")
    lines.write_text("\n".join(json.dumps(dict(zip(names, map(float, row), strict=False))) for row in rows))
    done = nbps("train", "mf", "--data", lines, *QUICK)
    assert "line 1: expected the user's id in 'user', an integer or string" in done.stderr
    lines.write_text("\n".join(json.dumps(dict(zip(names, map(int, row), strict=False))) for row in rows))
    assert result_of(nbps("train", "mf", "--data", lines, *QUICK, "--json"))["data"]["users"] == 300


def test_too_little_shared_memory_says_how_much_is_needed(tmp_path):
    """Bytes needed and free, and how to enlarge it: a user of this command has no tables to make smaller."""
    arguments = ["-m", "nbps", "train", "mf", "--epochs", "1", "--rank", "4", "--workers", "1", "-q"]
    command = [*mounted(disk(FOLDER, "size=4m")), sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        r"training on 899,942 ratings of 3,706 items by 6,040 users at rank 4 needs [\d,]+ bytes of shared memory; "
        r"free are [\d,]+ of 4,194,304 in /dev/shm\. Enlarge it \(docker run --shm-size=\d\dm, mount",
        " ".join(done.stderr.split()),
    )


def test_recommend_leaves_out_what_the_user_has_rated(nbps, trained, data_file):
    """Best first, as many as asked for, none of the training data; scores without the noise of float32."""
    done = nbps("recommend", trained.folder, "--user", "7", "--n", "5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["user"] == 7
    items = [entry["item"] for entry in result["recommendations"]]
    scores = [entry["score"] for entry in result["recommendations"]]
    assert len(set(items)) == 5
    assert scores == sorted(scores, reverse=True)
    assert scores == [float(str(np.float32(score))) for score in scores]
    train, _ = read_ratings(data_file).split(0.1, 0)
    rated = train.items[train.users == train.user_ids.encode(7)[0]]
    assert not set(items) & set(train.item_ids.decode(rated).tolist())
    text = nbps("recommend", trained.folder, "--user", "7", "--n", "5").stdout
    assert all(str(item) in text for item in items)


def test_recommend_refuses_unknown_users_and_folders(nbps, trained, tmp_path):
    """The id is named, with known ones; so is a folder that is no model, with the command that makes one."""
    done = nbps("recommend", trained.folder, "--user", "31415")
    assert done.returncode == 1
    assert "31415" in done.stderr
    assert "300" in done.stderr
    for folder in (tmp_path, tmp_path / "absent"):
        done = nbps("recommend", folder, "--user", "1")
        assert done.returncode == 1
        assert str(folder) in done.stderr
        assert "nbps train mf --out DIR" in done.stderr
    assert nbps("recommend", trained.folder).returncode == 2


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


def test_a_command_that_was_killed_goes_on(command, nbps, data_file, tmp_path):
    """With --checkpoint the same command trains the epochs that are left, and says so."""
    arguments = ["train", "mf", "--data", str(data_file), "--epochs", "100", "--rank", "2", "--workers", "2"]
    arguments += ["--checkpoint", str(tmp_path), "--json"]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not process.stderr.readline().startswith("epoch 3/"):
            assert process.poll() is None
        process.kill()
    done = nbps(*arguments)
    result = result_of(done)
    assert [record["epoch"] for record in result["history"]] == [*range(1, 101)]
    assert "epoch 1/" not in done.stderr
    assert "epoch 100/100" in done.stderr
    assert re.search(r"nbps: training goes on after epoch \d+, from ", done.stderr)
