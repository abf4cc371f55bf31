"""The quick form of `hosts.py`; a failure prints its seed."""

import subprocess
import sys
from pathlib import Path

import pytest
from far import need_far_machine
from support import needs

SCRIPT = Path(__file__).with_name("hosts.py")


@pytest.mark.timeout(900)
def test_jobs_on_hosts_lose_nothing_and_are_told_truly_whatever_is_cut() -> None:
    need_far_machine()
    needs("ip")
    line = [sys.executable, str(SCRIPT), "24", "20", "--pause", "1"]
    done = subprocess.run(line, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
