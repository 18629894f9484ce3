"""The shared rows of a table as one process of a node adds to them: a worker, or the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.kernels import rows
from nbps.kernels.claim_layout import capacity
from nbps.kernels.claims import Aside

Bytes = npt.NDArray[np.uint8]


class SharedRows:
    """Rows that several processes of a node add to, in the way that all of them do.

    Parameters
    ----------
    values : ndarray, shape (rows, width)
    marks : uint8[rows] or uint8[0]
        Where changed rows are marked.
    claims : ndarray of uint8, or None
        Of the job; None where rows have none, as they are changed by atomic operations or have one writer.
    is_atomic : bool
        Whether they have many writers.
    source : int
        Number of this process among those of the node that add.
    sources : int or None
        How many they are; None for one that puts nothing aside, as an agent.

    Attributes
    ----------
    kernel : nbps.kernels.TableKernel
        Valid as long as this object lives.
    aside : nbps.kernels.claims.Aside or None
        What was put aside; None where nothing is ever.
    """

    def __init__(
        self,
        values: npt.NDArray[Any],
        marks: Bytes,
        claims: Bytes | None,
        is_atomic: bool,
        source: int,
        sources: int | None,
    ) -> None:
        self.values = values
        self.aside: Aside | None = None
        if claims is None:
            self.kernel = rows.TableKernel(values, int(is_atomic), marks)
        else:
            entries = 1 if sources is None else capacity(sources, values.shape[0])
            self.aside = Aside(values, claims, marks, source, entries)
            self.kernel = rows.claimed_table(values, marks, self.aside)
