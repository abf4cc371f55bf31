"""A Slurm for tests: one node on 127.0.0.1, from what is installed or what conf/install.sh has unpacked."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from support import wait_until

LOCAL = Path(sys.prefix) / "debian"
"""Where conf/install.sh has unpacked Debian's packages."""
LIBRARIES = [*(LOCAL / "usr" / "lib").glob("*-linux-gnu"), *(LOCAL / "usr" / "lib").glob("*-linux-gnu/slurm-wlm")]
CONF = """
ClusterName=tmuxjobs
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock
{plugins}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SrunPortRange={srun_ports}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=sched_min_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Default=YES Nodes=ALL MaxTime=INFINITE PriorityTier=2
PartitionName=low Nodes=ALL PriorityTier=1
"""


class Cluster:
    """munged, slurmctld and slurmd of our own, on 127.0.0.1; they end with this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        paths = [*(str(LOCAL / "usr" / name) for name in ("bin", "sbin")), os.environ["PATH"], "/usr/sbin"]
        self.environ = {"PATH": ":".join(paths), "SLURM_CONF": str(folder / "slurm.conf")}
        if LIBRARIES:
            self.environ["LD_LIBRARY_PATH"] = ":".join(map(str, LIBRARIES))

    def program(self, *names: str) -> str | None:
        return next(filter(None, (shutil.which(name, path=self.environ["PATH"]) for name in names)), None)

    def named(self, name: str, program: str) -> str:
        """The path of the program under Slurm's own name, by which newer ones know what they are."""
        link = self.folder / name
        link.symlink_to(program)
        return str(link)

    def start(self, name: str, *argv: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            # Not of a test's folder, which ends what was started in it.
            self.processes[name] = subprocess.Popen(
                argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=with_us
            )

    def run(self, *argv: str) -> str:
        environ = os.environ | self.environ
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60).stdout.strip()

    def state(self, job_id: str) -> str:
        """In Slurm's own word; empty for a job that it does not know."""
        return self.run(self.program("squeue") or "", "-h", "--states=all", f"--name={job_id}", "-o", "%T")

    def start_all(self) -> str:
        """Start all; answers with why it cannot be."""
        munged, controller = self.program("munged"), self.program("slurmctld", "slurmctld-wlm")
        slurmd, stepd = self.program("slurmd", "slurmd-wlm"), self.program("slurmstepd", "slurmstepd-wlm")
        if not (munged and controller and slurmd and stepd):
            return "Slurm is not installed (Debian: slurmctld, slurmd, slurm-client, munge)."
        # With NoInAddrAny each of Slurm's programs listens where this name leads.
        host, address = socket.gethostname().split(".")[0], ""
        with contextlib.suppress(OSError):
            address = socket.gethostbyname(host)
        if address != "127.0.0.1":
            return (
                f"Slurm cannot be kept to 127.0.0.1: this machine's name, {host}, leads to {address or 'no address'}."
            )
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "spool").mkdir()
        port = free_ports()
        plugins = [f"PluginDir={folder}" for folder in LIBRARIES if folder.name == "slurm-wlm"]
        facts = {"port": port, "slurmd_port": port + 1, "srun_ports": f"{port + 2}-{port + 99}"}
        facts |= {"host": host, "user": psutil.Process().username()}
        conf = CONF.format(folder=self.folder, plugins="".join(plugins), **facts)
        (self.folder / "slurm.conf").write_text(conf)
        key = self.folder / "munge.key"
        key.write_bytes(random.randbytes(128))
        key.chmod(0o600)
        files = {"key-file": key, "socket": self.folder / "munge.sock"}
        files |= {f"{name}-file": self.folder / f"munge.{name}" for name in ("pid", "log", "seed")}
        self.start("munged", munged, "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        wait_until(files["socket"].exists)
        self.start("slurmctld", self.named("slurmctld", controller), "-D", "-i")
        step = self.named("slurmstepd", stepd)
        self.start("slurmd", self.named("slurmd", slurmd), "-D", "-N", "n1", "-d", step)
        try:
            wait_until(lambda: self.run(self.program("sinfo") or "", "-h", "-o", "%T"), lambda text: "idle" in text)
        except AssertionError:
            logs = [line for path in self.folder.glob("*.log") for line in path.read_text().splitlines()]
            return "Slurm does not start here: " + next((line for line in logs if "fatal" in line), "it is not idle.")
        return ""

    def end(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_ports() -> int:
    """The first of a hundred, below those that the kernel gives to others."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("", port))
            two.bind(("", port + 1))
            return port
    raise AssertionError("there are no free ports")
