"""Every setting, path and default. A wrong value stops the start with one line; nothing falls back."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tmuxjobs import files
from tmuxjobs.contract import IN_HOOKS, IN_JOBS, IN_OURS, MARK_IN_JOBS
from tmuxjobs.errors import SettingsError
from tmuxjobs.files import Odd
from tmuxjobs.models import Notify

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SEED = {
    name: f"MCP_BG_{name.upper()}"
    for name in ("max_jobs", "max_output_size", "job_timeout", "working_dir", "allowed_commands", "cleanup_interval")
}
"""Older variables, of the server that this one replaces; ours win over them."""


def parse_size(value: object) -> object:
    """Bytes from `20MB`, `64 MiB` or a number; K, M and G are powers of 1,024."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", value.upper())
    if match is None:
        raise ValueError("write bytes as a number or like 20MB")
    return int(float(match[1]) * UNITS[match[2]])


def parse_patterns(value: object) -> object:
    """Patterns from a comma-separated text; each must be a valid regular expression."""
    patterns = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
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


def parse_hosts(value: object) -> object:
    """Host names and addresses from a comma-separated text. No wildcards: one would end the check."""
    if parse_none(value) is None:
        return None
    hosts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(hosts, list | tuple):
        return hosts
    for host in hosts:
        if not (isinstance(host, str) and re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host)):
            raise ValueError(f"{host!r} is not a host name or address, without port")
    return tuple(hosts)


def parse_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


Size = Annotated[int, BeforeValidator(parse_size)]


class Settings(BaseModel):
    """From arguments, then `TMUXJOBS_*` and `MCP_BG_*` variables, then `settings.toml`, then these defaults.

    Not by pydantic-settings: its import takes 90 ms, which every command would pay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: str = Field(default="mcp-jobs", pattern=r"^[A-Za-z0-9_-]+$")
    socket_name: str = Field(default="default", pattern=r"^[A-Za-z0-9_.-]+$")
    state_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("tmuxjobs")))
    max_jobs: int = Field(default=10, ge=1, le=1000)
    max_output_size: Size = Field(default=64 << 20, ge=65536)
    max_total_size: Annotated[Size | None, BeforeValidator(parse_none)] = Field(default=None, ge=1 << 20)
    job_timeout: Annotated[float | None, BeforeValidator(parse_none)] = Field(default=None, gt=0)
    working_dir: Path | None = None
    allowed_commands: Annotated[tuple[str, ...] | None, BeforeValidator(parse_patterns)] = None
    keep_jobs: int = Field(default=500, ge=0)
    keep_jobs_for: float = Field(default=14 * 86400.0, ge=0)
    keep_windows: int = Field(default=10, ge=0)
    keep_windows_for: float = Field(default=3600.0, ge=0)
    cleanup_interval: float = Field(default=300.0, ge=1)
    hold_for: float = Field(default=900.0, ge=1)
    notify: Notify = "always"
    http_hosts: Annotated[tuple[str, ...] | None, BeforeValidator(parse_hosts)] = None
    on_end: Annotated[str | None, BeforeValidator(parse_none)] = None

    @model_validator(mode="before")
    @classmethod
    def from_everywhere(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What was given, over the variables, over the file."""
        return in_file() | {name: os.environ[variable] for name, variable in in_variables(os.environ).items()} | given

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings in force; raises SettingsError with one line that names the variable and what is wrong."""
        refuse_unknown(os.environ)
        try:
            settings = cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = first["msg"].removeprefix("Value error, ")
            raise refusal(str(first["loc"][0]), given, said[0].lower() + said[1:]) from None
        for name in ("state_dir", "working_dir"):
            if "\0" in str(getattr(settings, name)):
                raise refusal(name, given, "it holds a NUL character")
        if settings.working_dir is not None and not os.path.isdir(settings.working_dir):
            raise refusal("working_dir", given, f"'{settings.working_dir}' is not a directory")
        if settings.max_total_size is not None and settings.max_total_size < 2 * settings.max_output_size:
            raise refusal("max_total_size", given, "it must be at least twice max_output_size")
        if not settings.state_dir.is_absolute():
            raise refusal("state_dir", given, f"'{settings.state_dir}' is not an absolute path")
        return settings


def config_file() -> Path:
    return Path(platformdirs.user_config_dir("tmuxjobs")) / "settings.toml"


def in_file() -> dict[str, Any]:
    """What the person's file sets; a file that cannot be read must not be a restriction that silently is none."""
    try:
        # It may be a link into someone's dotfiles.
        return tomllib.loads(files.read(config_file(), follow=True).decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Odd as odd:
        raise SettingsError(f"{config_file()} cannot be read: it {odd}.") from None
    except RecursionError:
        raise SettingsError(f"{config_file()} cannot be read: it is nested too deeply.") from None
    except OSError as error:
        raise SettingsError(f"{config_file()} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"{config_file()} cannot be read: {' '.join(str(error).split())}.") from None


def in_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """{setting: the variable that gives it}."""
    older = {name: variable for name, variable in SEED.items() if variable in environ}
    return older | {name: ours(name) for name in Settings.model_fields if ours(name) in environ}


def ours(name: str) -> str:
    return f"TMUXJOBS_{name.upper()}"


def refusal(name: str, given: Mapping[str, Any], said: str) -> SettingsError:
    where = name if name in given else in_variables(os.environ).get(name, f"{name} in {config_file()}")
    return SettingsError(f"{where} cannot be used: {said}.")


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt variable must not be a restriction that silently is none."""
    known = {ours(name) for name in Settings.model_fields}
    for name in sorted(environ):
        if name.startswith("TMUXJOBS_") and name not in known | IN_HOOKS | {IN_JOBS, IN_OURS, MARK_IN_JOBS}:
            raise SettingsError(f"{name} is not a setting; there are {', '.join(sorted(known))}.")
