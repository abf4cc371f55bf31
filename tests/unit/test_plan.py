"""The jobs that a project's file names: in order, checked, each error with its file and line."""

from pathlib import Path

import pytest

from tmuxjobs.cli.up import Plan
from tmuxjobs.errors import InvalidInput, SettingsError


def plan_of(folder: Path, text: str) -> Plan:
    (folder / "tmuxjobs.toml").write_text(text)
    return Plan.found(folder)


def test_jobs_stand_behind_those_that_they_come_after(tmp_path: Path) -> None:
    text = """
    [jobs.web]
    command = "serve"
    after = ["api:ready", "assets"]
    [jobs.api]
    command = "api"
    after = ["db"]
    ready_when = "port 8000"
    [jobs.assets]
    command = "build"
    timeout = "10m"
    env = {LEVEL = 3, QUIET = true}
    [jobs.db]
    command = "db"
    ready_when = "port 5432"
    """
    plan = plan_of(tmp_path, text)
    names = list(plan.jobs)
    assert names.index("db") < names.index("api") < names.index("web")
    assert names.index("assets") < names.index("web")
    # What is not said: that it is ready, where it tells that, else that it ends well.
    assert plan.jobs["api"].after == {"db": "ready"}
    assert plan.jobs["web"].after == {"api": "ready", "assets": "ok"}
    assets = plan.jobs["assets"].options
    assert (assets["timeout"], assets["env"]) == (600.0, {"LEVEL": "3", "QUIET": "true"})
    assert [one.name for one in plan.chosen(["api"])] == ["db", "api"]
    assert [one.name for one in plan.named(["api"])] == ["api"]
    with pytest.raises(InvalidInput, match="has no job 'nope'; there are"):
        plan.chosen(["nope"])


def test_folders_are_relative_to_the_file_and_it_is_found_upward(tmp_path: Path) -> None:
    (tmp_path / "inner/deep").mkdir(parents=True)
    (tmp_path / "inner/tmuxjobs.toml").write_text("[policy]\n")  # one without jobs is passed over
    plan_of(tmp_path, '[jobs.web]\ncommand = "serve"\ncwd = "site"\n')
    plan = Plan.found(tmp_path / "inner/deep")
    assert plan.file == tmp_path / "tmuxjobs.toml"
    assert plan.jobs["web"].options["cwd"] == str(tmp_path / "site")


def test_procfile_names_jobs_too(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("# ours\nweb: npm start -- --port 3000\n\nMY_WORKER: work\n")
    plan = Plan.found(tmp_path)
    assert {name: one.command for name, one in plan.jobs.items()} == {
        "web": "npm start -- --port 3000",
        "my-worker": "work",
    }


def test_folder_without_such_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no tmuxjobs"):
        Plan.found(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[jobs.web]\ncommand = "x"\n\ncolour = "red"\n',
            "line 4: job 'web': 'colour' is not known; there are command",
        ),
        ("[jobs.web]\ncommand = 3\n", "line 2: job 'web': command is not a text"),
        ("[jobs.web]\nretry = 1\n", "line 1: job 'web': it has no command"),
        ('[jobs.web]\ncommand = "x"\nafter = ["db"]\n', "line 3: job 'web': it comes after 'db', which does not exist"),
        ('[jobs.web]\ncommand = "x"\nafter = ["web:soon"]\n', "line 3: job 'web': 'web:soon' in after ends in"),
        ('[jobs.web]\ncommand = "x"\nafter = ["web"]\n', "it comes after itself: web after web"),
        ('[jobs.Web_1]\ncommand = "x"\n', "line 1: job 'Web_1': a name is up to 20 characters: a-z"),
        ('[jobs.web]\ncommand = "x"\ntimeout = "soon"\n', "line 3: job 'web': timeout is not a time"),
        ("jobs = 3\n", "jobs is not a table"),
        ("[jobs.web\n", "cannot be read: it is not TOML"),
    ],
)
def test_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        plan_of(tmp_path, text)
    assert words in str(error.value)
    assert str(tmp_path / "tmuxjobs.toml") in str(error.value)
