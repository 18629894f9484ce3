"""nbps train lasso, with real models on small files."""

import json

import numpy as np
import pytest

from nbps.cli.options import LassoScheduleName, TableFormatName
from nbps.data import read_features
from nbps.data.features.reading import FORMATS
from nbps.models import ElasticNet, ElasticNetCV
from nbps.models.lasso.plan import SCHEDULES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a CSV file of 60 rows and 80 features, the target in the middle."""
    random = np.random.default_rng(0)
    X = random.standard_normal((60, 80)) + 1
    y = 3 * X[:, 4] - 2 * X[:, 70] + 0.1 * random.standard_normal(60)
    path = tmp_path_factory.mktemp("table") / "genes.csv"
    names = [f"g{k}" for k in range(80)]
    lines = [[*names[:40], "growth", *names[40:]]]
    lines += [
        [*map(repr, row[:40].tolist()), repr(float(t)), *map(repr, row[40:].tolist())]
        for row, t in zip(X, y, strict=True)
    ]
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    return path


def result(done):
    """Return the JSON that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_trained_told_and_saved(nbps, table, tmp_path):
    """As in Python; rows for readers are on the other stream beside JSON."""
    model, options = tmp_path / "model", ["--alpha", 0.2, "--l1-ratio", 0.9, "--standardize", "--tol", 1e-8]
    done = nbps("train", "lasso", "--data", table, "--target", "growth", *options, "--out", model, "--json")
    found = result(done)
    features, y = read_features(table, "growth")
    expected = ElasticNet(alpha=0.2, l1_ratio=0.9, standardize=True, tol=1e-8).fit(features, y)
    used = np.flatnonzero(expected.coef_)
    assert found["coefficients"] == {f"g{k}": pytest.approx(expected.coef_[k]) for k in used}
    assert found["nonzeros"] == used.size
    assert found["dual_gap"] <= 1e-8 * y.var()
    assert found["history"][-1]["objective"] == found["objective"]
    assert found["report"] is None
    assert (ElasticNet.load(model).coef_ == expected.coef_).all()
    for words in ("training R²", "60 rows, 80 features", "g4", "epoch 1  objective", str(model)):
        assert words in done.stderr


def test_alpha_is_chosen_by_cross_validation(nbps, table, tmp_path):
    """Without --alpha; nothing is printed with --quiet."""
    found = result(nbps("train", "lasso", "--data", table, "--target", "40", "--json", "--profile"))
    expected = ElasticNetCV(l1_ratio=1.0).fit(*read_features(table, 40))
    assert found["parameters"]["alpha"] == pytest.approx(expected.alpha_)
    assert found["train_r2"] > 0.95
    quiet = nbps("train", "lasso", "--data", table, "--target", "growth", "--quiet", "--out", tmp_path / "m")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert ElasticNetCV.load(tmp_path / "m").alpha_ == pytest.approx(expected.alpha_)


def test_coordinates_are_dealt_to_workers(nbps, table):
    """Under a consistency model, with what workers waited."""
    options = ["--schedule", "cyclic", "--workers", 2, "--consistency", "ssp", "--staleness", 3, "--clocks", 4]
    found = result(nbps("train", "lasso", "--data", table, "--target", "growth", "--alpha", 0.2, *options, "--json"))
    assert found["report"]["consistency"] == "SSP(staleness=3)"
    assert set(found["coefficients"]) >= {"g4", "g70"}
    expected = ElasticNet(alpha=0.2, l1_ratio=1.0, tol=1e-8).fit(*read_features(table, "growth"))
    assert found["objective"] == pytest.approx(expected.history_[-1].objective, rel=1e-2)
    assert found["objective"] - expected.history_[-1].objective <= found["dual_gap"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", 0], "expected a finite number > 0, found 0"),
        (["--alpha", "nan"], "expected a finite number > 0, found nan"),
        (["--l1-ratio", 0], "expected 0 < x <= 1, found 0"),
        (["--target", "weight"], "target is 'weight'; expected a column of"),
        (["--consistency", "bsp"], "--consistency is for --schedule cyclic"),
        (["--workers", 2], "--alpha is chosen in one process"),
        (["--format", "parquet"], "expected a whole parquet file"),
    ],
)
def test_wrong_usage_is_refused(nbps, table, options, message):
    """With what to do, on one screen."""
    done = nbps("train", "lasso", "--data", table, *options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_file_without_names_is_noticed(nbps, table, tmp_path):
    """Its first row became the names of the columns; a file with names says nothing."""
    path = tmp_path / "rows.csv"
    path.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    done = nbps("train", "lasso", "--data", path, "--target", 40, "--alpha", 0.2)
    assert done.returncode == 0, done.stderr
    assert "is the first line of the file a row?" in done.stderr
    assert "note" not in nbps("train", "lasso", "--data", table, "--target", "growth", "--alpha", 0.2).stderr


def test_a_model_of_another_kind_is_not_overwritten(nbps, table, data_file, tmp_path):
    """Which is found out before anything is trained."""
    linear = ["train", "lasso", "--data", table, "--target", "growth", "--alpha", 0.2, "--out", tmp_path]
    assert nbps(*linear).returncode == 0
    done = nbps("train", "mf", "--data", data_file, "--epochs", 1, "--out", tmp_path)
    assert done.returncode == 1
    assert "found 'nbps linear model'. Name another folder" in done.stderr
    assert "epoch 1" not in done.stderr
    assert nbps(*linear).returncode == 0


def test_names_of_options_are_those_of_the_library():
    """Schedules and formats."""
    assert tuple(map(str, LassoScheduleName)) == SCHEDULES
    assert tuple(map(str, TableFormatName)) == FORMATS
