"""The house: imports go only up the list of layers, cheap imports stay cheap, everything public says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbps

# The layers from the lowest up: a module imports its own layer and those below it. The longest name that fits a module
# is its layer; those in one line stand beside each other, and know nothing of each other.
ORDER = [
    ["nbps.errors"],
    ["nbps.checks", "nbps.buffers", "nbps.cgroup", "nbps.kernels"],
    ["nbps.core"],
    ["nbps.consistency", "nbps.memory"],
    ["nbps.transport", "nbps.runtime"],
    ["nbps.tables"],
    ["nbps.checkpoint"],
    ["nbps.agent", "nbps.nodes"],
    ["nbps.job"],
    ["nbps"],
    ["nbps.testing", "nbps.data"],
    ["nbps.sim", "nbps.models"],
    ["nbps.cli"],
    ["nbps.__main__"],
]
LAYERS = {name: set().union(*ORDER[:height]) for height, names in enumerate(ORDER) for name in names}
# The protocol, kernels and data need nothing of what lies below them but this.
LAYERS["nbps.core"] = {"nbps.errors"}
LAYERS["nbps.data"] = {"nbps.errors", "nbps.checks", "nbps.buffers", "nbps.cgroup"}


def layer(module: str) -> str:
    return max((name for name in LAYERS if module == name or module.startswith(name + ".")), key=len)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package and its file; kernels and transport lie elsewhere in a checkout."""
    for name in ("nbps", "nbps.kernels", "nbps.transport"):
        top = Path(next(iter(importlib.import_module(name).__path__)))
        for path in sorted(top.rglob("*.py")):
            inside = path.relative_to(top).with_suffix("").parts
            yield ".".join([name, *inside]).removesuffix(".__init__"), path


