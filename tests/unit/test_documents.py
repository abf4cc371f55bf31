"""The documents say what the program does: their tables are compared with it."""

import re
import tomllib
from pathlib import Path

import platformdirs
import pytest
from support import Jobs, server_of

from tmuxjobs import Settings
from tmuxjobs.arguments import duration
from tmuxjobs.cli import BUG, INTERRUPTED, USAGE, WAIT_OVER, commands
from tmuxjobs.hosts.local import Host
from tmuxjobs.settings import SEED, ours, parse_size

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PER_MACHINE = {"state_dir": "~/.local/state/tmuxjobs", "hosts": "none"}


def table(title: str) -> list[list[str]]:
    """The rows of the README's table whose first column has this title, cells without their backquotes."""
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return rows


async def test_tools_are_the_servers() -> None:
    tools = await server_of(Jobs(Host(Settings(hosts={"gpu1": {}}), environ={}, cwd=ROOT))).list_tools()
    assert sorted(row[0] for row in table("tool")) == sorted(tool.name for tool in tools)


def test_commands_are_the_programs() -> None:
    documented = {row[0].split()[1] for row in table("command")}
    assert documented == {name for name in commands.app if not name.startswith("-")}


def test_settings_are_the_programs() -> None:
    def written(name: str, default: object) -> object:
        default = str(default).lower() if isinstance(default, bool | None) else default
        return PER_MACHINE.get(name, default)

    rows = {row[0].removeprefix("TMUXJOBS_").lower(): row[1] for row in table("variable")}
    defaults = {name: written(name, field.default) for name, field in Settings.model_fields.items()}
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        read = {int: parse_size, float: duration}.get(type(default), str)
        shown = read(rows[name])
        assert shown == default, name


def test_older_variables_are_the_programs() -> None:
    told = README.split("Each variable `MCP_BG_...`")[1].split("The old ones")[0]
    assert all(older == ours(name).replace("TMUXJOBS_", "MCP_BG_") for name, older in SEED.items())
    assert set(re.findall(r"`([A-Z_]+)`", told)) == {older.removeprefix("MCP_BG_") for older in SEED.values()}


def test_exit_codes_are_the_programs() -> None:
    assert [int(row[0]) for row in table("exit code")] == sorted({0, 1, USAGE, BUG, WAIT_OVER, INTERRUPTED})


@pytest.mark.parametrize(("text", "most"), [(README, 310), (CONTRIBUTING, 160)], ids=["README", "CONTRIBUTING"])
def test_documents_stay_short_and_their_links_lead_somewhere(text: str, most: int) -> None:
    assert len(text.splitlines()) <= most
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_map_names_every_part() -> None:
    for part in (ROOT / "tmuxjobs").iterdir():
        name = f"{part.name}/" if part.is_dir() else part.name
        if not part.name.startswith(("__", "py.typed")):
            assert f"`{name}`" in CONTRIBUTING, f"{name} is missing in CONTRIBUTING.md's map"


@pytest.mark.parametrize("document", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_named_files_are_there(document: str) -> None:
    tracked = [path for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts]
    for name in set(re.findall(r"`([\w/]+\.py)`", document)) - {"tests/integration/test_snooze.py", "verbs/snooze.py"}:
        assert any(path.as_posix().endswith(f"/{name}") for path in tracked), f"{name} is no file here"


def test_quoted_messages_are_the_programs() -> None:
    """Known issues quote what people will search for; a number in them stands for any."""
    source = "".join(path.read_text() for path in sorted((ROOT / "tmuxjobs").glob("**/*.py")))
    flat = re.sub(r"\{[^{}]*\}", "N", re.sub(r'"\s*f?"', "", source))
    for quoted in re.findall(r"^\* `([^`]+)`", README.partition("## Known issues")[2].partition("\n## ")[0], re.M):
        theirs = quoted.startswith(("sessions should", "can't find", "spawn "))
        words = re.sub(r"\d+", "N", " ".join(quoted.split()))
        assert theirs or words in flat, f"no such message in the program: {quoted}"


def use(text: str) -> Settings:
    path = platformdirs.user_config_path("tmuxjobs") / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return Settings.load()


def test_settings_sample_is_the_defaults() -> None:
    defaults = Settings()
    assert use((ROOT / "conf" / "settings.toml").read_text()) == defaults


def test_settings_sample_has_every_setting_and_each_can_be_used(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_]+ = )", "", (ROOT / "conf" / "settings.toml").read_text(), flags=re.MULTILINE)
    assert tomllib.loads(text).keys() == Settings.model_fields.keys()
    policy = tmp_path / ".config" / "tmuxjobs" / "policy.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text((ROOT / "conf" / "policy.toml").read_text())
    use(text.replace("/home/you", str(tmp_path)))
