"""The map between the ids of a data set and the dense codes that tables and kernels use.

Ids are sorted, so that the codes depend on the set of ids alone and not on the order of the rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nbps.buffers import numbers, over
from nbps.data.arrays import cached_parts, flat, in_parts, on_all_cores, own_memory
from nbps.errors import ConfigError

# Enough to see what is wrong with a list of ids without filling the screen.
_NAMED_IDS = 5
# Integers whose range is not much longer than the column are coded by tables of that length, which takes a tenth of the
# time of hashing them. The tables take 5 bytes an entry, and have at most so many entries more than half the column.
_NARROW = 1 << 16
_ONE_PIECE = 2**31  # bytes of strings that one array holds
# difflib compares with every candidate, about 5 us each; more candidates would make an error take seconds.
_CLOSE_MATCH_CANDIDATES = 20_000


class IdMap:
    """A two-way map between ids (integers or strings) and codes 0, 1, ..., n - 1.

    Parameters
    ----------
    ids : pyarrow.Array
        int64 or string, shape ``[n]``, ascending (strings by code point), without duplicates and nulls.
        `IdMap.of` makes one from any column.

    Raises
    ------
    ConfigError
        If `ids` has another type, is not ascending, or has nulls.

    Examples
    --------
    >>> import pyarrow as pa
    >>> users = IdMap(pa.array([10, 20, 40]))
    >>> users.encode([40, 10])
    array([2, 0], dtype=int32)
    >>> users.decode([1])
    array([20])
    """

    __slots__ = ("_ids", "_sorted")

    def __init__(self, ids: pa.Array) -> None:
        if not (pa.types.is_int64(ids.type) or pa.types.is_string(ids.type)):
            raise ConfigError(
                f"IdMap: expected ids of Arrow type int64 or string, found {ids.type}. "
                "Build the map with IdMap.of(column), which converts."
            )
        if ids.null_count:
            raise ConfigError(f"IdMap: expected no missing ids, found {ids.null_count}. Drop them first.")
        if len(ids) > 1 and not pc.all(pc.less(ids[:-1], ids[1:])).as_py():
            raise ConfigError(
                "IdMap: expected ids in ascending order without duplicates, found another order. "
                "Build the map with IdMap.of(column), which sorts."
            )
        self._ids = ids
        # Read-only view of the Arrow buffer for binary search; only integers have one.
        self._sorted: npt.NDArray[np.int64] | None = numbers(ids) if self.is_integer else None

    @classmethod
    def of(cls, column: Any, name: str = "ids", in_place: bool = False) -> tuple[IdMap, npt.NDArray[np.int32]]:
        """Map of the ids in `column`, and the code of each entry.

        Parameters
        ----------
        column : pyarrow.Array, pyarrow.ChunkedArray, or sequence of integers or strings
            Shape ``[n]``. Not kept.
        name : str
            What errors call it.
        in_place : bool
            The codes may take the memory of an Arrow column, which is not to be used any more then.

        Returns
        -------
        ids : IdMap
            Every distinct id, ascending.
        codes : numpy.ndarray
            int32, shape ``[n]``, C-contiguous: ``ids.decode(codes)`` is `column`.

        Raises
        ------
        ConfigError
            If `column` holds neither integers nor strings, or an id is missing.
        """
        chunks = _as_ids(column, name)
        if chunks.null_count:
            raise _missing(chunks, name)
        if len(chunks) == 0:
            return cls(chunks.combine_chunks().cast(_wide(chunks.type))), np.empty(0, np.int32)
        if pa.types.is_integer(chunks.type):
            lowest, highest = (value.as_py() for value in pc.min_max(chunks).values())
            if highest - lowest < len(chunks) // 2 + _NARROW:
                return cls._of_range(chunks, lowest, highest + 1, in_place)
        if chunks.num_chunks > 1 and chunks.nbytes < _ONE_PIECE:
            # A dictionary for each of many chunks takes ten times as long to unify as one takes to make.
            chunks = pa.chunked_array([chunks.combine_chunks()])
        encoded = chunks.dictionary_encode().unify_dictionaries()
        seen = encoded.chunk(0).dictionary  # distinct ids in order of first appearance
        order = pc.array_sort_indices(seen)
        code_of_seen = np.empty(len(seen), np.int32)
        code_of_seen[numbers(order)] = np.arange(len(seen), dtype=np.int32)
        codes = np.empty(len(encoded), np.int32)
        start = 0
        for chunk in encoded.chunks:
            np.take(code_of_seen, numbers(chunk.indices), out=codes[start : start + len(chunk)])
            start += len(chunk)
        return cls(seen.take(order).cast(_wide(seen.type))), codes

    @classmethod
    def _of_range(
        cls, chunks: pa.ChunkedArray, start: int, end: int, in_place: bool
    ) -> tuple[IdMap, npt.NDArray[np.int32]]:
        """Map integers from `start` to `end` - 1, hardly fewer than which there are: without hashing."""
        is_there = np.zeros(end - start, bool)
        codes = own_memory(chunks) if in_place else None
        if codes is None:
            codes = np.empty(len(chunks), np.int32)

        def mark(task: tuple[slice, npt.NDArray[Any]]) -> None:
            part, found = task
            np.subtract(found, start, out=codes[part], casting="unsafe")
            is_there[codes[part]] = True

        def encode(part: slice) -> None:
            np.take(code_of, codes[part], out=codes[part], mode="clip")  # others would have it copied: none is outside

        on_all_cores(mark, in_parts(chunks))
        code_of = np.cumsum(is_there, dtype=np.int32)
        code_of -= 1
        on_all_cores(encode, cached_parts(codes.size))
        return cls(over(np.flatnonzero(is_there) + np.int64(start))), codes

    @property
    def ids(self) -> pa.Array:
        """int64 or string array, shape ``[n]``: the id of each code."""
        return self._ids

    @property
    def is_integer(self) -> bool:
        """Whether the ids are integers; otherwise they are strings."""
        return bool(pa.types.is_int64(self._ids.type))

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and bool(self._ids.equals(other._ids))

    def __hash__(self) -> int:
        return hash((len(self._ids), self._ids.type))

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {self._ids.type} ids)"

    def __reduce__(self) -> tuple[type[IdMap], tuple[pa.Array]]:
        return IdMap, (self._ids,)

    def find(self, ids: Any) -> npt.NDArray[np.int32]:
        """Return the codes of `ids`, with -1 for those that are not in the map.

        An integer and its decimal digits are the same id: ``7`` finds ``"7"`` and the other way round, so
        that ids from a command line work for both kinds of map.

        Parameters
        ----------
        ids : integer, string, or a sequence, NumPy array or Arrow array of them
            Shape ``[n]``; one id counts as a sequence of one.

        Returns
        -------
        numpy.ndarray
            int32, shape ``[n]``.

        Raises
        ------
        ConfigError
            If `ids` are neither integers nor strings.
        """
        wanted = _as_ids(ids)
        if self._sorted is None:
            texts = wanted.cast(pa.string())
            return flat(pc.fill_null(pc.index_in(texts, self._ids), -1), np.int32)
        if pa.types.is_string(wanted.type):
            wanted = pa.chunked_array([pa.array(map(_integer_or_none, wanted.to_pylist()), pa.int64())])
        known = flat(pc.is_valid(wanted).cast(pa.uint8()), bool)
        found = flat(pc.fill_null(wanted, 0), np.int64)
        if len(self) == 0:
            return np.full(found.size, -1, np.int32)
        places = np.minimum(np.searchsorted(self._sorted, found), len(self) - 1)
        return np.where(known & (self._sorted[places] == found), places, -1).astype(np.int32)

    def encode(self, ids: Any) -> npt.NDArray[np.int32]:
        """Return the codes of `ids`, all of which must be in the map.

        Parameters
        ----------
        ids : integer, string, or a sequence, NumPy array or Arrow array of them
            As for `find`.

        Returns
        -------
        numpy.ndarray
            int32, shape ``[n]``.

        Raises
        ------
        ConfigError
            If an id is not in the map; the message names it and similar ids that are.
        """
        codes = self.find(ids)
        if codes.size and codes.min() < 0:
            column = _as_ids(ids)
            unknown = [column[int(row)].as_py() for row in np.flatnonzero(codes < 0)[:_NAMED_IDS]]
            raise ConfigError(self._unknown_message(unknown, int((codes < 0).sum())))
        return codes

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the ids of `codes`.

        Parameters
        ----------
        codes : array_like
            Integers in ``[0, len(self))``, shape ``[n]``; one code counts as a sequence of one.

        Returns
        -------
        numpy.ndarray
            Shape ``[n]``: int64, or object (each a `str`) for a map of strings.

        Raises
        ------
        ConfigError
            If a code is outside the map.
        """
        wanted = np.atleast_1d(np.asarray(codes, dtype=np.int64))
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            bad = wanted[(wanted < 0) | (wanted >= len(self))][0]
            raise ConfigError(f"IdMap: expected codes from 0 to {len(self) - 1}, found {bad}.")
        if self._sorted is not None:
            return self._sorted[wanted]
        ids: npt.NDArray[Any] = self._ids.take(over(wanted)).to_numpy(zero_copy_only=False)
        return ids

    def _unknown_message(self, unknown: list[Any], count: int) -> str:
        # Digits typed for a map of integers are shown as the integer they mean, without quotes.
        shown = [repr(i) if self._as_number(i) is None else str(i) for i in unknown]
        named = ", ".join(shown) + (", ..." if count > len(unknown) else "")
        message = f"unknown id{'' if count == 1 else f's ({count} of them)'}: {named}. "
        if len(self) == 0:
            return message + "The map is empty."
        first, last = self._ids[0].as_py(), self._ids[-1].as_py()
        close = self._close_to(unknown[0])
        near = f"; close to {shown[0]}: {', '.join(map(repr, close))}" if close else ""
        kind = "integers" if self.is_integer else "strings"
        message += f"The {len(self)} known ids are {kind} from {first!r} to {last!r}{near}. "
        return message + "Use one of these."

    def _as_number(self, identifier: Any) -> int | None:
        """Return the integer that an id means in a map of integers, None if it means none."""
        return _integer_or_none(str(identifier)) if self.is_integer else None

    def _close_to(self, identifier: Any) -> list[Any]:
        """Return up to three known ids that look like `identifier`."""
        if self._sorted is None:
            candidates = self._ids[:_CLOSE_MATCH_CANDIDATES].to_pylist()
            return difflib.get_close_matches(str(identifier), candidates, n=3)
        number = self._as_number(identifier)
        if number is None:
            return []
        start = max(0, min(int(np.searchsorted(self._sorted, number)) - 1, len(self) - 3))
        return list(self._sorted[start : start + 3].tolist())


