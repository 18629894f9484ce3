"""Mutants of compiled rules: the same modules in plain Python, with one thing in them changed."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nbps.kernels.turns import loop, rules

_SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip


def _source(module: Any) -> ast.Module:
    """Return a module as plain Python: what decorates its functions compiles them."""
    tree = ast.parse(Path(module.__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    return tree


def _changes(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    """Yield what can be changed in a function: in words, and what changes it, in a copy of the same tree."""
    for n, node in enumerate(ast.walk(function)):
        if isinstance(node, ast.Compare):
            for k, operator in enumerate(node.ops):
                if type(operator) in _SWAPPED:
                    yield f"{ast.unparse(node)}, swapped {k}", (n, lambda x, k=k: _swap(x.ops, k))
        elif isinstance(node, (ast.BoolOp, ast.BinOp, ast.AugAssign)) and type(node.op) in _SWAPPED:
            yield f"{ast.unparse(node)}, swapped", (n, lambda x: setattr(x, "op", _SWAPPED[type(x.op)]()))
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield (
                f"{node.value} at {node.lineno}:{node.col_offset} + 1",
                (n, lambda x: setattr(x, "value", x.value + 1)),
            )
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield f"{node.value} at {node.lineno}, not", (n, lambda x: setattr(x, "value", not x.value))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield f"{ast.unparse(node)}, without", (n, lambda x: setattr(x, "op", ast.UAdd()))
        for field in ("body", "orelse"):
            block = getattr(node, field, None)
            for k, statement in enumerate(block if isinstance(block, list) else ()):
                if isinstance(statement, (ast.Assign, ast.AugAssign)) or _is_call(statement):
                    text = f"{ast.unparse(statement)}, left out"
                    yield text, (n, lambda x, field=field, k=k: getattr(x, field).__setitem__(k, ast.Pass()))


def _is_call(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def _swap(operators: list[Any], k: int) -> None:
    operators[k] = _SWAPPED[type(operators[k])]()


def _run(tree: ast.Module, module: Any, **given: Any) -> dict[str, Any]:
    """Carry a module out in plain Python, with some of its names given."""
    names = {"__name__": module.__name__, "__package__": module.__package__, "__file__": module.__file__}
    exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), names)
    names.update(given)
    return names


def plain(own_rules: ast.Module | None = None, own_loop: ast.Module | None = None) -> SimpleNamespace:
    """Return `take_news` and `take_frames` of compiled turns in plain Python, with these rules and this loop."""
    ours = _run(own_rules or _source(rules), rules)
    names = _run(own_loop or _source(loop), loop, **{name: ours[name] for name in ("commit", "need", "take_frame")})
    return SimpleNamespace(take_news=names["take_news"], take_frames=names["take_frames"])


def mutants() -> Iterator[tuple[str, SimpleNamespace]]:
    """Yield all mutants, and what was changed in each."""
    for module, chosen in ((rules, None), (loop, {"take_news", "take_frames"})):
        tree = _source(module)
        for place, function in enumerate(tree.body):
            if isinstance(function, ast.FunctionDef) and (chosen is None or function.name in chosen):
                for text, (n, change) in list(_changes(function)):
                    changed = copy.deepcopy(tree)
                    change(list(ast.walk(changed.body[place]))[n])
                    made = plain(own_rules=changed) if module is rules else plain(own_loop=changed)
                    yield f"{function.name}: {text}", made
