"""The house rules, read from the source: who may import whom, and what pure code may not touch.

The rules are the tables on top; the functions below them only read the syntax tree. Every rule has
a line in `CAUGHT`, a piece of code it must refuse, so that a rule that stopped looking is noticed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlchain"

ROWS = (  # a package imports from rows below its own, never sideways, never up
    {"__main__"},
    {"cli"},
    {"web", "sim", "sklearn"},
    {"node", "client"},
    {"vm"},
    {"consensus"},
    {"ledger", "ml_runtime", "p2p"},
    {"crypto", "codec"},
    {"errors"},
)

PURE = ("ledger", "ml_runtime", "consensus", "vm")
IMPURE_MODULES = {
    "asyncio",
    "datetime",
    "logging",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "trio",
    "uuid",
}
"""Clocks, randomness, the machine and its neighbours: two nodes would see different ones."""

FLOATLESS = ("ledger", "consensus", "vm")
FLOAT_MODULES = {"numpy", "math", "cmath", "statistics"}
INTEGER_MATH = {f"math.{name}" for name in ("comb", "factorial", "gcd", "isqrt", "lcm", "prod")}

HOMES = {  # a library that only these files may name, so that it can be exchanged there
    "plyvel": ("ledger/kv.py", "cli/doctor.py"),  # the doctor looks whether it loads
    "libp2p": ("p2p/libp2p*.py", "cli/doctor.py"),
    "multiaddr": ("p2p/libp2p*.py",),
    "trio": ("p2p/*", "node/*", "web/*", "sim/work/*"),
    "nacl": ("crypto.py", "client/keystore.py"),
    "dask": ("node/executor_dask.py",),
    "distributed": ("node/executor_dask.py",),
    "bech32": ("crypto.py",),
    "numba": ("ml_runtime/backend_numba.py",),
    "onnx": ("ml_runtime/importers/onnx/file.py",),
    "torch": ("ml_runtime/backend_torch*.py",),
    "anyio": ("client/asynchronous.py",),
    "sklearn": ("client/estimators/*", "client/sources.py"),
    "matplotlib": ("client/estimators/draw.py",),
    "fastapi": ("web/*",),
    "hypercorn": ("web/*", "node/*"),
}

MAX_LINES = 450


class Source(NamedTuple):
    """One file: its path inside the package, and its syntax tree."""

    name: str
    tree: ast.Module

    @property
    def part(self) -> str:
        return self.name.split("/")[0].removesuffix(".py")


@cache
def sources() -> list[Source]:
    return [
        Source(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text()))
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported, at the top or inside a function."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


# The rules: each yields (line, complaint)


def arrows_point_down(source: Source) -> Iterator[tuple[int, str]]:
    rank = {name: row for row, names in enumerate(ROWS) for name in names}
    if source.name != "__init__.py" and source.part not in rank:
        yield 1, f"{source.part} stands in no row"
        return
    for line, name in imports(source):
        if name.startswith("."):
            yield line, f"imports {name}: write the whole name"
        parts = name.split(".")
        if parts[0] != "mlchain" or len(parts) < 2 or parts[1] == source.part:
            continue
        if parts[1] in rank and (source.part not in rank or rank[parts[1]] <= rank[source.part]):
            yield line, f"{source.part} imports {name}, which is not in a row below"


def libraries_stay_home(source: Source) -> Iterator[tuple[int, str]]:
    for line, name in imports(source):
        homes = HOMES.get(name.split(".")[0])
        if homes and not any(fnmatch(source.name, home) for home in homes):
            yield line, f"imports {name}, which lives in {' and '.join(homes)}"


def pure_code_touches_no_world(source: Source) -> Iterator[tuple[int, str]]:
    if source.part not in PURE:
        return
    for line, name in imports(source):
        if name.split(".")[0] in IMPURE_MODULES:
            yield line, f"imports {name}; {source.part} is a function of its inputs"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("open", "input", "print"):
                yield node.lineno, f"{node.func.id}() reaches the world"
            if node.func.id == "id":
                yield node.lineno, "id() differs from run to run"


def hashes_are_ours(source: Source) -> Iterator[tuple[int, str]]:
    """`hash()` of text and bytes is salted per process; only `__hash__` may use it."""
    if source.part not in PURE:
        return
    allowed = {
        id(call)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__hash__"
        for call in ast.walk(node)
    }
    for node in ast.walk(source.tree):
        called = node.func if isinstance(node, ast.Call) and id(node) not in allowed else None
        if isinstance(called, ast.Name) and called.id == "hash":
            yield node.lineno, "hash() is salted per process"


def no_floats(source: Source) -> Iterator[tuple[int, str]]:
    if source.part not in FLOATLESS:
        return
    for line, name in imports(source):
        if name.split(".")[0] in FLOAT_MODULES and name not in INTEGER_MATH:
            yield line, f"imports {name}; floats live in ml_runtime"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield node.lineno, f"the float {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "true division makes a float; // does not"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield node.lineno, "float"


ORDER_FREE = {"sorted", "any", "all", "sum", "min", "max", "len", "set", "frozenset"}


def no_set_order(source: Source) -> Iterator[tuple[int, str]]:
    """Iteration over what is seen to be a set, unless it feeds something that forgets the order."""
    if source.part not in PURE:
        return
    named = {key for node in ast.walk(source.tree) if (key := set_name(node))}

    def is_set(node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return node.func.id in ("set", "frozenset")
        return ast.unparse(node) in named

    harmless = {
        id(argument)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ORDER_FREE
        for argument in node.args
    }
    for node in ast.walk(source.tree):
        over: list[ast.expr] = []
        if isinstance(node, ast.For):
            over = [node.iter]
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            over = [] if id(node) in harmless else [g.iter for g in node.generators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            over = node.args[:1] if node.func.id in ("list", "tuple", "iter") else []
        yield from ((each.lineno, "the order of a set") for each in over if is_set(each))


def set_name(node: ast.AST) -> str | None:
    """Return the name or attribute this statement makes a set."""
    if isinstance(node, ast.AnnAssign):
        kind = ast.unparse(node.annotation)
        return ast.unparse(node.target) if kind.startswith(("set[", "frozenset[")) else None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        value = node.value
        made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
        if isinstance(value, ast.Set | ast.SetComp) or (
            made and value.func.id in ("set", "frozenset")
        ):
            return ast.unparse(node.targets[0])
    return None


def public_things_are_described(source: Source) -> Iterator[tuple[int, str]]:
    """A method may leave its description to the class it overrides."""
    if not ast.get_docstring(source.tree):
        yield 1, "the file does not say what it is"

    def visit(body: list[ast.stmt], owner: str | None) -> Iterator[tuple[int, str]]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_"):
                continue
            if not ast.get_docstring(node) and not (owner and is_inherited(owner, node.name)):
                yield node.lineno, f"{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, node.name)

    yield from visit(source.tree.body, None)


def is_inherited(owner: str, method: str) -> bool:
    """Tell whether a base of the class, anywhere in the package, describes this method."""
    bases = class_table().get(owner, ({}, ()))[1]
    return any(
        method in class_table().get(base, ({}, ()))[0] or is_inherited(base, method)
        for base in bases
        if base != owner
    )


@cache
def class_table() -> dict[str, tuple[dict[str, None], tuple[str, ...]]]:
    """Return the described methods and the bases of every class, by its name."""
    table: dict[str, tuple[dict[str, None], tuple[str, ...]]] = {}
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                functions = [n for n in node.body if isinstance(n, ast.FunctionDef)]
                described = {n.name: None for n in functions if ast.get_docstring(n)}
                bases = tuple(ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases)
                known = table.get(node.name, ({}, ()))  # two files may use one name
                table[node.name] = (known[0] | described, known[1] + bases)
    return table


RULES = (
    arrows_point_down,
    libraries_stay_home,
    pure_code_touches_no_world,
    hashes_are_ours,
    no_floats,
    no_set_order,
    public_things_are_described,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    complaints = [
        f"mlchain/{source.name}:{line}: {what}"
        for source in sources()
        for line, what in rule(source)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("folder", ["mlchain", "tests", "benchmarks", "examples", "scripts"])
def test_no_file_is_too_long_to_read_at_once(folder):
    long = [
        f"{path.relative_to(ROOT)}: {count} lines, at most {MAX_LINES}; one file is one idea"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    ]
    assert not long, "\n" + "\n".join(long)


CAUGHT = [
    (arrows_point_down, "ledger/x.py", "from mlchain.vm.execute import execute"),
    (arrows_point_down, "ledger/x.py", "from mlchain import vm"),
    (arrows_point_down, "ledger/x.py", "import mlchain.p2p.transport"),
    (arrows_point_down, "node/x.py", "def f():\n    from mlchain.client import client"),
    (arrows_point_down, "ledger/x.py", "from . import kv"),
    (arrows_point_down, "attic/x.py", "pass"),
    (arrows_point_down, "codec.py", "from mlchain import crypto"),
    (libraries_stay_home, "node/x.py", "import plyvel"),
    (libraries_stay_home, "p2p/x.py", "from libp2p.peer import id"),
    (libraries_stay_home, "cli/x.py", "import trio.to_thread"),
    (pure_code_touches_no_world, "vm/x.py", "from time import monotonic"),
    (pure_code_touches_no_world, "consensus/work/x.py", "import random"),
    (pure_code_touches_no_world, "ledger/x.py", "open('f')"),
    (hashes_are_ours, "vm/x.py", "hash(b'x') % 7"),
    (no_floats, "vm/x.py", "fee = 0.5"),
    (no_floats, "vm/x.py", "fee = gas / 2"),
    (no_floats, "vm/x.py", "fee = float(gas)"),
    (no_floats, "consensus/x.py", "import numpy as np"),
    (no_set_order, "vm/x.py", "for key in {1, 2}: pass"),
    (no_set_order, "vm/x.py", "seen: set[int] = set()\nfor key in seen: pass"),
    (no_set_order, "vm/x.py", "self.seen = set()\nrows = [k for k in self.seen]"),
    (no_set_order, "vm/x.py", "rows = list(set(keys))"),
    (
        public_things_are_described,
        "vm/x.py",
        '"""x"""\nclass A:\n    """a"""\n    def f(self): pass',
    ),
    (public_things_are_described, "vm/x.py", "x = 1"),
]


@pytest.mark.parametrize("rule, name, code", CAUGHT)
def test_the_rule_sees_its_violation(rule, name, code):
    assert list(rule(Source(name, ast.parse(code))))


LET_THROUGH = [
    (arrows_point_down, "vm/x.py", "from mlchain.ledger.state import State"),
    (arrows_point_down, "ledger/x.py", "from mlchain.ledger.kv import KeyValue"),
    (libraries_stay_home, "p2p/libp2p_host.py", "import libp2p"),
    (pure_code_touches_no_world, "node/x.py", "import time"),
    (hashes_are_ours, "vm/x.py", "class A:\n    def __hash__(self): return hash(self.k)"),
    (no_floats, "ml_runtime/x.py", "half = 1 / 2.0"),
    (no_set_order, "vm/x.py", "rows = sorted(k for k in {1, 2})"),
]


@pytest.mark.parametrize("rule, name, code", LET_THROUGH)
def test_the_rule_lets_good_code_through(rule, name, code):
    assert not list(rule(Source(name, ast.parse(code))))


def test_no_two_test_modules_share_a_name():
    """They are imported by their bare names: the second would be taken for the first."""
    names = [path.name for path in ROOT.glob("tests/**/*.py") if path.name != "conftest.py"]
    names = [name for name in names if not name.startswith("__")]
    assert sorted(set(names)) == sorted(names)
