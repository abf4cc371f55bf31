"""Another machine for tests: sshd on loopback, with a machine id, boot id, host name, pids and home of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from support import wait_until

LOCAL = Path(sys.prefix) / "debian"
"""Where conf/install.sh has unpacked Debian's packages."""
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:{LOCAL}/usr/sbin")
SSH = shutil.which("ssh", path=f"{os.environ.get('PATH', '')}:{LOCAL}/usr/bin")
LIBRARIES = ":".join(map(str, (LOCAL / "usr" / "lib").glob("*-linux-gnu")))
PARTS = {"SshdSessionPath": "sshd-session", "SshdAuthPath": "sshd-auth"}
"""Programs of newer ones, which look for them where they were to be installed."""
SERVERS = ("sshd", *PARTS.values())
IS_NEWER = bool(shutil.which(SERVERS[1], path=f"/usr/lib/openssh:/usr/libexec/openssh:{LOCAL}/usr/lib/openssh"))
"""Newer ones do not let those in for minutes whom they lost before."""
LOOP = 'while :; do [ -e "$0" ] || "$@"; sleep 0.02; done'
"""What keeps sshd running: without the file of that name."""


class Far:
    """The machine of that name, reached by `ssh`, a command line."""

    def __init__(self, folder: Path, name: str = "gpu1") -> None:
        self.name = name
        self.folder = folder / ("far" if name == "gpu1" else name)
        self.home = self.folder / "home"
        self.state = self.home / "state" / "tmuxjobs"
        self.home.mkdir(parents=True, mode=0o700)
        self.environment = {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "TMUX_TMPDIR": str(self.folder),
            "SHELL": "/bin/sh",
        }
        self._down = self.folder / "down"
        self._held = held_port()
        self._port = int(self._held.getsockname()[1])
        self._write()
        self.ssh = f"{SSH} -F {self.folder}/config"
        self._process = self._start()
        wait_until(lambda: subprocess.run([*self.ssh.split(), name, "true"], capture_output=True).returncode == 0)

    def _write(self) -> None:
        for name in ("key", "host"):
            line = [
                str(Path(str(SSH)).with_name("ssh-keygen")),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                str(self.folder / name),
            ]
            subprocess.run(line, check=True)
        exports = "".join(f"export {name}='{value}'\n" for name, value in self.environment.items())
        files = {
            # sshd wants a user of that name, whom its package makes; a login of ours reads nothing of our own home.
            "passwd": f"{self._users()}sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n",
            "machine": f"{zlib.crc32(self.name.encode()):032x}\n",
            "boot": "11111111-2222-4333-8444-555555555555\n",
            "enter": f'#!/bin/sh\n{exports}unset TMUX\ncd\nexec /bin/sh -c "${{SSH_ORIGINAL_COMMAND-exec /bin/sh}}"\n',
            "sshd_config": f"ListenAddress 127.0.0.1\nPort {self._port}\nHostKey {self.folder}/host\nStrictModes no\n"
            f"AuthorizedKeysFile {self.folder}/key.pub\nUsePAM no\nPidFile none\nPasswordAuthentication no\n"
            f"ForceCommand {self.folder}/enter\nPermitRootLogin yes\nMaxStartups 100\nKexAlgorithms curve25519-sha256\n"
            + "PerSourcePenalties no\n" * IS_NEWER
            + "".join(
                f"{name} {path}\n"
                for name, part in PARTS.items()
                if (path := LOCAL / "usr/lib/openssh" / part).exists()
            ),
            "known": f"[127.0.0.1]:{self._port} {(self.folder / 'host.pub').read_text()}",
            "config": f"Host {self.name}\n HostName 127.0.0.1\n Port {self._port}\n IdentityFile {self.folder}/key\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.folder}/known\n",
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        (self.folder / "enter").chmod(0o755)

    def _users(self) -> str:
        """The machine's, with another home for who runs the tests."""
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        return "".join(
            ":".join([*user[:5], str(self.home) if user[2:3] == [str(os.getuid())] else user[5], *user[6:]]) + "\n"
            for user in users
            if len(user) > 6
        )

    def _start(self) -> "subprocess.Popen[bytes]":
        mounts = f"mount --bind {self.folder}/machine /etc/machine-id && hostname {self.name}"
        mounts += f" && mount --bind {self.folder}/boot /proc/sys/kernel/random/boot_id"
        mounts += f" && mount --bind {self.folder}/passwd /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd"
        inside = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        inside += ["sh", "-c", f"{mounts} && exec sh -c '{LOOP}' \"$@\"", "sh", str(self._down)]
        inside += [str(SSHD), "-D", "-f", f"{self.folder}/sshd_config"]
        # Its own: no login inherits them.
        environ = os.environ | ({"LD_LIBRARY_PATH": LIBRARIES} if str(SSHD).startswith(str(LOCAL)) else {})
        null = subprocess.DEVNULL
        return subprocess.Popen(inside, env=environ, stdin=null, stdout=null, stderr=null)

    def processes(self, *names: str) -> list[psutil.Process]:
        """Live processes there of those names."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() in names and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        living = self.processes(*SERVERS)
        for process in reversed(living):  # of two of one connection, the child before its parent
            with contextlib.suppress(psutil.Error):
                if process.ppid() in {one.pid for one in living}:
                    process.kill()

    def down(self) -> None:
        """End every connection, and take none until `up`."""
        self._down.touch()
        for process in self.processes(*SERVERS):
            with contextlib.suppress(psutil.Error):
                process.kill()
        wait_until(lambda: self.processes(*SERVERS), lambda left: not left)

    def up(self) -> None:
        self._down.unlink()
        wait_until(lambda: self.processes("sshd"))

    def close(self) -> None:
        """End the machine with all that runs there."""
        inner = psutil.Process(self._process.pid).children()
        for process in inner:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not inner:
            self._process.kill()
        self._process.wait()  # it waits for the first process there, which ends after all others
        self._held.close()


def held_port() -> socket.socket:
    """A port that nobody else is given until it is closed; sshd may bind it, as it names it and asks to reuse it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    return one


def together(folder: Path, machines: Sequence[Far]) -> str:
    """The command line of an ssh that reaches each of them by its name."""
    config = folder / "ssh-config"
    config.write_text("".join((one.folder / "config").read_text() for one in machines))
    return f"{SSH} -F {config}"


def far_machine(folder: Path, name: str = "gpu1") -> Far:
    """Skips the test where there can be none."""
    need_far_machine()
    return Far(folder, name)


def need_far_machine() -> None:
    if SSHD is None or SSH is None:
        pytest.skip("ssh and sshd are not installed")
    mounts = ["unshare", "--mount", "mount", "--bind", "/etc/machine-id", "/etc/machine-id"]
    if not shutil.which("unshare") or subprocess.run(mounts, capture_output=True).returncode:
        pytest.skip("namespaces of one's own are made by root on Linux, and a machine id is there to be replaced")
