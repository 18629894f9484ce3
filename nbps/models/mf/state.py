"""The numbers of a factorization, in the order of the ids: made, extended, asked for predictions, put into tables."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import over
from nbps.data import IdMap, Ratings
from nbps.data.arrays import added_up
from nbps.data.memory import check_fits
from nbps.errors import DataError
from nbps.kernels.models import mf_layout
from nbps.models.mf.plan import TrainingPlan

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_MODELS = 3  # at a time: the first factors, the tables, and what comes out of them
_SHARE_BYTES = 8  # of a rating in a worker's share: its item and its value
_LOOKED_FOR = 8  # users whose ratings are looked for among all; for more it is worth sorting them


@dataclass(frozen=True)
class Factors:
    """A factorization in units of ratings: ``rating = mean + bias_u + bias_i + p_u . q_i``.

    Attributes
    ----------
    user_factors, item_factors : float32[n, rank]
    user_state, item_state : float32[n, 2]
        Bias, and accumulator of the optimiser.
    user_ids, item_ids : IdMap
    mean, scale : float
        Mean and standard deviation of the ratings of the first fit.
    seen_users, seen_items : int32[m]
        User and item of each rating that it was trained on, in any order.
    """

    user_factors: Floats
    item_factors: Floats
    user_state: Floats
    item_state: Floats
    user_ids: IdMap
    item_ids: IdMap
    mean: float
    scale: float
    seen_users: npt.NDArray[np.int32]
    seen_items: npt.NDArray[np.int32]

    @property
    def rank(self) -> int:
        """Number of factors."""
        return int(self.user_factors.shape[1])

    @property
    def seen_counts(self) -> tuple[Ints, Ints]:
        """Ratings of each user, and of each item, in training."""
        seen = (self.seen_users, self.user_ids), (self.seen_items, self.item_ids)
        users, items = (np.bincount(codes, minlength=len(ids)) for codes, ids in seen)
        return users, items

    @property
    def user_biases(self) -> Floats:
        """Biases of the users."""
        return np.ascontiguousarray(self.user_state[:, mf_layout.BIAS])

    @property
    def item_biases(self) -> Floats:
        """Biases of the items."""
        return np.ascontiguousarray(self.item_state[:, mf_layout.BIAS])

    def predict(self, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32]) -> Floats:
        """Predict for codes; -1 is an unknown one."""
        out = np.empty(users.size, np.float32)
        for start in range(0, users.size, 1 << 16):
            part = slice(start, start + (1 << 16))
            u, i = users[part], items[part]
            known_u, known_i = u >= 0, i >= 0
            bias = np.where(known_u, self.user_state[u, mf_layout.BIAS], 0)
            bias = bias + np.where(known_i, self.item_state[i, mf_layout.BIAS], 0)
            product = np.einsum("nk,nk->n", self.user_factors[u], self.item_factors[i])
            out[part] = self.mean + bias + np.where(known_u & known_i, product, 0)
        return out

    def seen_by(self, users: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
        """Return the items that each of `users` rated in training."""
        if users.size <= _LOOKED_FOR:
            return [self.seen_items[self.seen_users == user] for user in users]
        starts, items = self._seen_by_user
        return [items[starts[user] : starts[user + 1]] for user in users]

    @functools.cached_property
    def _seen_by_user(self) -> tuple[Ints, npt.NDArray[np.int32]]:
        order = np.argsort(self.seen_users, kind="stable")
        counts = np.bincount(self.seen_users, minlength=len(self.user_ids))
        return np.concatenate([[0], np.cumsum(counts)]), self.seen_items[order]

    def best_items(self, user: int, n: int, without: npt.NDArray[np.int32]) -> tuple[Ints, Floats]:
        """Return codes and predicted ratings of the best items but `without` for user code `user`, best first."""
        scores = self.item_factors @ self.user_factors[user] + self.item_state[:, mf_layout.BIAS]
        scores += np.float32(self.mean) + self.user_state[user, mf_layout.BIAS]
        allowed = np.ones(scores.size, bool)
        allowed[without] = False
        return _top(scores, np.flatnonzero(allowed), n)

    def nearest_items(self, item: int, n: int) -> tuple[Ints, Floats]:
        """Return codes and cosines of the items most similar to item code `item`, best first, without itself."""
        norms = np.linalg.norm(self.item_factors, axis=1)
        cosines = self.item_factors @ self.item_factors[item] / np.maximum(norms * norms[item], np.float32(1e-12))
        return _top(cosines, np.delete(np.arange(cosines.size), item), n)

    def to_file(self) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the tables and numbers that a saved model consists of.

        ``users`` and ``items`` have the columns id, factors (fixed-size list), bias, accumulator; ``seen`` has the
        training pairs in any order, as codes, that is row numbers of those two.
        """

        def side(ids: IdMap, factors: Floats, state: Floats) -> pa.Table:
            rows = pa.FixedSizeListArray.from_arrays(over(factors), factors.shape[1])
            bias, accumulator = map(over, np.ascontiguousarray(state.T))
            return pa.table({"id": ids.ids, "factors": rows, "bias": bias, "accumulator": accumulator})

        tables = {
            "users": side(self.user_ids, self.user_factors, self.user_state),
            "items": side(self.item_ids, self.item_factors, self.item_state),
            "seen": pa.table({"user": over(self.seen_users), "item": over(self.seen_items)}),
        }
        return tables, {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_file(cls, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> Factors:
        """Inverse of `to_file`."""
        sides = []
        for name in ("users", "items"):
            table = tables[name].combine_chunks()
            factors = table["factors"].combine_chunks()
            rows: Floats = np.asarray(factors.flatten(), np.float32).reshape(len(table), factors.type.list_size)
            state = np.stack([np.asarray(table["bias"]), np.asarray(table["accumulator"])], axis=1)
            sides.append((rows, state, IdMap(table["id"].combine_chunks())))
        (user_factors, user_state, user_ids), (item_factors, item_state, item_ids) = sides
        seen = [np.asarray(tables["seen"][name], np.int32) for name in ("user", "item")]
        for name, codes, ids in (("users", seen[0], user_ids), ("items", seen[1], item_ids)):
            if codes.size and not 0 <= codes.min() <= codes.max() < len(ids):
                raise DataError(f"seen.arrow: names {name} that {name}.arrow does not have")
        mean, scale = float(manifest["mean"]), float(manifest["scale"])
        return cls(user_factors, item_factors, user_state, item_state, user_ids, item_ids, mean, scale, *seen)


def initial_factors(data: Ratings, plan: TrainingPlan) -> Factors:
    """Return the state before the first epoch: damped mean biases, small random factors.

    Raises
    ------
    OutOfMemoryError
        If the memory does not hold what training needs: nothing of it was allocated.
    """
    _check_fits(len(data), *data.shape, plan)
    mean = float(data.values.mean(dtype=np.float64))
    scale = _deviation(data.values, mean) or 1.0
    damping = plan.bias_damping
    item_bias = _damped_means(data.items, data.item_counts, damping, lambda part: data.values[part] - mean)
    user_bias = _damped_means(
        data.users, data.user_counts, damping, lambda part: data.values[part] - mean - item_bias[data.items[part]]
    )
    users, items = data.shape
    random = np.random.default_rng(plan.seed)
    norm, start = plan.constants.factors_size, plan.first_accumulator
    rows = _small(random, users, plan.rank, scale, norm), _small(random, items, plan.rank, scale, norm)
    return Factors(
        *rows, _state(user_bias, start), _state(item_bias, start),
        data.user_ids, data.item_ids, mean, scale, data.users, data.items,
    )  # fmt: skip


def _check_fits(ratings: int, users: int, items: int, plan: TrainingPlan) -> None:
    rows_bytes = 4 * (users + items) * (plan.rank + mf_layout.STATE_WIDTH)
    check_fits(
        f"training on {ratings:,} ratings of {items:,} items by {users:,} users at rank {plan.rank} needs",
        _MODELS * rows_bytes + _SHARE_BYTES * ratings // plan.nodes.count,
    )


def _deviation(values: Floats, mean: float) -> float:
    """Return the standard deviation of `values`."""

    def squares(part: slice) -> float:
        distances = values[part] - np.float64(mean)
        distances *= distances
        return float(distances.sum())

    return math.sqrt(added_up(squares, values.size) / values.size)


def grown(factors: Factors, data: Ratings, plan: TrainingPlan) -> tuple[Factors, Ratings]:
    """Return `factors` with rows for the ids of `data` that are new, and `data` in its codes.

    Raises
    ------
    OutOfMemoryError
        If the memory does not hold what training needs at least, nothing of which was allocated.
    """
    users, items = data.shape
    _check_fits(len(data), max(users, len(factors.user_ids)), max(items, len(factors.item_ids)), plan)
    random = np.random.default_rng([plan.seed, len(factors.user_ids), len(factors.item_ids)])
    norm, scale = plan.constants.factors_size, factors.scale
    by_user = _extended(factors.user_ids, factors.user_factors, factors.user_state, data.user_ids, scale, norm, random)
    by_item = _extended(factors.item_ids, factors.item_factors, factors.item_state, data.item_ids, scale, norm, random)
    (user_ids, user_factors, user_state), (item_ids, item_factors, item_state) = by_user, by_item
    data, _ = data.recode(user_ids, item_ids)
    seen_users = np.concatenate([user_ids.encode(factors.user_ids.ids)[factors.seen_users], data.users])
    seen_items = np.concatenate([item_ids.encode(factors.item_ids.ids)[factors.seen_items], data.items])
    return (
        Factors(
            user_factors,
            item_factors,
            user_state,
            item_state,
            user_ids,
            item_ids,
            factors.mean,
            factors.scale,
            seen_users,
            seen_items,
        ),
        data,
    )


def _extended(
    ids: IdMap, rows: Floats, state: Floats, more: IdMap, scale: float, norm: float, random: np.random.Generator
) -> tuple[IdMap, Floats, Floats]:
    fresh = np.flatnonzero(ids.find(more.ids) < 0)
    if fresh.size == 0:
        return ids, rows, state
    if ids.is_integer != more.is_integer:
        raise DataError(f"partial_fit: expected ids like those of the model ({ids!r}), found {more!r}")
    both, _ = IdMap.of(pa.concat_arrays([ids.ids, more.ids.take(over(fresh))]))
    new_rows = _small(random, len(both), rows.shape[1], scale, norm)
    new_state = np.empty((len(both), 2), np.float32)
    new_state[:] = 0.0, np.median(state[:, mf_layout.ACCUMULATOR])
    places = both.encode(ids.ids)
    new_rows[places], new_state[places] = rows, state
    return both, new_rows, new_state


def _damped_means(
    codes: npt.NDArray[np.int32], counts: Ints, damping: float, values_of: Callable[[slice], npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    def sums_of(part: slice) -> npt.NDArray[Any]:
        return np.bincount(codes[part], values_of(part), minlength=counts.size)

    sums: npt.NDArray[np.float64] = added_up(sums_of, codes.size, counts.size)
    return sums / (np.maximum(counts, 1) + damping)  # the sum of none is 0


def _small(random: np.random.Generator, rows: int, rank: int, scale: float, norm: float) -> Floats:
    return random.standard_normal((rows, rank), np.float32) * np.float32(norm * np.sqrt(scale / rank))


def _state(bias: npt.NDArray[np.float64], accumulator: float) -> Floats:
    return np.stack([bias, np.full(bias.size, accumulator)], axis=1).astype(np.float32)


def _top(scores: Floats, candidates: Ints, n: int) -> tuple[Ints, Floats]:
    n = min(n, candidates.size)
    values = scores[candidates]
    if n < candidates.size:
        nearest = np.argpartition(-values, n)[:n]
        candidates, values = candidates[nearest], values[nearest]
    order = np.lexsort((candidates, -values))  # equal scores in the order of the codes
    return candidates[order], values[order]
