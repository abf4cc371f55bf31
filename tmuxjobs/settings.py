"""Every setting, path and default. A wrong value stops the start with one line; there are no fallbacks."""

import contextlib
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tmuxjobs import files
from tmuxjobs.arguments import duration
from tmuxjobs.contract import IN_HOOKS, IN_JOBS, IN_OURS, MARK_IN_JOBS
from tmuxjobs.errors import SettingsError
from tmuxjobs.files import Odd
from tmuxjobs.models import Notify
from tmuxjobs.policy.callers import PROJECT_FILE, project_of

if TYPE_CHECKING:
    from tmuxjobs.policy.rules import Policy

LOG_BYTES = 1 << 16
"""The least that one log may take."""
UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SEED = {
    name: f"MCP_BG_{name.upper()}"
    for name in ("max_jobs", "max_output_size", "job_timeout", "working_dir", "allowed_commands", "cleanup_interval")
}
"""Older variables, of the server that this one replaces; ours win over them."""


HOST = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,99}")
"""A host name for ssh that is neither an option nor a path."""
BRACKETS = {"(": ")", "[": "]", "{": "}"}


def parse_size(value: object) -> object:
    """Bytes from `20MB`, `64 MiB` or a number; K, M and G are powers of 1,024."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", value.upper())
    if match is None:
        raise ValueError(f"'{value}' is not a size: write bytes as a number or like 20MB")
    return int(float(match[1]) * UNITS[match[2]])


def parse_duration(value: object) -> object:
    """Seconds from `10m`, `14d` or a number."""
    return duration(value) if isinstance(value, str) else value


def split_patterns(text: str) -> list[str]:
    """The parts between commas; a comma inside brackets belongs to its pattern: `^make -j[0-9]{1,2}$`."""
    parts = [""]
    inside: list[str] = []
    for piece in re.findall(r"\\.|.", text, re.DOTALL):
        if piece == "," and not inside:
            parts.append("")
            continue
        parts[-1] += piece
        if inside and piece == inside[-1]:
            inside.pop()
        elif piece in BRACKETS and inside[-1:] != ["]"]:
            inside.append(BRACKETS[piece])
    return [part.strip() for part in parts]


def parse_patterns(value: object) -> object:
    """Patterns from a comma-separated text; each must be a valid regular expression."""
    patterns = split_patterns(value) if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple) or not all(isinstance(pattern, str) for pattern in patterns):
        return patterns
    if not any(patterns):
        raise ValueError("it is empty, which would allow nothing; unset it to allow every command")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"'{pattern}' is not a regular expression ({error})") from None
    return tuple(pattern for pattern in patterns if pattern)


def parse_policy(value: object) -> object:
    """A table, or the path of a file that holds one as `[policy]`."""
    return Path(value).expanduser() if isinstance(value, str) and value.strip() else value


def parse_hosts(value: object) -> object:
    """Host names and addresses from a comma-separated text. No wildcards: one would disable the check."""
    if parse_none(value) is None:
        return None
    hosts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(hosts, list | tuple):
        return hosts
    for host in hosts:
        if not (isinstance(host, str) and re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host)):
            raise ValueError(f"{host!r} is not a host name or address, without port")
    return tuple(hosts)


def parse_names(value: object) -> object:
    """Names from a comma-separated text."""
    if parse_none(value) is None:
        return None
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def parse_places(value: object) -> object:
    """Other hosts by their names in the person's ssh configuration, from a comma-separated text or a table."""
    if parse_none(value) is None:
        return {}
    hosts = {part.strip(): {} for part in value.split(",")} if isinstance(value, str) else value
    for name in hosts if isinstance(hosts, dict) else ():
        if not HOST.fullmatch(str(name)):
            raise ValueError(f"'{name}' is not the name of a host: letters, digits, `.`, `_`, `@` and `-`")
    return hosts


def parse_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


def parse_groups(value: object) -> object:
    """Limits of groups from `tests=4, build=1`."""
    if not isinstance(value, str) or parse_none(value) is None:
        return parse_none(value)
    parts = [part.partition("=") for part in value.split(",") if part.strip()]
    return {name.strip(): limit.strip() for name, _, limit in parts}


Limit = Annotated[int, Field(ge=0, le=1000)]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
TOTAL_JOBS = 50
SHOWN = 60
"""Characters of a wrong value in a message."""


