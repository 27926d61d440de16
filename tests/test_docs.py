"""The pages for people name only what there is: commands, options, files, tests, constants.

The rules are functions from a page's text to complaints. Each has a line in `CAUGHT`, a text it
must refuse, so that a rule that stopped looking is noticed.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from doc_tables import KEY_MEANINGS, TABLES, refresh

from mlchain.client.checks import CHECKS
from mlchain.client.jobfile import FIELDS, parse_job_file
from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.ledger.genesis import Params
from mlchain.vm.receipt import miss_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


class Page(NamedTuple):
    """One page: where it is, and its text."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def words(self) -> list[str]:
        """What stands in backticks in running text."""
        return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _FENCE.sub("", self.text))

    @property
    def code(self) -> list[str]:
        """The lines of fenced blocks that are no language's source."""
        return [line for kind, body in _FENCE.findall(self.text) if not kind for line in body]


class _Fence:
    """Fenced blocks of a text, with the language each names."""

    _blocks = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

    def findall(self, text: str) -> list[tuple[str, list[str]]]:
        return [(m[1], m[2].splitlines()) for m in self._blocks.finditer(text)]

    def sub(self, new: str, text: str) -> str:
        return self._blocks.sub(new, text)


_FENCE = _Fence()


@cache
def pages() -> list[Page]:
    paths = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return [Page(path, path.read_text()) for path in sorted(paths)]


def page(text: str) -> Page:
    """A page that does not exist, to try a rule on."""
    return Page(DOCS / "x.md", text)


# ---- the rules --------------------------------------------------------------------------------


def commands_exist(page: Page) -> Iterator[str]:
    """Whatever is written as a command can be typed."""
    lines = [line.strip().removeprefix("$ ") for line in page.code]
    for text in [*page.words, *lines]:
        if text.startswith("mlchain "):
            yield from wrong_with_command(text)
        script = re.match(r"(?:\./)?(scripts/[\w-]+)", text)
        if script and not (ROOT / script[1]).exists():
            yield f"{text}: no such script"


def wrong_with_command(text: str) -> Iterator[str]:
    from mlchain.cli import main

    command: click.Command = main
    context = click.Context(main, info_name="mlchain", **main.context_settings)  # click caches -h
    for word in shlex.split(text, comments=True)[1:]:
        if word.startswith("-") and word != "-":
            known = [flag for p in command.get_params(context) for flag in p.opts]
            if word.split("=")[0] not in known:
                yield f"{text}: {command.name} has no {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                yield f"{text}: no command {word}"
                return
            command, context = found, click.Context(found, context, word)


def files_exist(page: Page) -> Iterator[str]:
    """A path into the tree leads somewhere; inside the package its name may be left out."""
    for word in page.words:
        path = re.fullmatch(r"([\w.*-]+/[\w./*-]*)(?:::\w+)?", word)
        if path is None or path[1].split("/")[0] not in top_names():
            continue
        if not any(list(folder.glob(path[1].rstrip("/"))) for folder in (ROOT, ROOT / "mlchain")):
            yield f"{word}: no such file"


