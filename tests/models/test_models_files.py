"""Saved models: the same when they are loaded, refused when they are damaged."""

import copy
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

import nbps
from nbps.data import Ratings
from nbps.errors import DataError
from nbps.models import Lasso, MatrixFactorization

_SMALL = {"rank": 8, "epochs": 8, "workers": 2}


@pytest.mark.parametrize("strings", [False, True], ids=["integers", "strings"])
def test_saved_model_is_the_same(tmp_path, data, fitted, strings):
    """A loaded model predicts and recommends as the saved one, and goes on training from its state."""
    model = fitted
    if strings:
        train = data[0]
        users = np.char.add("user ", train.users.astype(str))
        model = MatrixFactorization(**_SMALL).fit(Ratings.from_columns(users, train.items, train.values))
    model.save(tmp_path / "model")
    loaded = MatrixFactorization.load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    np.testing.assert_allclose(loaded.item_factors, model.item_factors, rtol=1e-6)
    user = model.user_ids_.decode([5])[0]
    assert loaded.recommend(user)[0].tolist() == model.recommend(user)[0].tolist()
    assert loaded.history_ == model.history_
    assert np.array_equal(loaded.user_factors, model.user_factors)
    loaded.partial_fit(data[0]) if not strings else None
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "model" / "items.arrow"))).read_all()
    assert table.column_names == ["id", "factors", "bias", "accumulator"]
    np.testing.assert_allclose(
        np.asarray(table["factors"].combine_chunks().flatten()).reshape(-1, 8), model.item_factors, rtol=1e-6
    )


def test_a_model_of_another_kind_is_not_overwritten(tmp_path, fitted):
    """Some of its files would stay beside the new ones; one of the same kind is replaced."""
    X = np.random.default_rng(0).standard_normal((20, 3))
    linear = Lasso(alpha=0.1).fit(X, X[:, 0])
    linear.save(tmp_path)
    for _ in range(2):
        with pytest.raises(DataError, match="found 'nbps linear model'"):
            fitted.save(tmp_path)
        linear.save(tmp_path)
        assert np.array_equal(Lasso.load(tmp_path).coef_, linear.coef_)


def test_models_of_the_first_format_are_read(tmp_path, fitted):
    """There the ratings that were trained on are sorted by user."""
    fitted.save(tmp_path)
    path, manifest = tmp_path / "seen.arrow", json.loads((tmp_path / "model.json").read_text())
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().sort_by("user")
    with pa.OSFile(str(tmp_path / "sorted"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "sorted").replace(path)
    manifest["sha256"]["seen"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps(manifest | {"version": 1}))
    user = fitted.user_ids_.decode([5])[0]
    assert MatrixFactorization.load(tmp_path).recommend(user)[0].tolist() == fitted.recommend(user)[0].tolist()


@pytest.mark.parametrize(
    "model", [None, nbps.BSP(), nbps.SSP(3), nbps.ESSP(np.inf), nbps.ASP(), nbps.VAP(0.25)], ids=str
)
def test_saved_models_keep_their_consistency(tmp_path, fitted, model):
    """Every model and its number come back from the manifest."""
    copied = copy.copy(fitted).set_params(consistency=model)
    copied.save(tmp_path)
    assert MatrixFactorization.load(tmp_path).consistency == model


def test_damaged_models_are_refused(tmp_path, fitted):
    """A missing, foreign, newer or changed file gives an error that names it."""
    with pytest.raises(DataError, match="no saved model here"):
        MatrixFactorization.load(tmp_path)
    fitted.save(tmp_path)
    manifest = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(DataError, match="format version 1 or 2, found 99"):
        MatrixFactorization.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "mean"}))
    with pytest.raises(DataError, match="mean"):
        MatrixFactorization.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    content = bytearray((tmp_path / "items.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "items.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"items\.arrow: the checksum differs"):
        MatrixFactorization.load(tmp_path)