class HostSettings(BaseModel):
    """`[hosts.NAME]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dir: str = ""
    """Where tmuxjobs keeps its state there; empty for the usual place."""


class Settings(BaseModel):
    """From arguments, then `TMUXJOBS_*` and `MCP_BG_*` variables, then `settings.toml`, then these defaults.

    Not by pydantic-settings: its import takes 90 ms, which every command would pay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: str = Field(default="mcp-jobs", pattern=r"^[A-Za-z0-9_-]+$")
    socket_name: str = Field(default="default", pattern=r"^[A-Za-z0-9_.-]+$")
    state_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("tmuxjobs")))
    max_jobs: int = Field(default=10, ge=1, le=1000)
    max_jobs_total: Annotated[int | None, BeforeValidator(parse_none)] = Field(default=None, ge=1, le=1000)
    max_total_size: Annotated[Size | None, BeforeValidator(parse_none)] = Field(default=10 << 30, ge=1 << 20)
    max_output_size: Size = Field(default=1 << 30, ge=LOG_BYTES)
    job_timeout: Annotated[Duration | None, BeforeValidator(parse_none)] = Field(default=None, gt=0)
    working_dir: Path | None = None
    allowed_commands: Annotated[tuple[str, ...] | None, BeforeValidator(parse_patterns)] = None
    policy: Annotated[dict[str, Any] | Path | None, BeforeValidator(parse_policy)] = None
    keep_jobs: int = Field(default=500, ge=0)
    keep_jobs_for: Duration = Field(default=14 * 86400.0, ge=0)
    keep_windows: int = Field(default=10, ge=0)
    keep_windows_for: Duration = Field(default=3600.0, ge=0)
    cleanup_interval: Duration = Field(default=300.0, ge=1)
    hold_for: Duration = Field(default=900.0, ge=1)
    queue: bool = False
    groups: Annotated[dict[str, Limit] | None, BeforeValidator(parse_groups)] = None
    scope: Literal["project", "all"] = "project"
    on_disconnect: Literal["keep", "kill"] = "keep"
    notify: Notify = "always"
    engine: Annotated[Literal["slurm"] | None, BeforeValidator(parse_none)] = None
    slurm_partitions: Annotated[tuple[str, ...] | None, BeforeValidator(parse_names)] = None
    host: Annotated[str | None, BeforeValidator(parse_none)] = None
    hosts: Annotated[dict[str, HostSettings], BeforeValidator(parse_places)] = Field(default_factory=dict)
    ssh: str = "ssh"
    http_hosts: Annotated[tuple[str, ...] | None, BeforeValidator(parse_hosts)] = None
    on_end: Annotated[str | None, BeforeValidator(parse_none)] = None
    _policy_in_file: bool | None = PrivateAttr(None)

    @property
    def total_jobs(self) -> int:
        """How many jobs may run at once on this machine, of all callers."""
        return self.max_jobs_total or max(TOTAL_JOBS, self.max_jobs)

    @model_validator(mode="before")
    @classmethod
    def from_everywhere(cls, given: dict[str, Any]) -> dict[str, Any]:
        return fitting(everywhere(given))

    @property
    def total_size_given(self) -> bool:
        """Whether the size of all logs together was set: then each start enforces it."""
        return self.max_total_size is not None and "max_total_size" in self.model_fields_set

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings in force; raises SettingsError with one line that names the variable and what is wrong."""
        refuse_unknown(os.environ)
        try:
            settings = cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            value = everywhere(given).get(name, first["input"])
            raise refusal(name, given, why(first, value)) from None
        for name in ("state_dir", "working_dir"):
            if "\0" in str(getattr(settings, name)):
                raise refusal(name, given, "it holds a NUL character")
        if settings.working_dir is not None and not os.path.isdir(settings.working_dir):
            raise refusal("working_dir", given, f"'{settings.working_dir}' is not a directory")
        if settings.total_size_given and (settings.max_total_size or 0) < 2 * settings.max_output_size:
            raise refusal("max_total_size", given, "it must be at least twice max_output_size")
        if not settings.state_dir.is_absolute():
            raise refusal("state_dir", given, f"'{settings.state_dir}' is not an absolute path")
        if settings.policy is not None:
            settings.policies(Path.cwd(), agent=True)
        return settings

    @property
    def policy_file(self) -> Path:
        """Where the person's policy is, if it is in a file."""
        return self.policy if isinstance(self.policy, Path) else config_file()

    @property
    def policy_changed_at(self) -> int:
        """When that file was last written, in ns; a rule may have been added to it."""
        with contextlib.suppress(OSError):
            return self.policy_file.stat().st_mtime_ns
        return 0

    def policies(self, folder: Path, *, agent: bool) -> "list[Policy]":
        """The policies for a caller in that folder; for a person only the list of patterns. Raises SettingsError."""
        in_projects = project_files(folder) if agent else []
        if self.allowed_commands is None and not in_projects and not (agent and self.policy is not None):
            return []
        from tmuxjobs.policy.load import Table, pattern_policy, policy_of, table_in  # needed only here

        project = Path(project_of(folder))
        tables: list[Table | None] = []
        if agent and isinstance(self.policy, Path):
            tables.append(table_in(self.policy, needed=True))
        elif agent and isinstance(self.policy, dict):
            if self._policy_in_file is None:
                self._policy_in_file = in_file().get("policy") == self.policy
            known = tuple(type(self).model_fields)
            ours = table_in(config_file(), known=known, needed=True) if self._policy_in_file else None
            tables.append(ours or Table(self.policy, "policy", "", config_file().parent))
        found = [policy_of(table, project) for table in tables if table is not None]
        if self.allowed_commands is not None:
            found.append(pattern_policy(self.allowed_commands, "allowed_commands", project))
        narrower = [table_in(path, known=("jobs", "groups")) for path in in_projects]
        for table in narrower:
            if table is not None:
                found.append(policy_of(table, project, default="allow", narrows=bool(found)))
        return found


