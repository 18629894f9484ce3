"""Shared rows as kernels see them, claimed or not."""

from __future__ import annotations

import numpy as np

from nbps.kernels import rows
from nbps.kernels.claim_layout import CAPACITY, claims_bytes
from nbps.kernels.claims import Aside

_kept: list[Aside] = []  # kernels hold addresses only: what they point to lives as long as the process


def new_claims(values):
    """Return the claims of a table, all free."""
    return np.zeros(claims_bytes(values.shape[0]), np.uint8)


def shared_rows(values, is_claimed, dirty=rows.NOBODY_LOOKS, claims=None):
    """Return a table of rows that others add to as well."""
    if not is_claimed:
        return rows.TableKernel(values, 1, dirty)
    _kept.append(Aside(values, new_claims(values) if claims is None else claims, dirty, 0, CAPACITY))
    return rows.claimed_table(values, dirty, _kept[-1])
