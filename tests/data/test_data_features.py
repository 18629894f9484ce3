"""Features and targets from files: what comes out, what is refused, and where it was wrong."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from nbps.data import read_features
from nbps.errors import ConfigError, DataError

X = np.array([[1.5, 0, -2], [0, 3e2, 0.25]])
Y = np.array([1.0, -1.0])
TABLE = pa.table({"y": Y, "a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})


def whole(features):
    """Return the matrix of features, dense."""
    if not features.is_sparse:
        return features.values
    out = np.zeros(features.shape)
    out[features.rows, np.repeat(np.arange(features.shape[1]), np.diff(features.starts))] = features.values
    return out


def write(path, name):
    """Write X and Y in a format."""
    path = path / f"data.{name}"
    if name == "parquet":
        pyarrow.parquet.write_table(TABLE, path)
    elif name == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, TABLE.schema) as writer:
            writer.write_table(TABLE)
    elif name == "npz":
        np.savez_compressed(path, X=X, y=Y)
    elif name == "svmlight":
        path.write_text("# made by hand\n1 1:1.5 3:-2\n\n-1 2:3e2 3:.25 # the second\n")
    else:
        separator = {"csv": ",", "tsv": "\t"}[name]
        path.write_text("\n".join(separator.join(line) for line in (["y", "a", "b", "c"], *_words())) + "\n")
    return path


def _words():
    return [[repr(float(value)) for value in (y, *row)] for y, row in zip(Y, X, strict=True)]


@pytest.mark.parametrize("compressed", [False, True], ids=["", "gz"])
@pytest.mark.parametrize("name", ["csv", "tsv", "parquet", "arrow", "npz", "svmlight"])
def test_formats_are_found_and_read(tmp_path, name, compressed):
    """All give the same numbers; names where there are some."""
    path = write(tmp_path, name)
    if compressed:
        path.write_bytes(gzip.compress(path.read_bytes()))
        if name in ("npz", "parquet", "arrow"):
            features, y = read_features(path, format=name)
        else:
            features, y = read_features(path)
    else:
        features, y = read_features(path)
    assert (whole(features) == X).all()
    assert (y == Y).all()
    assert features.names == (None if name in ("npz", "svmlight") else ("a", "b", "c"))
    assert features.is_sparse == (name == "svmlight")


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_matrices_as_scipy_saves_them(tmp_path, form):
    """With a target beside; entries of one place are added up."""
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.coo_matrix(([1, 0.5, -2, 3e2, 0.25], ([0, 0, 0, 1, 1], [0, 0, 2, 1, 2])), X.shape)
    sparse.save_npz(tmp_path / "m.npz", matrix.asformat(form))
    with np.load(tmp_path / "m.npz") as saved:
        np.savez(tmp_path / "m.npz", **saved, y=Y)
    features, y = read_features(tmp_path / "m.npz")
    assert (whole(features) == X).all()
    assert (features.is_sparse, y.tolist()) == (True, Y.tolist())


def test_the_target_is_named_or_numbered(tmp_path):
    """The first column by default; float32 columns stay so."""
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table({"a": pa.array([1, 2], pa.float32()), "y": [3, 4]}), path)
    for target in ("y", 1):
        features, y = read_features(path, target)
        assert (features.values.dtype, features.names, y.tolist()) == (np.float32, ("a",), [3, 4])
    assert read_features(path)[1].tolist() == [1, 2]


def test_svmlight_columns_from_0(tmp_path):
    """Where there is a column 0, they count from there; a line without columns is a row of zeros."""
    (tmp_path / "x").write_text("2 0:1 3:4\n-3\n")
    features, y = read_features(tmp_path / "x")
    assert (whole(features) == [[1, 0, 0, 4], [0, 0, 0, 0]]).all()
    assert y.tolist() == [2, -3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (b"y,a\n", "found 0 rows of 2"),
        (b"y\n1\n", "found 1 rows of 1"),
        (b"y,a\n1,2\n3\n", r"expected a whole csv file, found: .*Row #3: Expected 2 columns, got 1"),
        (b"y,a\n1,2\n3,x\n", r"row 2: expected numbers in column 'a' of string, found 'x'"),
        (b"y,a\n1,2\n3,\n", r"row 2: column 'a' has no value there"),
        (b"1 1:2\n1 2:x\n", r"line 2: expected 'target column:value ...', found '1 2:x'"),
        (b"1 1:2\n1 2:3:4 5\n", r"line 2: expected"),
        (b"1 1:2\n1:5 2\n", r"line 2: expected"),
        (b"1 1:2\n1 2:", r"line 2: expected"),
        (b"1 1:2\n\xff\n", r"line 2: expected"),
    ],
)
def test_what_is_wrong_with_text_is_said(tmp_path, content, message):
    """With the line or row."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "x")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "expected an array 'y' with the target, found X"),
        ({"y": Y}, "expected an array 'X', or 'data'"),
        ({"X": X.T, "y": Y}, r"expected 2 rows of numbers in 'X', found float64 of shape \(3, 2\)"),
        ({"X": X, "y": Y[:, None]}, "expected one number for each row in 'y'"),
        ({"X": np.array([["a"], ["b"]]), "y": Y}, "expected 2 rows of numbers in 'X', found <U1"),
        ({"X": np.array([[None]]), "y": Y[:1]}, "expected NumPy arrays, found: .*allow_pickle"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    """Nothing is unpickled."""
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.array([0, 9])}, "a place below 3 in 'indices'"),
        ({"indptr": np.array([0, 3, 2])}, "ascending starts"),
        ({"indptr": np.array([0, 2])}, "ascending starts"),
        ({"format": np.array(b"coo")}, "expected a CSR or CSC matrix of 2 rows, found coo"),
        ({"shape": np.array([3, 3])}, r"found csr of shape \(3, 3\)"),
        ({"data": np.ones(3)}, "a number in 'data'"),
    ],
)
def test_forged_sparse_matrices_are_refused(tmp_path, change, message):
    """Before anything is indexed with them."""
    good = {"data": np.ones(2), "indices": np.array([0, 2]), "indptr": np.array([0, 1, 2]), "shape": np.array([2, 3])}
    np.savez(tmp_path / "x.npz", **{**good, "format": np.array(b"csr"), "y": Y, **change})
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "x.npz")


