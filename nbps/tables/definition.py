"""What a table is: its name, shape, dtype, access mode and initial values; and which tables make a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.consistency import Consistency, check_staleness
from nbps.errors import ConfigError
from nbps.kernels import claim_layout
from nbps.tables.init import Initializer, check_all_finite, constant, from_array, generator, zeros

DTYPES = ("float32", "float64", "int32", "int64")
ACCESS_MODES = ("direct", "cached", "exclusive")
REPLICATION = ("clock", "read", "run")
_NAME_LIMIT = 128
_SIZE_LIMITS = {"rows": 2**63 - 1, "width": 2**31 - 1}  # the length of Arrow's arrays and of its fixed-size lists


@dataclasses.dataclass(frozen=True, repr=False)
class TableDefinition:
    """What a table is, without its first values: what nodes, checkpoints, workers and agents are told of it.

    Each of these takes the definition as a whole: a field that is added here is known to all of them. `Table` says what
    the fields mean.
    """

    name: str
    rows: int
    width: int
    _: dataclasses.KW_ONLY
    dtype: str = "float32"
    access: Literal["direct", "cached", "exclusive"] = "direct"
    staleness: float | None = None
    check_finite: bool = False
    sharding: Literal["block", "hash"] | Sequence[int] = "block"
    replicate: Literal["clock", "read", "run"] = "clock"
    compress: Literal["float16", "bfloat16"] | float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= _NAME_LIMIT:
            raise ConfigError(f"Table: name is {self.name!r}; expected 1 to {_NAME_LIMIT} characters")
        for field, limit in _SIZE_LIMITS.items():
            object.__setattr__(self, field, whole(f"table {self.name!r}: {field}", getattr(self, field), 1, limit))
        object.__setattr__(self, "dtype", self._checked_dtype())
        if self.access not in ACCESS_MODES:
            expected = ", ".join(ACCESS_MODES)
            raise ConfigError(f"table {self.name!r}: access is {self.access!r}; expected one of {expected}")
        if self.staleness is not None:
            object.__setattr__(self, "staleness", check_staleness(self.staleness, f"table {self.name!r}"))
        if not isinstance(self.check_finite, bool):
            raise ConfigError(f"table {self.name!r}: check_finite is {self.check_finite!r}; expected True or False")
        self._check_nodes()

    def _check_nodes(self) -> None:
        if self.replicate not in REPLICATION:
            expected = ", ".join(REPLICATION)
            raise ConfigError(f"table {self.name!r}: replicate is {self.replicate!r}; expected one of {expected}")
        if self.replicate == "read" and self.access == "cached":
            raise ConfigError(
                f"table {self.name!r}: replicate='read' with access='cached': a private copy holds all rows; expected "
                f"access='direct' or 'exclusive'"
            )
        share = isinstance(self.compress, float) and 0 < self.compress < 1
        if not (self.compress in (None, "float16", "bfloat16") or share):
            raise ConfigError(
                f"table {self.name!r}: compress is {self.compress!r}; expected 'float16', 'bfloat16', a share of "
                f"elements between 0 and 1, or None"
            )
        if self.compress is not None and self.access == "exclusive":
            raise ConfigError(
                f"table {self.name!r}: compress={self.compress!r} with access='exclusive', whose values travel, not "
                f"additions; expected access='direct' or 'cached'"
            )
        if self.compress is not None and not self.dtype.startswith("float"):
            raise ConfigError(
                f"table {self.name!r}: compress={self.compress!r} with dtype {self.dtype}: counts are not rounded; "
                f"expected a float table"
            )
        if isinstance(self.sharding, str) and self.sharding in ("block", "hash"):
            return
        try:
            starts = tuple(whole(f"table {self.name!r}: sharding", n, 0, self.rows) for n in self.sharding)
        except (TypeError, ConfigError):
            starts = (1, 0)
        if isinstance(self.sharding, str) or list(starts) != sorted(starts):
            raise ConfigError(
                f"table {self.name!r}: sharding is {self.sharding!r}; expected 'block', 'hash', or ascending "
                f"first rows of nodes 1, 2, ..., from 0 to {self.rows}"
            )
        object.__setattr__(self, "sharding", starts)

    def _checked_dtype(self) -> str:
        try:
            name = np.dtype(self.dtype).name
        except TypeError:
            name = ""
        if name not in DTYPES:
            raise ConfigError(f"table {self.name!r}: dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        return name

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.rows * self.width * np.dtype(self.dtype).itemsize

    @property
    def is_claimed(self) -> bool:
        """Whether those that add to its shared rows, which are many, claim them (`nbps.kernels.claims`)."""
        return self.access != "exclusive" and claim_layout.has_claims(self.dtype, self.width)

    def staleness_under(self, model: Consistency) -> float:
        """Return this table's staleness, which is that of the job's `model` where it has none of its own."""
        return model.staleness if self.staleness is None else self.staleness

    def plain(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(TableDefinition)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __repr__(self) -> str:
        shown = [repr(self.name)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "name" and field.repr and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True, repr=False)
class Table(TableDefinition):
    """A dense matrix of parameters that all workers of a job share.

    It takes ``rows * width * itemsize`` bytes of shared memory, plus about 1 KiB; with ``access="cached"`` each worker
    that uses it holds a copy and its base besides, in memory of its own. Claims take 4 to 8 bytes for each row of the
    longest ``direct`` or ``cached`` table of a job, of those of width 2 or more, once for all of them: at least 64 KiB,
    and beyond a million rows 1 to 4 bytes a row. Each worker has a buffer besides, of 64 rows or as many as the table
    has if these are fewer, where a row that another worker has claimed is put aside. With several nodes each holds the
    whole table, and an agent there a base of the rows of others and 34 bytes a row.

    Parameters
    ----------
    name : str
        Unique within the job.
    rows, width : int
        Shape. The row is the unit of reading and adding.
    dtype : {"float32", "float64", "int32", "int64"}
        Element type.
    access : {"direct", "cached", "exclusive"}
        - ``direct``: reads and additions go to the shared rows; additions are lossless and seen at once, or
          a moment later where another worker is adding to the same row; at a clock or barrier at the latest.
        - ``cached``: each worker has a private copy at SIMD speed; ``clock()`` sends its additions and refreshes it.
        - ``exclusive``: reads, additions and writes go to the shared rows at SIMD speed; you promise that no row has
          two writers in one clock.
    init : initializer, number or array_like
        Initial values (`nbps.init`); a number goes to every element, an array is copied.
    staleness : int, optional
        Staleness of this table; the job's by default.
    check_finite : bool
        Refuse initial values and deltas with NaN or infinity. Without it they count as numbers like others.
    sharding : {"block", "hash"} or sequence of int
        Which node of several owns which row: additions of all nodes meet at the owner. ``block``: consecutive rows, as
        many for every node; ``hash``: rows spread evenly, where neighbours or low numbers are used more than others;
        a sequence gives the first row of node 1, of node 2, and so on.
    replicate : {"clock", "read", "run"}
        What other nodes learn of changes during a run; at its end all nodes have all. ``clock``: everything, as the
        consistency model says. ``read``: the rows that their workers `get` or `fetch`, which come when they are first
        asked for and are let go of when nobody asks any more; for tables of which a node reads a part. ``run``:
        nothing; for rows that nobody reads or adds to but workers of the node that owns them.
    compress : {"float16", "bfloat16"} or float, optional
        How additions of float tables travel to other nodes: rounded to 16 bits, or of each row only this share of
        elements, the largest, more than 0 and less than 1. What is left goes with the row's next addition, and all of
        it at the end of a run and at checkpoints; until then other nodes miss it, whatever the consistency model.
        Values that come back are never rounded.

    Notes
    -----
    *Consistency.* A read at clock c sees every update of every worker from clocks < c - s and all of the reader's own.
    Elements never tear. Rows of a ``cached`` table change only where the worker's clock advances, on a ``get`` that
    asks for a fresher state, and under `VAP` wherever the worker waits; a row of a live table may be seen while another
    worker is in the middle of adding to it.

    *Overflow.* Initial values that do not fit the dtype are refused, and deltas that do not fit integers: 0.5 and 2**40
    for ``int32``. A delta that is too large for ``float32``, as 1e300, is infinite there, which `check_finite` refuses.
    Sums are those of the dtype, and nobody checks them: integers wrap around, floats become infinite.
    """

    init: Initializer | npt.ArrayLike = dataclasses.field(default_factory=zeros, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.init, str):
            raise ConfigError(
                f"table {self.name!r}: init is {self.init!r}; expected an initialiser of nbps.init or numbers"
            )
        if not callable(self.init):
            shape = np.shape(self.init)
            if shape not in ((), (self.rows, self.width)):
                raise ConfigError(
                    f"table {self.name!r}: init has shape {shape}; expected {(self.rows, self.width)}, rows and width, "
                    f"or a number"
                )
            fill = constant(float(self.init)) if shape == () else from_array(self.init)  # type: ignore[arg-type]
            object.__setattr__(self, "init", fill)

    def fill(self, values: npt.NDArray[Any], seed: int) -> None:
        """Write the first values of this table in a job with that seed, shape (rows, width).

        Raises
        ------
        ConfigError
            If one is not finite although `check_finite` is on; and whatever the initialiser raises.
        """
        assert callable(self.init)
        try:
            self.init(values, generator(seed, self.name))
            if self.check_finite:
                check_all_finite(values)
        except Exception as error:
            error.add_note(f"while initialising table {self.name!r}")
            raise

    @property
    def definition(self) -> TableDefinition:
        """The table without its first values."""
        return TableDefinition(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(TableDefinition)}
        )


def checked_tables(tables: Sequence[Table]) -> tuple[Table, ...]:
    """Return the tables of a job.

    Raises
    ------
    ConfigError
        If something is not a table, or two have one name.
    """
    found: Any = tables if isinstance(tables, Iterable) else [tables]
    checked = tuple(found)
    for table in checked:
        if not isinstance(table, Table) or found is not tables:
            raise ConfigError(f"Job: expected a sequence of nbps.Table, found {table!r}")
    names = [table.name for table in checked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Job: two tables are called {twice[0]!r}; names must differ")
    return checked