def _as_ids(values: Any, name: str = "ids") -> pa.ChunkedArray:
    """Convert any column of ids to an int32, int64 or string chunked array; missing ones are null."""
    if isinstance(values, (str, int, np.integer)):
        values = [values]
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        if isinstance(values, np.ndarray):
            values = values.ravel() if values.dtype.kind != "U" else values.ravel().tolist()
        elif isinstance(values, Iterable):
            values = list(values)
        try:
            values = pa.array(values, from_pandas=True)  # NaN is a missing id
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ConfigError(f"{name}: expected integers or strings, found a mixture ({error}).") from None
    chunks = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if pa.types.is_dictionary(chunks.type):
        chunks = chunks.cast(chunks.type.value_type)
    if pa.types.is_int32(chunks.type):
        return chunks  # as files are read: half the memory
    if pa.types.is_integer(chunks.type) or len(chunks) == 0:
        try:
            return chunks.cast(pa.int64())
        except pa.ArrowInvalid as error:  # uint64 beyond int64
            raise ConfigError(f"{name}: expected integers that fit 64 bits with a sign: {error}.") from None
    if is_text(chunks.type):
        return as_type(chunks, pa.string())
    if chunks.null_count and (pa.types.is_floating(chunks.type) or pa.types.is_null(chunks.type)):
        raise _missing(chunks, name)
    raise ConfigError(f"{name}: expected integers or strings, found {type_name(chunks.type)}. Convert them first.")


