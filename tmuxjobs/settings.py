"""Every setting, path and default. A wrong value stops the start with one line; nothing falls back."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import platformdirs
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tmuxjobs.errors import SettingsError

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
IN_JOBS = "TMUXJOBS_JOB_ID"
"""Set in every job's environment; the one TMUXJOBS_ name that is no setting."""


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


def parse_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


Size = Annotated[int, BeforeValidator(parse_size)]


def names(name: str, *seed: str) -> Any:
    """The variables a value may come from, ours and the seed's; in TOML and in Python it has the field's name."""
    return AliasChoices(f"TMUXJOBS_{name.upper()}", *(f"MCP_BG_{other}" for other in seed))


class Settings(BaseSettings):
    """From arguments, then `TMUXJOBS_*` and `MCP_BG_*` variables, then `settings.toml`, then these defaults."""

    # The prefix keeps a variable that is called like a field, `session`, from being one of ours.
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", case_sensitive=True, populate_by_name=True, env_prefix="TMUXJOBS_"
    )

    session: str = Field(default="mcp-jobs", validation_alias=names("session"), pattern=r"^[A-Za-z0-9_-]+$")
    socket_name: str = Field(default="default", validation_alias=names("socket_name"), pattern=r"^[A-Za-z0-9_.-]+$")
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("tmuxjobs")), validation_alias=names("state_dir")
    )
    max_jobs: int = Field(default=10, ge=1, le=1000, validation_alias=names("max_jobs", "MAX_JOBS"))
    max_output_size: Size = Field(
        default=64 << 20, ge=65536, validation_alias=names("max_output_size", "MAX_OUTPUT_SIZE")
    )
    job_timeout: Annotated[float | None, BeforeValidator(parse_none)] = Field(
        default=None, gt=0, validation_alias=names("job_timeout", "JOB_TIMEOUT")
    )
    working_dir: Path | None = Field(default=None, validation_alias=names("working_dir", "WORKING_DIR"))
    allowed_commands: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(parse_patterns)] = Field(
        default=None, validation_alias=names("allowed_commands", "ALLOWED_COMMANDS")
    )
    keep_jobs: int = Field(default=500, ge=0, validation_alias=names("keep_jobs"))
    keep_jobs_for: float = Field(default=14 * 86400.0, ge=0, validation_alias=names("keep_jobs_for"))
    keep_windows: int = Field(default=10, ge=0, validation_alias=names("keep_windows"))
    keep_windows_for: float = Field(default=3600.0, ge=0, validation_alias=names("keep_windows_for"))
    cleanup_interval: float = Field(default=300.0, ge=1, validation_alias=names("cleanup_interval", "CLEANUP_INTERVAL"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings in force; raises SettingsError with one line that names the variable and what is wrong."""
        refuse_unknown(os.environ)
        try:
            settings = cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = given_as(str(first["loc"][0]), os.environ)
            said = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{where} can not be used: {said[0].lower() + said[1:]}.") from None
        except (OSError, ValueError) as error:
            raise SettingsError(f"{config_file()} can not be read: {error}.") from None
        if settings.working_dir is not None and not settings.working_dir.is_dir():
            where = given_as("TMUXJOBS_WORKING_DIR", os.environ)
            raise SettingsError(f"{where} can not be used: '{settings.working_dir}' is no folder.")
        if not settings.state_dir.is_absolute():
            where = given_as("TMUXJOBS_STATE_DIR", os.environ)
            raise SettingsError(f"{where} can not be used: '{settings.state_dir}' is not an absolute path.")
        return settings


def config_file() -> Path:
    return Path(platformdirs.user_config_dir("tmuxjobs")) / "settings.toml"


def given_as(name: str, environ: Mapping[str, str]) -> str:
    """Where the value came from that pydantic calls by its first name."""
    seed = name.replace("TMUXJOBS_", "MCP_BG_")
    if name in environ or seed in environ:
        return name if name in environ else seed
    return f"{name.removeprefix('TMUXJOBS_').lower()} in {config_file()}" if seed != name else name


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt variable must not be a restriction that silently is none."""
    known = {f"TMUXJOBS_{name.upper()}" for name in Settings.model_fields} | {IN_JOBS}
    for name in sorted(environ):
        if name.startswith("TMUXJOBS_") and name not in known:
            raise SettingsError(f"{name} is no setting; there are {', '.join(sorted(known - {IN_JOBS}))}.")