MODULES = dict(modules())
ROOT = Path(__file__).parents[1]
FILE_LINES, FUNCTION_LINES = 400, 70
REASON = "# Long because "  # begins the comment above a function that has a reason to pass the limit


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of nbps in a module, wherever it stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from nbps import x` may import a module or a name of the package.
            found = [full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names]
        else:
            continue
        yield from ((node.lineno, target) for target in found if target.split(".")[0] == "nbps")


def test_all_modules_are_looked_at():
    """The rule is checked on the whole package, kernels included."""
    assert {
        "nbps",
        "nbps.job.job",
        "nbps.kernels.atomics",
        "nbps.memory.segments",
        "nbps.cli",
        "nbps.models",
    } <= MODULES.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_only_up_the_layers(name):
    """A module imports its own layer and those below it."""
    mine = layer(name)
    wrong = [
        f"{MODULES[name]}:{line} imports {target}"
        for line, target in imported(name, MODULES[name])
        if layer(target) != mine and layer(target) not in LAYERS[mine]
    ]
    assert wrong == []


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """Modules that import each other, directly or through others."""

    def above(name: str) -> set[str]:
        seen: set[str] = set()
        left = [name]
        while left:
            new = imports[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reached = {name: above(name) for name in imports}
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in imports
        if name in reached[name]
    }


def test_no_modules_import_each_other():
    """Not even for types only, or inside a function: each file can be understood after those that it imports."""
    imports = {
        name: {target for _, target in imported(name, path) if target in MODULES and target != name}
        for name, path in MODULES.items()
    }
    assert circles(imports) == set()


def test_the_rule_notices_a_circle():
    """Found over several files, and not where two import the same one."""
    imports = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": set(), "e": {"a", "d"}}
    assert circles(imports) == {frozenset("abc")}


def test_the_rule_notices_a_wrong_import(tmp_path):
    """A kernel that imports the job, in any spelling, is found."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import nbps.job\nfrom nbps import job\nfrom .. import job\nfrom . import rows\nfrom ..table import Table\n"
    )
    found = [target for _, target in imported("nbps.kernels.wrong", wrong)]
    assert found == ["nbps.job", "nbps.job", "nbps.job", "nbps.kernels.rows", "nbps.table"]
    assert [layer(target) for target in found] == ["nbps.job", "nbps.job", "nbps.job", "nbps.kernels", "nbps"]


@pytest.mark.parametrize(
    "statement",
    [
        "import nbps",
        "import nbps.kernels",
        "import nbps.job.remote, nbps.runtime.group",
        "import nbps; nbps.Nodes(2, 0, '127.0.0.1:5'), nbps.Nodes(2, 0, 'name', 'shm')",
    ],
)
def test_light_imports_leave_numba_and_arrow_alone(statement):
    """Who defines a job pays for neither; the workers do, and whoever makes tables."""
    heavy = "sorted({'numba', 'llvmlite', 'pyarrow', 'typer', 'rich', 'importlib.metadata'} & set(sys.modules))"
    script = f"import sys; {statement}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_is_imported_when_it_is_used():
    """A command prints its help without the job; in an installed nbps not even NumPy is imported for that."""
    heavy = "print(sorted({'numba', 'pyarrow', 'nbps.job.job'} & set(sys.modules)))"
    script = f"import sys; import nbps.cli; {heavy}; nbps.Job; {heavy}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['nbps.job.job']\n"


_JOB_WITH_CHECKPOINT = """
import sys, tempfile, nbps
def work(worker):
    worker.table("t").inc(0, 1.0)
    worker.clock()
with tempfile.TemporaryDirectory() as folder:
    checkpoints = nbps.Checkpoints(folder, every=1)
    with nbps.Job([nbps.Table("t", 2, 3)], workers=1, checkpoints=checkpoints) as job:
        job.run(work)
    with nbps.Job.resume(folder) as job:
        job.table("t").to_arrow()
print(sorted({'numba', 'llvmlite', 'pandas', 'scipy'} & set(sys.modules)))
"""


def test_a_driver_loads_neither_numba_nor_pandas():
    """The first is its workers' business, the second nobody's; each takes longer to load than a job to start."""
    pytest.importorskip("pandas")
    done = subprocess.run([sys.executable, "-c", _JOB_WITH_CHECKPOINT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


_FIT = """
import sys
from nbps.cli import app
def run(*words):
    try:
        app(["train", "mf", "--epochs", "1", "--rank", "4", "--workers", "1", "-q", *words])
    except SystemExit as end:
        assert not end.code
run("--out", sys.argv[1] + "/model")
with open(sys.argv[1] + "/x.csv", "w") as file:
    file.write("user,item,rating\\n" + "".join(f"{u},{i},{(u + i) % 5 + 1}\\n" for u in range(30) for i in range(9)))
run("--data", sys.argv[1] + "/x.csv", "--profile")
print(sorted({'numba', 'llvmlite', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)))
"""


def test_training_a_model_loads_neither_numba_nor_pandas(tmp_path):
    """Nor what these load: the driver reads, deals out and saves; sorting and training are its workers'."""
    pytest.importorskip("pandas")
    done = subprocess.run(
        [sys.executable, "-c", _FIT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout == "[]\n"


def test_every_public_name_exists_and_is_listed_once():
    """``nbps.__all__`` and what it promises agree, lazy names included; unknown names are an AttributeError."""
    assert len(set(nbps.__all__)) == len(nbps.__all__)
    for package in (nbps, importlib.import_module("nbps.kernels")):
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018


def documented(name: str, thing: object) -> Iterator[str]:
    """Names of public functions, classes and methods of `thing` that have no docstring."""
    if not inspect.getdoc(thing):
        yield name
    if inspect.isclass(thing):
        for attribute, value in vars(thing).items():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if not attribute.startswith("_") and inspect.isfunction(value) and not inspect.getdoc(value):
                yield f"{name}.{attribute}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_everything_public_has_a_docstring(name):
    """Every module, and every function and class that it defines, says what it is."""
    module = importlib.import_module(name)
    missing = [] if (module.__doc__ or not Path(module.__file__).read_text()) else [name]
    for attribute, value in vars(module).items():
        value = getattr(value, "py_func", value)
        own = getattr(value, "__module__", None) == name and (inspect.isfunction(value) or inspect.isclass(value))
        if own and not attribute.startswith("_") and value.__name__ == attribute:
            missing += documented(f"{name}.{attribute}", value)
    assert missing == []


def too_long(path: Path) -> Iterator[str]:
    """Say whether the file passes its limit, and which functions pass theirs without a reason in a comment above."""
    text = path.read_text()
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        yield f"{path} has {len(lines)} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min(line.lineno for line in (node, *node.decorator_list))
            count = node.end_lineno - node.lineno + 1
            if count > FUNCTION_LINES and not lines[first - 2].strip().startswith(REASON):
                yield f"{path}:{node.lineno} {node.name} has {count} lines"


def test_files_and_functions_stay_small():
    """A file has one subject, a function one task."""
    files = dict(MODULES)
    for folder in ("tests", "bench", "examples"):
        files |= {str(path.relative_to(ROOT)): path for path in (ROOT / folder).rglob("*.py")}
    assert len(files) > len(MODULES) + 100
    found = [words for path in files.values() for words in too_long(path)]
    assert found == []


def test_the_rule_notices_what_is_too_long(tmp_path):
    """A file, and a function without a reason; with one it may be long."""
    long = tmp_path / "long.py"
    body = "def f():\n" + "    pass\n" * 70
    long.write_text(f"{body}\n# Long because it is a test.\n@abs\n{body}" + "\n" * 300)
    assert [found.partition("long.py")[2] for found in too_long(long)] == [" has 445 lines", ":1 f has 71 lines"]