def test_files_that_end_in_the_middle(tmp_path):
    """Of each format, compressed or not."""
    for name in ("parquet", "arrow", "npz"):
        path = write(tmp_path, name)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match="data"):
            read_features(path)
    for name in ("csv", "svmlight"):
        path = write(tmp_path, name)
        path.write_bytes(gzip.compress(path.read_bytes() * 500)[:-20])
        with pytest.raises(DataError, match="data"):
            read_features(path)


def test_damaged_arrays(tmp_path):
    """What does not decompress, as well as what has another checksum."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, y=np.zeros(9), X=np.random.default_rng(0).integers(0, 10, (9, 40_000)))
    content = bytearray(path.read_bytes())
    content[20_000:23_000] = np.random.default_rng(1).bytes(3000)
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected NumPy arrays, found: Error"):
        read_features(path)


def test_options_that_cannot_be_used(tmp_path):
    """A format or a target that is not there, a target where the file says it."""
    path = write(tmp_path, "csv")
    with pytest.raises(ConfigError, match="expected one of csv, parquet, arrow, svmlight, npz, found 'xls'"):
        read_features(path, format="xls")
    with pytest.raises(ConfigError, match=r"target is 'z'; expected a column of .* 'y', 'a', 'b', 'c'"):
        read_features(path, "z")
    with pytest.raises(ConfigError, match="target is 4"):
        read_features(path, 4)
    with pytest.raises(ConfigError, match="svmlight files say themselves"):
        read_features(write(tmp_path, "svmlight"), "y")