@cache
def top_names() -> dict[str, None]:
    folders = [p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    packages = [p.name for p in (ROOT / "mlchain").iterdir() if p.is_dir()]
    return dict.fromkeys([*folders, *packages])


NOT_TESTS = ("test_fraction", "test_rows")


def named_tests_exist(page: Page) -> Iterator[str]:
    """A test that is named can be run; before `::` stands its file, `…` leaves out the end."""
    for word in page.words:
        path, _, name = word.rpartition("::")
        if not re.fullmatch(r"test_\w+…?", name) or name in NOT_TESTS:
            continue
        known = (
            all_tests().get(path, []) if path else [n for of in all_tests().values() for n in of]
        )
        is_there = any(n.startswith(name[:-1]) for n in known) if name[-1] == "…" else name in known
        if not is_there:
            yield f"{word}: no such test"


@cache
def all_tests() -> dict[str, list[str]]:
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
        found[path.relative_to(ROOT).as_posix()] = names
    return found


def constants_have_their_values(page: Page) -> Iterator[str]:
    """`module.NAME = value` is what the module says; so is `module.Class.field = value`."""
    for word in page.words:
        found = re.fullmatch(r"([a-z_.]+)\.((?:[A-Z]\w*\.)?\w+) = (.+)", word)
        if found is None:
            continue
        homes = [name for name in module_names() if f".{name}".endswith(f".{found[1]}")]
        if len(homes) != 1:
            yield f"{word}: {len(homes)} modules are called {found[1]}"
            continue
        try:
            actual = look_up(importlib.import_module(homes[0]), found[2].split("."))
        except AttributeError:
            yield f"{word}: not in {homes[0]}"
            continue
        if actual != evaluate(found[3]):
            yield f"{word}: it is {actual}"


@cache
def module_names() -> list[str]:
    paths = (ROOT / "mlchain").rglob("*.py")
    names = [p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for p in paths]
    return sorted(name for name in names if not name.endswith("__"))


def look_up(owner: Any, names: list[str]) -> Any:
    for name in names:
        defaults = {f.name: f.default for f in fields(owner)} if is_dataclass(owner) else {}
        owner = defaults[name] if name in defaults else getattr(owner, name)
    return owner


def evaluate(text: str) -> Any:
    return eval(text, {"__builtins__": {}}, {"Fraction": Fraction})


def links_resolve(page: Page) -> Iterator[str]:
    """A relative link leads to a file, and to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.text):
        path, _, anchor = target.partition("#")
        file = page.path.parent / path
        if re.match(r"[a-z]+:", target):
            continue
        if not file.exists():
            yield f"{target}: leads nowhere"
        elif anchor and anchor not in anchors(file.read_text() if path else page.text):
            yield f"{target}: no such heading"


def anchors(text: str) -> list[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    made = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    return made + re.findall(r'<a id="([^"]+)">', text)


_NOT_OURS = re.compile(
    r"(?:^|[\s`(\"'])(/tmp/|/root/|/home/\w)"  # paths of one machine
    r"|(?<![\w/&#])#\d+\b(?!\.)"  # numbers of a tracker
    r"|\b(?:GH-|issue |pull request )\d"
)


def pages_speak_of_the_project_alone(page: Page) -> Iterator[str]:
    """No path of a machine the reader does not have, no number of a tracker he does not see."""
    for number, line in enumerate(_FENCE.sub("", page.text).splitlines(), 1):
        for found in _NOT_OURS.finditer(line):
            yield f"{found[0].strip()!r} in: {line[:80]} (about line {number})"


def messages_are_ours(page: Page) -> Iterator[str]:
    """What stands between “ and ” in a table is said by some line of the code."""
    for line in page.text.splitlines():
        for words in re.findall("“(.+?)”", line) if line.startswith("|") else ():
            if not any(words in text for text in all_texts()):
                yield f"“{words}”: nobody says so"


@cache
def all_texts() -> list[str]:
    """Every text in the source; of one with values in it, the pieces between them."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "mlchain").rglob("*.py")]
    nodes = [n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return [value for value in nodes if isinstance(value, str)]


def python_can_be_imported(page: Page) -> Iterator[str]:
    """Python on a page is Python, and what it takes from the package is there."""
    for kind, lines in _FENCE.findall(page.text):
        for node in ast.walk(ast.parse("\n".join(lines))) if kind == "python" else ():
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlchain"):
                try:
                    home = importlib.import_module(str(node.module))
                except ImportError as error:
                    yield str(error)
                    continue
                yield from (
                    f"{node.module} has no {name.name}"
                    for name in node.names
                    if not hasattr(home, name.name)
                )


def job_files_are_valid(page: Page) -> Iterator[str]:
    """A whole job file on a page can be submitted."""
    for kind, lines in _FENCE.findall(page.text):
        if kind == "toml" and "[job]" in lines:
            try:
                parse_job_file("\n".join(lines), page.path)
            except Exception as error:
                yield str(error)


def tables_are_fresh(page: Page) -> Iterator[str]:
    """What is made from the code was made from this code."""
    if refresh(page.text) != page.text:
        yield "a table is stale: PYTHONPATH=. python tests/doc_tables.py"


RULES = (
    commands_exist,
    files_exist,
    named_tests_exist,
    constants_have_their_values,
    links_resolve,
    pages_speak_of_the_project_alone,
    messages_are_ours,
    python_can_be_imported,
    job_files_are_valid,
    tables_are_fresh,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_pages_keep_the_rule(rule):
    complaints = [f"{page.name}: {what}" for page in pages() for what in rule(page)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_each_attack_is_in_the_table_and_has_its_control():
    """`tests/attacks/` has a file for each; the control is the same attack, the defence off."""
    table = (DOCS / "protocol.md").read_text()
    files = {path: names for path, names in all_tests().items() if "/attacks/" in path}
    assert [path for path in files if f"`{path}`" not in table] == []
    lacking = [path for path, names in files.items() if not any("test_control" in n for n in names)]
    assert lacking == [] and len(files) > 29


CAUGHT = [
    (commands_exist, "`mlchain devel`"),
    (commands_exist, "`mlchain testnet down`"),
    (commands_exist, "`mlchain node --verbosely`"),
    (commands_exist, "```\n$ mlchain audit x --fast\n```"),
    (commands_exist, "`scripts/undo`"),
    (files_exist, "`mlchain/vm/execution.py`"),
    (files_exist, "`vm/execution.py`"),
    (files_exist, "`tests/attacks/test_99_*.py`"),
    (named_tests_exist, "`test_nothing_of_the_kind`"),
    (named_tests_exist, "`tests/attacks/test_07_grind.py::test_honest_work_is_never_accused`"),
    (named_tests_exist, "`test_nothing_of_the…`"),
    (constants_have_their_values, "`lifecycle.MAX_DEPTH = 4`"),
    (constants_have_their_values, "`lifecycle.MIN_DEPTH = 3`"),
    (constants_have_their_values, "`nowhere.MAX_DEPTH = 3`"),
    (constants_have_their_values, "`mempool.Limits.count = 1`"),
    (links_resolve, "[x](nowhere.md)"),
    (links_resolve, "[x](job-file.md#no-such-heading)"),
    (links_resolve, "# Title\n[x](#no-title)"),
    (pages_speak_of_the_project_alone, "look in /root/chain"),
    (pages_speak_of_the_project_alone, "as said in #12"),
    (pages_speak_of_the_project_alone, "issue 12"),
    (messages_are_ours, "| “we never say this” | do |"),
    (python_can_be_imported, "```python\nfrom mlchain.codec import decipher\n```"),
    (python_can_be_imported, "```python\nfrom mlchain.codes import decode\n```"),
    (job_files_are_valid, "```toml\n[job]\nname = 7\n```"),
    (tables_are_fresh, "<!-- table: ops -->\n| old |\n<!-- end -->"),
]


@pytest.mark.parametrize("rule, text", CAUGHT)
def test_the_rule_sees_its_violation(rule, text):
    assert list(rule(page(text)))


LET_THROUGH = [
    (commands_exist, "`mlchain job show 7f3a --follow`, `mlchain status --json -q`"),
    (files_exist, "`vm/execute.py`, `mlchain/vm/families/*.py`, `keys/peer.json`, `a/b`"),
    (named_tests_exist, "`tests/attacks/test_07_grind.py::test_one_secret_ticket_is_enough`"),
    (constants_have_their_values, "`lifecycle.MAX_DEPTH = 3`, `mempool.Limits.count = 20_000`"),
    (constants_have_their_values, "`assurance.AUDITED_MISS = Fraction(1, 1000)`, `steps = 0`"),
    (links_resolve, "# A title\n[x](#a-title), [y](job-file.md#every-key), [z](https://a.example)"),
    (pages_speak_of_the_project_alone, "[x](y.md#title), MLRT-1 rule 3, `&#124;`, ~/.local/share"),
]


@pytest.mark.parametrize("rule, text", LET_THROUGH)
def test_the_rule_lets_a_good_page_through(rule, text):
    assert not list(rule(page(text)))


RUNTIME_PAGE = (ROOT / "docs" / "runtime.md").read_text()


@pytest.mark.parametrize("program", re.findall(r"```python\n(.*?)```", RUNTIME_PAGE, re.DOTALL))
def test_the_programs_on_the_page_of_the_runtime_run(program):
    exec(compile(program, "docs/runtime.md", "exec"), {})


def test_what_the_code_tells_people_to_type_can_be_typed():
    """Hints and examples; of one with values in it, the part before the first value."""
    lines = [line.strip() for text in all_texts() for line in text.splitlines()]
    typed = [line for line in lines if re.match(r"mlchain [a-z-]+(?: |$)", line)]
    assert len(typed) > 40
    assert [what for line in typed for what in wrong_with_command(line.partition(", ")[0])] == []


def test_every_event_an_operator_shall_watch_is_logged():
    section = (DOCS / "operate.md").read_text().split("## Logs")[1].split("##")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    events = [word for row in rows for word in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert len(events) > 8
    assert [event for event in events if event not in all_texts()] == []


PROTOCOL = (DOCS / "protocol.md").read_text()


# ---- what has to be on the pages --------------------------------------------------------------


def test_every_table_stands_on_a_page():
    text = "".join(page.text for page in pages())
    assert [name for name in TABLES if f"<!-- table: {name} -->" not in text] == []


def test_every_key_of_a_job_file_is_explained():
    keys = [f"{table}.{key}" for table, of in FIELDS.items() for key in of]
    assert list(KEY_MEANINGS) == keys


@pytest.mark.parametrize("name", Params.__struct_fields__)
def test_every_parameter_of_a_chain_is_explained(name):
    assert f"`{name}`" in PROTOCOL


@pytest.mark.parametrize("name", [p.name for p in DOCS.glob("*.md")])
def test_every_page_can_be_found_from_the_first(name):
    first = (DOCS / "README.md").read_text() + (ROOT / "README.md").read_text()
    assert f"({name})" in first or f"(docs/{name})" in first or name == "README.md"


def test_the_probabilities_on_the_page_are_those_the_audit_prints():
    lines = (DOCS / "audit.md").read_text().splitlines()
    shown = [line.rsplit("p = ", 1)[1] for line in lines if "missed it with p = " in line]
    assert shown == [miss_text(1000, 100, one_in) for one_in in (10, 100)]


def test_the_slices_on_the_page_are_those_the_chain_draws():
    rows = re.findall(r"^\| ([\d ]+) \| (\d+) \| (\d+) \| (\d+) \|$", PROTOCOL, re.MULTILINE)
    assert len(rows) == 3
    for chunks, *sizes in rows:
        total = int(chunks.replace(" ", ""))
        found = [slice_size(Tier("audited"), total, total, n) for n in (4, 7, 10)]
        assert [int(size) for size in sizes] == found


def test_every_check_of_an_audit_is_explained_in_its_order():
    text = (DOCS / "audit.md").read_text()
    places = [text.find(f"| `{name}` |") for name, _ in (*CHECKS, ("re-run", None))]
    assert -1 not in places and places == sorted(places)


# ---- decisions --------------------------------------------------------------------------------

DECISIONS = sorted((DOCS / "adr").glob("*.md"))


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_context_decision_and_consequences(path):
    text = path.read_text()
    assert text.startswith(f"# {int(path.name[:4])}. ")
    places = [text.find(f"**{part}.**") for part in ("Context", "Decision", "Consequences")]
    assert -1 not in places and places == sorted(places)
    assert len(text.split()) < 600, "one page"


def test_the_names_of_tests_are_read_from_the_source():
    """What `named_tests_exist` rests on."""
    tree = ast.parse(Path(__file__).read_text())
    here = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[:5] == "test_"]
    assert all_tests()["tests/test_docs.py"] == here
