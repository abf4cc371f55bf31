"""Processes that are hard to meet, in a pid namespace of their own: one that is missed there ends with it."""

import json
import platform
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from support import NotHere, with_own_pids

FORK = "b839000000 0f05 85c0"
EXIT = "b83c000000 31ff 0f05"
CHAINS = {
    "of its group": f"{FORK} 74f5 {EXIT}",
    "each in a session of its own": f"{FORK} 7409 {EXIT} b870000000 0f05 ebe3",
}
"""Machine code for x86-64: a process that forks and ends, and its child does the same. Others take longer to fork."""
LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""A process whose first thread has ended is a zombie to those who look no further."""
TRIAL = """
import json, os, sys, time
from tmuxjobs import Jobs
from tmuxjobs.hosts.local import Host
from tmuxjobs.system import processes
host = Host.open()
jobs = Jobs(host)
job_id = jobs.execute(sys.argv[1], separate_stderr=sys.argv[2] == "apart").job_id
deadline = time.monotonic() + 60
while (run := host.store.read(job_id).run) is None or run.command_ended is None:
    if jobs.status(job_id).status != "running" or time.monotonic() > deadline:
        break
    time.sleep(0.01)
since, status = time.monotonic(), jobs.status(job_id)
while time.monotonic() - since < 0.5:
    status = jobs.status(job_id)
below = [pid for pid, facts in processes.all_processes().items() if facts.ppid == host.store.read(job_id).run.pid]
killed = jobs.kill(job_id, grace=0.5)
left = [pid for pid in below if os.path.exists(f"/proc/{pid}")]
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        left += [pid] * (os.path.basename(os.readlink(f"/proc/{pid}/exe")) == sys.argv[3])
    except OSError:
        pass
last_pid = open("/proc/sys/kernel/ns_last_pid")
forks = -int(last_pid.read())
for _ in range(200):
    jobs.status(job_id)
last_pid.seek(0)
forks += int(last_pid.read())
left += ["a chain that no look has met"] * (forks > 20)
print(json.dumps([status.detail, killed.status, len(killed.survivors), left]))
"""
BEHIND = "the command ended with exit code 0, and processes that it started can still print"


def tried(command: str, name: str, *, stderr: str = "together") -> Any:
    """What is told of a job whose command has ended, of its end by `kill`, and who of that name lives then."""
    try:
        done = with_own_pids(sys.executable, "-c", TRIAL, command, stderr, name)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the chain is machine code for x86-64")
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("stderr", ["together", "apart"])
def test_chain_of_forks_runs_until_it_is_killed(tmp_path: Path, chain: str, stderr: str) -> None:
    code = bytes.fromhex(CHAINS[chain])
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
    program = tmp_path / "chain-of-forks"
    program.write_bytes(header + segment + code)
    program.chmod(0o755)
    assert tried(f"{program} & sleep 0.1", program.name, stderr=stderr) == [BEHIND, "killed", 0, []]


def test_process_whose_first_thread_has_ended_lives(tmp_path: Path) -> None:
    program = tmp_path / "leaderless"
    program.write_text(LEADERLESS)
    assert tried(f"{sys.executable} -I -S {program} & sleep 0.5", program.name) == [BEHIND, "killed", 0, []]
