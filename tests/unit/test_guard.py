"""The tests' own guard: nothing in a test reaches the user's tmux, jobs or home."""

import os
import pwd
import tempfile
from pathlib import Path

import platformdirs


def test_home_and_every_user_directory_is_the_tests_own(isolated: Path) -> None:
    user = platformdirs.PlatformDirs("tmuxjobs")
    directories = [
        user.user_state_path,
        user.user_config_path,
        user.user_cache_path,
        user.user_data_path,
        user.user_runtime_path,
    ]
    for directory in [Path.home(), Path(tempfile.gettempdir()), *directories]:
        assert directory.is_relative_to(isolated)
    assert not isolated.is_relative_to(pwd.getpwuid(os.getuid()).pw_dir)


def test_no_variable_leads_outside(isolated: Path) -> None:
    leading = {name: value for name, value in os.environ.items() if name.startswith(("TMUX", "MCP_BG_", "LC_"))}
    assert leading == {"TMUX_TMPDIR": str(isolated)}


def test_socket_path_is_short_and_private(isolated: Path) -> None:
    assert len(f"{isolated}/tmux-{os.getuid()}/a-socket-with-a-long-name") < 100
    assert isolated.stat().st_mode & 0o777 == 0o700