def _wide(kind: pa.DataType) -> pa.DataType:
    """Return the type of a map's ids for a column of this type."""
    return pa.int64() if pa.types.is_integer(kind) else pa.string()


def _missing(chunks: pa.ChunkedArray, name: str) -> ConfigError:
    count, first = chunks.null_count, pc.index(pc.is_null(chunks), True).as_py()
    return ConfigError(
        f"{name}: expected an id everywhere, found {count:,} missing (None or NaN), the first at index {first}. "
        "Drop these entries."
    )


def as_type(column: pa.ChunkedArray, kind: pa.DataType, safe: bool = True) -> pa.ChunkedArray:
    """Cast a column; by way of Python where old releases of Arrow do not.

    Raises
    ------
    ConfigError
        If this one does not even read it: Polars hands out strings that pyarrow 15 does not know.
    """
    try:
        return column.cast(kind, safe=safe)
    except pa.ArrowNotImplementedError:
        pass
    try:
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])
    except (KeyError, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"pyarrow {pa.__version__} does not read columns of type {column.type}; install a newer one"
        ) from None


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of strings, in whatever layout."""
    return str(kind) in ("string", "large_string", "string_view")


def type_name(kind: pa.DataType) -> str:
    """Return the name of an Arrow type, as NumPy has it for floating point."""
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))


def _integer_or_none(text: str | None) -> int | None:
    """Return the integer whose decimal digits `text` is, in the one way that `str` writes it."""
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if str(number) == text and -(2**63) <= number < 2**63 else None
