"""Cards: what a node says of itself to the others, and the first thing in which two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

OWN = frozenset({"workers", "host", "pid"})  # what nodes may have each for itself
_ALL_ALIKE = "all nodes must run the same script"
_SHOWN = 300  # characters of a value that a message quotes


def first_difference(
    first: int, first_card: Mapping[str, Any], second: int, second_card: Mapping[str, Any]
) -> str | None:
    """Say in what the cards of nodes `first` and `second` differ, with both sides; None if they agree."""
    for key in sorted((first_card.keys() | second_card.keys()) - OWN):
        one, other = first_card.get(key), second_card.get(key)
        if one == other:
            continue
        if key == "tables" and _are_tables(one) and _are_tables(other):
            return f"{_of_tables(first, one, second, other)}; {_ALL_ALIKE}"
        return f"node {first} has {key}={_shown(one)}, node {second} {_shown(other)}; {_ALL_ALIKE}"
    return None


def _are_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(table, dict) and "name" in table for table in value)


def _of_tables(first: int, one: list[dict[str, Any]], second: int, other: list[dict[str, Any]]) -> str:
    mine, theirs = ({str(table["name"]): table for table in tables} for tables in (one, other))
    for name in [*mine, *theirs]:
        if name not in mine:
            return f"node {second} defines table {name!r} as {_definition(theirs[name])}, node {first} has none"
        if name not in theirs:
            return f"node {first} defines table {name!r} as {_definition(mine[name])}, node {second} has none"
        if mine[name] != theirs[name]:
            one_side, other_side = _difference(mine[name], theirs[name])
            return f"node {first} defines table {name!r} as {one_side}, node {second} as {other_side}"
    return f"node {first} defines its tables in the order {list(mine)}, node {second} {list(theirs)}"


def _definition(table: dict[str, Any]) -> str:
    return _cut(" ".join(f"{key}={value}" for key, value in table.items() if key != "name"))


def _difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, str]:
    """Return what differs of both definitions."""
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    mine, theirs = ({key: table[key] for key in differing if key in table} for table in (one, other))
    return _definition(mine), _definition(theirs)


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
