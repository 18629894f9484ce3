"""What a factorization is trained on and asked about: ratings in whatever form they come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.data import IdMap, Ratings
from nbps.data.arrays import parts
from nbps.data.ratings.frames import id_columns, is_frame
from nbps.errors import ConfigError, DataError

# Ratings are standardised to float32. One so far from the others that its distance, times the resolution of float32,
# is more than what most of them differ by leaves the same number of all others.
_RESOLUTION = float(np.finfo(np.float32).eps)
_LARGEST = 1e18  # its square fits float32, and so do sums of predictions


def as_ratings(ratings: Any, y: npt.ArrayLike | None) -> Ratings:
    """Return what `MatrixFactorization.fit` accepts as `Ratings`."""
    _check_roles(ratings, y)
    if isinstance(ratings, Ratings):
        return ratings
    if hasattr(ratings, "tocoo"):  # a scipy sparse matrix or array
        coo = ratings.tocoo()
        return Ratings(
            np.ascontiguousarray(coo.row, np.int32), np.ascontiguousarray(coo.col, np.int32),
            np.ascontiguousarray(coo.data, np.float32), *(IdMap.of(np.arange(size))[0] for size in coo.shape),
        )  # fmt: skip
    if y is not None:
        users, items = pair_columns(ratings)
        return Ratings.from_columns(users, items, y)
    if is_frame(ratings):
        return Ratings.from_arrow(ratings)
    raise ConfigError(
        "ratings: expected nbps.data.Ratings, a frame or table with columns of users, items and ratings, "
        "a scipy sparse matrix, or pairs of ids together with y"
    )


def as_validation(validation: Any, user_ids: IdMap, item_ids: IdMap) -> Ratings:
    """Return the validation set of `MatrixFactorization.fit` in the codes of the model, without unknown ids."""
    given = as_ratings(*(validation if isinstance(validation, tuple) else (validation, None)))
    known, dropped = given.recode(user_ids, item_ids)
    if not len(known):
        raise DataError(
            f"validation: expected ratings of users and items of the training data, found none among {dropped}"
        )
    check_magnitude(known)
    return known


def _check_roles(ratings: Any, y: Any) -> None:
    """Raise `ConfigError` for a file's name, and for a `y` that is no list of numbers or would not be used."""
    if isinstance(ratings, (str, Path)):
        raise ConfigError(
            f"ratings is {str(ratings)!r}; expected ratings, not the name of a file. Read it first: "
            f"nbps.data.read_ratings({str(ratings)!r})"
        )
    if y is None:
        return
    if isinstance(ratings, Ratings) or hasattr(ratings, "tocoo"):
        raise ConfigError(
            f"y is not used with {type(ratings).__name__}, which has the ratings itself; did you mean validation=? "
            f"fit(train, validation=test) measures the error on others"
        )
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if isinstance(y, Ratings) or (len(shape) == 2 and shape[1] != 1):
        raise ConfigError(
            f"y: expected a number for each pair of ids, found {type(y).__name__}; did you mean validation=? "
            f"fit(train, validation=test) measures the error on others"
        )


def pair_columns(pairs: Any) -> tuple[Any, Any]:
    """Return the ids of the users and of the items of pairs: an array of two columns, or a frame."""
    if is_frame(pairs):
        return id_columns(pairs)
    array = np.asarray(pairs)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ConfigError(f"pairs: expected an array of shape (n, 2) of user and item ids, found shape {array.shape}")
    return array[:, 0], array[:, 1]


def pair_codes(ratings: Any, user_ids: IdMap, item_ids: IdMap) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the codes of users and items of ratings, or of pairs of ids; -1 for those that are unknown."""
    if isinstance(ratings, Ratings):
        return (
            user_ids.find(ratings.user_ids.ids)[ratings.users],
            item_ids.find(ratings.item_ids.ids)[ratings.items],
        )
    users, items = pair_columns(ratings)
    return user_ids.find(users), item_ids.find(items)


def check_trainable(data: Ratings) -> None:
    """Raise `DataError` if there is nothing to factorize, or float32 does not hold the differences of the ratings."""
    users, items = (int(np.count_nonzero(counts)) for counts in (data.user_counts, data.item_counts))
    if users < 2 or items < 2:
        raise DataError(
            f"ratings: found {users} user(s) and {items} item(s) with ratings; a factorization needs at least two of "
            f"each"
        )
    check_magnitude(data)
    if _on_grid(data.values):
        return
    middle = np.median(data.values)
    distances = np.abs(data.values - middle)
    row = int(np.argmax(distances))
    usual = float(np.median(distances[distances > 0])) if distances[row] else 0.0
    if float(distances[row]) * _RESOLUTION > usual:
        raise DataError(
            f"{_rating(data, row)}; beside it float32 cannot tell the others apart, half of which lie within {usual:g} "
            f"of {middle:g}. Correct or remove it"
        )


def _on_grid(values: npt.NDArray[np.float32]) -> bool:
    """Whether all ratings are multiples of a number that float32 tells apart beside any of them, as stars are."""
    spread = float(values.max()) - float(values.min())
    if spread == 0:
        return True
    step = np.float32(2.0 ** math.ceil(math.log2(2 * spread * _RESOLUTION)))  # a median may lie half-way
    if step == 0:
        return False
    # Exact, since it is a power of two; where a tiny rating underflows it is not found again.
    return all(np.array_equal(np.rint(values[part] / step) * step, values[part]) for part in parts(values.size))


def check_magnitude(data: Ratings) -> None:
    """Raise `DataError` if a rating is so large that predictions and their errors overflow float32."""
    if len(data) and max(-data.values.min(), data.values.max()) > _LARGEST:
        row = int(np.argmax(np.abs(data.values)))
        raise DataError(f"{_rating(data, row)}; expected at most {_LARGEST:g} in size. Correct it, or divide them all")


def _rating(data: Ratings, row: int) -> str:
    user, item = data.user_ids.ids[data.users[row]].as_py(), data.item_ids.ids[data.items[row]].as_py()
    return f"ratings: the rating of item {item!r} by user {user!r} (row {row + 1}) is {data.values[row]:g}"
