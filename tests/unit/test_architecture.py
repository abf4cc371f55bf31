"""Holds the table of parts in CONTRIBUTING: which part may import which, who owns which library, and no circles."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tmuxjobs.store import units

PACKAGE = Path(__file__).parents[2] / "tmuxjobs"
BASE = {
    "named",
    "visible",
    "contract",
    "lean",
    "files",
    "outcome",
    "errors",
    "models",
    "states",
    "arguments",
}
# part: what of ours it may import, beside itself. A part is a folder, or a module beside the folders.
PARTS: dict[str, set[str]] = {
    "visible": set(),
    "contract": set(),
    "lean": set(),
    "files": {"contract", "lean"},
    "outcome": {"contract", "visible"},
    "errors": {"visible"},
    "named": set(),
    "arguments": {"errors"},
    "models": {"arguments", "contract", "outcome", "errors", "named"},
    "states": {"contract", "models", "outcome"},
    "system": {"contract", "errors", "lean", "named", "outcome"},
    "pane": {"visible", "contract", "files", "lean", "outcome", "system"},
    "recorder": {"pane"},
    "pages": {"pane"},
    "store": {"contract", "errors", "files", "models", "pane", "system"},
    "far": {"contract", "errors", "files", "named", "pane", "store", "system"},
    "tmux": {"contract", "errors", "models"},
    "text": {"errors", "files"},
    "policy": {"arguments", "errors", "files", "models"},
    "settings": {"arguments", "contract", "errors", "files", "models", "policy"},
    "job_answers": {"visible", "contract", "outcome", "models"},
    "answers": {"visible", "contract", "outcome", "job_answers", "models"},
    "picture": {"answers"},
    "hosts": BASE | {"far", "pane", "settings", "store", "system", "text", "tmux"},
    "verbs": BASE
    | {"answers", "hosts", "job_answers", "pane", "policy", "settings", "store", "system", "text", "tmux"},
    "jobs": BASE | {"answers", "hosts", "job_answers", "policy", "settings", "verbs"},
    "bugs": {"errors", "settings", "store"},
    "server": BASE | {"answers", "bugs", "job_answers", "jobs", "picture", "settings"},
    "cli": BASE | {"answers", "bugs", "job_answers", "jobs", "picture", "policy", "server", "settings"},
    "__init__": {"errors", "jobs", "settings"},
    "__main__": {"cli"},
}
OWNERS = {
    "libtmux": {"tmux"},
    "fastmcp": {"server"},
    "mcp": {"server"},
    "mcp_types": {"server"},
    "platformdirs": {"settings"},
    "cyclopts": {"cli"},
    "psutil": {"system"},
    "regex": {"policy", "text"},
    "tree_sitter": {"policy"},
    "tree_sitter_bash": {"policy"},
    "wcwidth": {"text"},
    "rich": {"cli", "picture"},
    "PIL": {"picture"},
    "tomlkit": {"cli"},
    "yaml": {"cli"},
    "watchfiles": {"cli"},
}
STDLIB_ONLY = {
    "visible",
    "lean",
    "contract",
    "outcome",
    "errors",
    "far",
    "named",
    "pane",
    "recorder",
    "pages",
    "files",
    "system.processes",
    "system.slurm",
    "system.table",
    "system.terminals",
}
LINES = 450
"""What can be read in one sitting."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.glob("**/*.py"))}


def part_of(module: str) -> str:
    return module.partition(".")[0]


def imports(tree: ast.AST) -> set[str]:
    """Full names of all that is imported anywhere below, for types too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "ours are imported by their full names"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str]) -> set[str]:
    """The modules of ours among them: `tmuxjobs.store.index.slug` is `store.index`."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "tmuxjobs":
            known = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found.add(next((module for module in known if module in MODULES), "__init__"))
    return found


IMPORTS = {module: imports(ast.parse(path.read_text())) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    part = part_of(module)
    assert part in PARTS, f"{module} is new: add its part to PARTS here and to the table in CONTRIBUTING.md"
    allowed = PARTS[part] | {part}
    wrong = sorted(other for other in ours(IMPORTS[module]) if part_of(other) not in allowed)
    assert not wrong, f"{module} may not import {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_one_owner(module: str) -> None:
    roots = {name.partition(".")[0] for name in IMPORTS[module]} - {"tmuxjobs"}
    for library in roots & OWNERS.keys():
        assert part_of(module) in OWNERS[library], f"{library} belongs to {sorted(OWNERS[library])}, not to {module}"
    if part_of(module) in STDLIB_ONLY or module in STDLIB_ONLY:
        assert roots <= sys.stdlib_module_names


def test_what_is_copied_to_other_hosts_imports_no_more_than_that() -> None:
    copied = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in units.read_sources()}
    for module in copied & IMPORTS.keys() - {"__init__"}:
        assert ours(IMPORTS[module]) <= copied, module
        roots = {name.partition(".")[0] for name in IMPORTS[module]} - {"tmuxjobs", "psutil"}
        assert roots <= sys.stdlib_module_names, module


def test_nothing_is_imported_in_a_circle() -> None:
    graph = {module: ours(names) - {module, *folders_of(module)} for module, names in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def folders_of(module: str) -> set[str]:
    """A folder that lists its modules is no circle with them."""
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


@pytest.mark.parametrize("module", MODULES)
def test_each_file_can_be_read_in_one_sitting(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= LINES


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "cli"])
def test_listing_jobs_loads_neither_the_server_nor_the_picture(module: str) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    at_start = [node for node in ast.parse(MODULES[module].read_text()).body if not isinstance(node, functions)]
    assert not {"server", "picture"} & {part_of(other) for node in at_start for other in ours(imports(node))}


def test_contributing_s_map_points_down() -> None:
    table = (PACKAGE.parent / "CONTRIBUTING.md").read_text().partition("| part | knows |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([\w.]+)/?`", row.split("|")[1]) for row in table.splitlines() if "`" in row]
    place = {name.removesuffix(".py"): number for number, names in enumerate(rows) for name in names}
    for part in PARTS.keys() & place.keys():
        for other in PARTS[part]:
            assert place[part] <= place[other], f"{part} imports {other}, which stands above it"


@pytest.mark.parametrize(
    ("start", "unused"),
    [
        ("sys.argv[1:] = ['--version']; from tmuxjobs.cli import main; main.run()", "pydantic cyclopts rich fastmcp"),
        ("sys.argv[1:] = ['--help']; from tmuxjobs.cli import main; main.run()", "pydantic cyclopts rich fastmcp"),
        (
            "sys.argv[1:] = ['list']; from tmuxjobs.cli import main; main.run()",
            "cyclopts rich fastmcp mcp libtmux regex",
        ),
        ("import tmuxjobs.cli.commands", "fastmcp mcp libtmux rich"),
        (
            "import tmuxjobs.cli.main, tmuxjobs.server.serve, tmuxjobs.jobs",
            "cyclopts libtmux PIL pymupdf_fonts",
        ),
    ],
)
def test_a_start_imports_no_library_that_it_does_not_need(start: str, unused: str) -> None:
    code = f"import sys; {start}; print(*sorted(set({unused.split()}) & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"
