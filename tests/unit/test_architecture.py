"""Holds the table of layers in CONTRIBUTING: which module may import which, and who owns which library."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tmuxjobs"
BASE = {"epilogue", "errors", "files", "models"}
MIDDLE = BASE | {
    "looks",
    "journal",
    "echoes",
    "clean",
    "settings",
    "tmux",
    "store",
    "tokens",
    "log",
    "matching",
    "output",
    "processes",
    "terminals",
    "probing",
    "watching",
}
# module: what of ours it may import
VERBS = {
    "adopting",
    "asking",
    "starting",
    "reading",
    "searching",
    "showing",
    "interacting",
    "stopping",
    "keeping",
    "waiting",
    "holding",
    "noticing",
    "doctor",
    "restarting",
    "ending",
}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "models": {"errors", "files"},
    "trees": set(),
    "epilogue": set(),
    "attaching": {"trees"},
    "runner": {"attaching", "epilogue", "files", "trees"},
    "adopter": {"attaching", "files", "runner", "trees"},
    "recorder": set(),
    "pages": {"files", "terminals"},
    "looks": set(),
    "canvas": set(),
    "clean": {"canvas"},
    "settings": BASE,
    "calls": BASE,
    "tmux": BASE | {"calls"},
    "store": BASE,
    "processes": BASE | {"trees"},
    "terminals": set(),
    "probing": set(),
    "watching": set(),
    "journal": BASE,
    "echoes": {"files"},
    "tasks": BASE | {"jobs", "log", "results", "starting", "telling", "waiting", "watching"},
    "telling": BASE | {"jobs", "journal", "watching"},
    "log": BASE | {"clean"},
    "matching": BASE | {"clean", "log"},
    "output": BASE | {"clean", "log"},
    "results": {"epilogue", "models"},
    "picture": {"results"},
    "checks": {"errors"},
    **{verb: MIDDLE | VERBS | {"jobs", "results", "checks", "trees"} for verb in VERBS},
    "jobs": MIDDLE | VERBS | {"results"},
    "progress": {"epilogue"},
    "clients": {"errors", "files"},
    "following": MIDDLE | {"jobs", "results", "watching"},
    "table": MIDDLE | {"jobs", "results"},
    "app": {"jobs"},
    "tokens": {"errors", "store"},
    "listening": {"errors", "store"},
    "serving": {"errors", "listening", "tokens"},
    "cli_start": {
        "app",
        "clients",
        "errors",
        "following",
        "jobs",
        "listening",
        "models",
        "progress",
        "reading",
        "server",
        "starting",
        "tokens",
    },
    "cli": {"app", "cli_start"}
    | {"following", "picture", "progress", "table"}
    | MIDDLE
    | {"jobs", "results", "server", "waiting"},
    "resources": {"errors", "jobs", "results"},
    "server": MIDDLE
    | {"jobs", "listening", "picture", "resources", "results", "serving", "starting", "tasks", "telling", "waiting"},
    "__init__": MIDDLE | {"jobs"},
    "__main__": {"cli"},
}
OWNERS = {
    "libtmux": {"calls"},
    "fastmcp": {"resources", "server", "serving", "tasks", "telling"},
    "mcp": {"server", "tasks"},
    "platformdirs": {"settings"},
    "cyclopts": {"app", "cli", "cli_start"},
    "regex": {"matching"},
    "wcwidth": {"canvas"},
    "uvicorn": {"serving"},
    "h11": {"serving"},
    "rich": {"cli", "picture", "table"},
    "PIL": {"picture"},
}
STDLIB_ONLY = {
    "files",
    "trees",
    "epilogue",
    "attaching",
    "runner",
    "adopter",
    "recorder",
    "pages",
    "looks",
    "terminals",
}
MODULES = sorted(PACKAGE.glob("**/*.py"))


def imports(tree: ast.AST) -> set[str]:
    """Full names of what is imported anywhere below; ours as tmuxjobs.<module>."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["tmuxjobs" if node.level else "", node.module]))
            names |= {f"tmuxjobs.{alias.name}" for alias in node.names} if base == "tmuxjobs" else {base}
    return names


def ours(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("tmuxjobs.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    module = path.stem
    assert module in LAYERS, f"{path.name} is new: add it to LAYERS here and to the table in CONTRIBUTING.md"
    names = imports(ast.parse(path.read_text()))
    local = ours(names) & {other.stem for other in MODULES}
    assert local <= LAYERS[module], f"{module} may not import {sorted(local - LAYERS[module])}"
    roots = {name.partition(".")[0] for name in names} - {"tmuxjobs"}
    for library in roots & OWNERS.keys():
        assert module in OWNERS[library], f"{library} belongs to {sorted(OWNERS[library])}, not to {module}"
    if module in STDLIB_ONLY:
        assert roots - LAYERS[module] <= sys.stdlib_module_names


@pytest.mark.parametrize("module", ["app", "cli", "cli_start"])
def test_listing_jobs_loads_neither_the_server_nor_the_picture(module: str) -> None:
    path = PACKAGE / f"{module}.py"
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    at_start = [node for node in ast.parse(path.read_text()).body if not isinstance(node, functions)]
    assert not {"server", "picture"} & {name for node in at_start for name in ours(imports(node))}
