"""Where settings come from, and that a wrong one stops the start."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from pydantic import ValidationError

from tmuxjobs.errors import SettingsError
from tmuxjobs.settings import Settings


def write_toml(text: str) -> Path:
    path = platformdirs.user_config_path("tmuxjobs") / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_without_any_source_the_defaults_hold() -> None:
    settings = Settings.load()
    assert (settings.session, settings.socket_name, settings.max_jobs) == ("mcp-jobs", "default", 10)
    assert settings.state_dir == platformdirs.user_state_path("tmuxjobs")
    assert settings.allowed_commands is None
    assert settings.job_timeout is None


def test_argument_wins_over_variable_over_seed_variable_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("max_jobs = 4")
    assert Settings.load().max_jobs == 4
    monkeypatch.setenv("MCP_BG_MAX_JOBS", "3")
    assert Settings.load().max_jobs == 3
    monkeypatch.setenv("TMUXJOBS_MAX_JOBS", "2")
    assert Settings.load().max_jobs == 2
    assert Settings.load(max_jobs=1).max_jobs == 1


def test_file_gives_every_kind_of_value() -> None:
    write_toml("""
        max_output_size = "1GB"
        job_timeout = 1.5
        working_dir = "/"
        allowed_commands = ["^git ", "a{1,2}"]
    """)
    settings = Settings.load()
    assert (settings.max_output_size, settings.job_timeout, settings.working_dir) == (1 << 30, 1.5, Path("/"))
    assert settings.allowed_commands == ("^git ", "a{1,2}")


def test_a_program_gives_settings_by_name() -> None:
    assert Settings(max_jobs=20).max_jobs == 20
    with pytest.raises(ValidationError):
        Settings(max_job=20)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MCP_BG_MAX_JOBS", "3", "max_jobs", 3),
        ("MCP_BG_MAX_OUTPUT_SIZE", "20MB", "max_output_size", 20 << 20),
        ("MCP_BG_JOB_TIMEOUT", "60", "job_timeout", 60.0),
        ("MCP_BG_JOB_TIMEOUT", "None", "job_timeout", None),
        ("MCP_BG_CLEANUP_INTERVAL", "7", "cleanup_interval", 7.0),
        ("MCP_BG_WORKING_DIR", "/", "working_dir", Path("/")),
        ("MCP_BG_ALLOWED_COMMANDS", "^ls , ^git ", "allowed_commands", ("^ls", "^git")),
        (
            "MCP_BG_ALLOWED_COMMANDS",
            "^make -j[0-9]{1,2}$,^a(b,c)[,)], ^\\(",
            "allowed_commands",
            ("^make -j[0-9]{1,2}$", "^a(b,c)[,)]", "^\\("),
        ),
    ],
)
def test_seed_variable_works(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Settings.load(), field) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("70000", 70000), ("70000B", 70000), ("64k", 1 << 16), ("20MB", 20 << 20), ("20 MiB", 20 << 20),
        (" 1.5G ", 3 << 29), ("1tb", 1 << 40),
    ],
)  # fmt: skip
def test_size_may_have_a_unit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("TMUXJOBS_MAX_OUTPUT_SIZE", text)
    assert Settings.load().max_output_size == size


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90.0), ("1.5", 1.5), ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("14d", 1209600.0), ("2w", 1209600.0),
     (" 1h30m ", 5400.0), ("1 H 30 Min", 5400.0), ("1500ms", 1.5)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["job_timeout", "keep_jobs_for", "keep_windows_for", "cleanup_interval", "hold_for"])
def test_duration_may_have_a_unit(monkeypatch: pytest.MonkeyPatch, name: str, text: str, wanted: float) -> None:
    monkeypatch.setenv(f"TMUXJOBS_{name.upper()}", text)
    assert getattr(Settings.load(), name) == wanted


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TMUXJOBS_MAX_JOBS", "several"), ("TMUXJOBS_MAX_JOBS", "1001"), ("TMUXJOBS_JOB_TIMEOUT", "soon"),
        ("TMUXJOBS_KEEP_JOBS_FOR", "14 moons"), ("TMUXJOBS_HOLD_FOR", "10m and a bit"), ("TMUXJOBS_SESSION", "a:b"),
        ("TMUXJOBS_MAX_OUTPUT_SIZE", "20 apples"), ("TMUXJOBS_MAX_OUTPUT_SIZE", "2 KB"), ("TMUXJOBS_NOTIFY", "loudly"),
        ("MCP_BG_MAX_JOBS", "2.5"), ("TMUXJOBS_KEEP_JOBS", "-3"), ("TMUXJOBS_CLEANUP_INTERVAL", "nan"),
    ],
)  # fmt: skip
def test_message_names_the_wrong_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    assert f"'{value}'" in refusal()


@pytest.mark.parametrize(("wrong", "right"), [("MAX_JOB", "MAX_JOBS"), ("KEEP_WINDOW", "KEEP_WINDOWS"),
                                              ("JOB_TIMEOUTS", "JOB_TIMEOUT"), ("STATEDIR", "STATE_DIR")])  # fmt: skip
def test_message_has_the_nearest_name(monkeypatch: pytest.MonkeyPatch, wrong: str, right: str) -> None:
    path = write_toml(f"{wrong.lower()} = 1")
    assert refusal().endswith(f"did you mean {right.lower()}?")
    path.unlink()
    monkeypatch.setenv(f"TMUXJOBS_{wrong}", "1")
    assert refusal() == f"TMUXJOBS_{wrong} is not a setting; did you mean TMUXJOBS_{right}?"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TMUXJOBS_MAX_JOBS", "many"), ("TMUXJOBS_MAX_JOBS", ""), ("TMUXJOBS_MAX_JOBS", "0"), ("MCP_BG_MAX_JOBS", "-1"),
        ("MCP_BG_MAX_OUTPUT_SIZE", "20 apples"), ("TMUXJOBS_MAX_OUTPUT_SIZE", "1K"), ("MCP_BG_JOB_TIMEOUT", "0"),
        ("TMUXJOBS_JOB_TIMEOUT", "nan"), ("TMUXJOBS_WORKING_DIR", "/no/such"), ("MCP_BG_WORKING_DIR", "/no/such"),
        ("TMUXJOBS_STATE_DIR", "relative"), ("TMUXJOBS_STATE_DIR", ""), ("TMUXJOBS_SESSION", "a:b"),
        ("TMUXJOBS_SESSION", "#(touch x)"), ("TMUXJOBS_SOCKET_NAME", "../x"), ("TMUXJOBS_ALLOWED_COMMANDS", "^ls, ("),
        ("TMUXJOBS_ALLOWED_COMMANDS", ""), ("MCP_BG_ALLOWED_COMMANDS", " , "),
    ],
)  # fmt: skip
def test_bad_value_stops_with_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal().startswith(f"{variable} cannot be used: ")


@pytest.mark.parametrize("line", ["max_jobs = 'x'", "allowed_commands = []", "allowed_commands = [1]", "session = 1"])
def test_bad_value_in_the_file_stops_with_one_line_that_names_the_file(line: str) -> None:
    path = write_toml(line)
    assert refusal().startswith(f"{line.split()[0]} in {path} cannot be used: ")


def test_file_that_is_no_toml_stops() -> None:
    path = write_toml("max_jobs =")
    assert refusal().startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (os.mkfifo, "is a FIFO"),
        (Path.mkdir, "is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path), "Too many levels|cannot be read"),
        (lambda path: path.write_bytes(b"\xff\0"), "decode"),
        (lambda path: path.write_text("a = " + "[" * 50_000), "nested too deeply"),
        (lambda path: path.write_text(f"max_jobs = {'7' * 5000}"), "max_jobs|digits"),
        (lambda path: path.write_text('state_dir = "/tmp/a\\u0000b"'), "NUL"),
        (lambda path: path.write_text('working_dir = "/tmp/a\\u0000b"'), "NUL"),
        (lambda path: path.write_text(f'working_dir = "/{"x" * 5000}"'), "not a directory"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 34)), "is larger than"),
    ],
    ids=["fifo", "folder", "device", "loop", "binary", "deep", "digits", "NUL", "NUL too", "long", "large"],
)
def test_odd_thing_in_the_files_place_stops(put: Callable[[Path], object], said: str) -> None:
    path = write_toml("")
    path.unlink()
    put(path)
    assert re.search(said, refusal())


def test_file_may_be_a_link(tmp_path: Path) -> None:
    path = write_toml("max_jobs = 3")
    path.rename(tmp_path / "dotfile")
    path.symlink_to(tmp_path / "dotfile")
    assert Settings.load().max_jobs == 3


def test_unknown_name_in_the_file_stops() -> None:
    write_toml("max_job = 3")
    assert "max_job" in refusal()


def test_unknown_variable_that_is_near_none_stops_and_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXJOBS_ZZZ", "^ls")
    assert refusal().startswith("TMUXJOBS_ZZZ is not a setting; there are TMUXJOBS_ALLOWED_COMMANDS, ")


def test_misspelt_variable_of_the_seed_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_BG_ALOWED_COMMANDS", "^ls")
    assert refusal().startswith("MCP_BG_ALOWED_COMMANDS is not a setting; there are MCP_BG_ALLOWED_COMMANDS, ")


def test_policy_is_a_table_or_a_file_and_a_wrong_one_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_toml('max_jobs = 3\n[policy]\nallow = ["ls"]\ndeny = ["rm \'"]')
    assert refusal().startswith(f"{path}, line 4: the policy cannot be used: ")
    path.write_text('[policy]\nallow = ["ls"]')
    assert [rule.text for rule in Settings.load().policies(tmp_path, agent=True)[0].rules] == ["ls"]
    assert Settings.load().policies(tmp_path, agent=False) == []
    other = tmp_path / "other.toml"
    monkeypatch.setenv("TMUXJOBS_POLICY", str(other))
    assert refusal() == f"{other} cannot be read: No such file or directory."
    other.write_text("")
    assert "it has no [policy]" in refusal()
    other.write_text('[policy]\nallow = ["cat"]')
    assert [rule.text for rule in Settings.load().policies(tmp_path, agent=True)[0].rules] == ["cat"]


def test_nothing_is_imported_for_a_policy_that_is_not_set() -> None:
    code = (
        "import sys, pathlib; from tmuxjobs import Jobs, Settings; settings = Settings.load(); "
        "Jobs.open(settings, caller='agent'); assert not settings.policies(pathlib.Path.cwd(), agent=True); "
        "print([name for name in sys.modules if name.startswith(('tree_sitter', 'regex', 'tmuxjobs.policy.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['tmuxjobs.policy.callers']\n"


def test_variable_of_a_job_is_no_misspelt_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXJOBS_JOB_ID", "build-3k7q")
    assert Settings.load().session == "mcp-jobs"


@pytest.mark.parametrize("name", ["session", "max_jobs", "STATE_DIR"])
def test_variable_that_only_is_called_like_a_setting_is_not_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert Settings.load().model_dump() == Settings().model_dump()
    assert (Settings.load().session, Settings.load().max_jobs) == ("mcp-jobs", 10)


def test_variables_of_our_own_processes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUXJOBS_RUN", "TMUXJOBS_JOB_ID", "TMUXJOBS_JOB_MARK", "TMUXJOBS_LOG_PATH"):
        monkeypatch.setenv(name, "build-3k7q")
    assert Settings.load() == Settings()