def project_files(folder: Path) -> list[Path]:
    """The `tmuxjobs.toml` of each folder from that one up to the project's root."""
    here, root = Path(os.path.realpath(folder)), project_of(folder)
    between = [one for one in (here, *here.parents) if one.is_relative_to(root)]
    return [one / PROJECT_FILE for one in between if os.path.lexists(one / PROJECT_FILE)]


def everywhere(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments override variables, which override the file."""
    return in_file() | {name: os.environ[variable] for name, variable in in_variables(os.environ).items()} | {**given}


def fitting(found: dict[str, Any]) -> dict[str, Any]:
    """The settings, with a smaller limit for one log if the limit for all logs is small and none was set for one."""
    with contextlib.suppress(ValueError):  # pydantic reports it better
        total = parse_size(found.get("max_total_size"))
        if isinstance(total, int) and "max_output_size" not in found and total < 2 << 30:
            return found | {"max_output_size": max(LOG_BYTES, total // 2)}
    return found


def config_file() -> Path:
    return Path(platformdirs.user_config_dir("tmuxjobs")) / "settings.toml"


def in_file() -> dict[str, Any]:
    """What the person's file sets; raises SettingsError if it cannot be read: no restriction may silently be lost."""
    try:
        return files.toml(config_file())[1]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (Odd, OSError) as error:
        raise SettingsError(f"{config_file()} cannot be read: {files.why(error)}.") from None


def in_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """{setting: the variable that gives it}."""
    older = {name: variable for name, variable in SEED.items() if variable in environ}
    return older | {name: ours(name) for name in Settings.model_fields if ours(name) in environ}


def ours(name: str) -> str:
    return f"TMUXJOBS_{name.upper()}"


def refusal(name: str, given: Mapping[str, Any], said: str) -> SettingsError:
    where = name if name in given else in_variables(os.environ).get(name, f"{name} in {config_file()}")
    return SettingsError(f"{where} cannot be used: {said}{'' if said.endswith('?') else '.'}")


def why(error: ErrorDetails, given: object) -> str:
    """What is wrong with a value, which is quoted, shortened if it is long."""
    limits = error.get("ctx", {})
    shown = f"{given:#x}" if isinstance(given, int) and abs(given) >= 1 << 64 else str(given)  # str() has a limit
    value = f"'{shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}'"
    match error["type"]:
        case "extra_forbidden":
            nearest = near(str(error["loc"][0]))
            return f"there is no such setting{f'; did you mean {nearest}?' if nearest else ''}"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "int_parsing" | "int_type" | "int_from_float":
            return f"{value} is not a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return f"{value} is not a number"
        case "greater_than_equal":
            return f"{value} is too small, the least is {limits['ge']:g}"
        case "less_than_equal":
            return f"{value} is too much, the most is {limits['le']:g}"
        case "greater_than":
            return f"{value} is too small, it must be more than {limits['gt']:g}"
        case "string_pattern_mismatch":
            return f"{value} has other characters than letters, digits, `-` and `_`"
        case "literal_error":
            return f"{value} is not one of {limits['expected'].replace(' or ', ', ')}"
        case _:
            return f"{value}: {error['msg'][0].lower()}{error['msg'][1:]}"


def near(name: str) -> str:
    """The setting whose name is nearest, or an empty text."""
    return "".join(get_close_matches(name.lower(), Settings.model_fields, n=1))


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raises SettingsError for an unknown variable: a misspelt restriction must not silently be lost."""
    known = {ours(name) for name in Settings.model_fields}
    for name in sorted(environ):
        if name.startswith("TMUXJOBS_") and name not in known | IN_HOOKS | {IN_JOBS, IN_OURS, MARK_IN_JOBS}:
            nearest = near(name.removeprefix("TMUXJOBS_"))
            others = f"did you mean {ours(nearest)}?" if nearest else f"there are {', '.join(sorted(known))}."
            raise SettingsError(f"{name} is not a setting; {others}")
        if name.startswith("MCP_BG_") and name not in SEED.values():
            raise SettingsError(f"{name} is not a setting; there are {', '.join(sorted(SEED.values()))}.")
