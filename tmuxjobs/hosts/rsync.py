"""Folders to and from another host, by rsync over its kept connection. Knows no jobs.

Names are sent as NUL-terminated lists, and paths over the connection, so that no shell and no pattern expands them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmuxjobs import files
from tmuxjobs.errors import HostError, InvalidInput
from tmuxjobs.store import disk
from tmuxjobs.store.index import slug

if TYPE_CHECKING:
    from tmuxjobs.hosts.ssh import RemoteHost

COPY_BYTES = 2 * 10**9
"""The largest copy; anything larger a person copies."""
SILENT_S = 20
"""Seconds without data after which rsync gives up."""
LIST_S = 20.0
LIST_BYTES = 1 << 26
END_S = 2.0
PARTIAL = ".tmuxjobs-partial"
"""Holds a file that was cut off, in the folder where it belongs: the next copy continues it."""
OPTIONS = ["-s", "--links", "--perms", "--times", "--omit-dir-times", "--from0", "--files-from=-"]
COPYING = [f"--partial-dir={PARTIAL}", "--info=progress2", "--outbuf=N"]
"""It reports its progress each second, so that it ends when no process is left that reads that."""
LEAST = (3, 1)
VANISHED = 24
"""The exit code of rsync when files vanished while it copied."""
SKIPPED = re.compile(r'(ignoring unsafe symlink|skipping non-regular file) "(.*?)"( -> ".*")?')
LEFT_OUT = {
    "ignoring unsafe symlink": "a link that leads out of the folder",
    "skipping non-regular file": "not a regular file",
}
RSH = """
shift; exec 3>&1
code=$({{ {{ {ssh} "printf '\\n%s\\n' {mark}; exec $*" 3>&- 4>&-; echo $? >&4; }} | {{
    while IFS= read -r line && [ "$line" != {mark} ]; do :; done; exec cat >&3 4>&-; }}
}} 4>&1)
exit $code
"""
"""What rsync runs as ssh: it drops what a login script there may print first."""
NEVER = ["[.][gG][iI][tT]", "[tT][mM][uU][xX][jJ][oO][bB][sS].[tT][oO][mM][lL]"]
"""Names that are not copied here if the caller checks what is."""
UNTOLD = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX"}


def copy_of(host: RemoteHost, source: Path) -> str:
    """The folder there that has the copy of that folder here."""
    digest = hashlib.sha256(f"{host.home.machine.here().machine}\0{source}".encode(errors="surrogateescape"))
    return f"{host.facts['state']}/files/{slug(source.name)}-{digest.hexdigest()[:8]}"


def make(host: RemoteHost, *folders: str) -> None:
    """Make private folders for copies; raises HostError."""
    host.machine.place(list(folders))


def send(host: RemoteHost, source: Path, bound_s: float) -> None:
    """Bring the copy of a folder up to date: send what git would keep of it, and remove what was sent and is gone.

    Raises InvalidInput for a folder that cannot be copied, and HostError when the copy is incomplete.
    """
    found = listed(source)
    size = sum(_size(source, name) for name in found)
    if not found:
        raise InvalidInput(f"There is nothing to copy in '{source}': it is empty, or .gitignore names all of it.")
    if size > COPY_BYTES:
        raise InvalidInput(
            f"'{source}' has {size / 1e9:.1f} GB to copy, and {COPY_BYTES / 1e9:.0f} GB is the most: name in "
            ".gitignore what is not needed there."
        )
    copy = copy_of(host, source)
    known = host.store.root / f"sent-{copy.rpartition('-')[2]}"
    sent = set[bytes]()
    with contextlib.suppress(OSError, files.Odd):  # nothing was sent yet
        sent = set(files.read(known, LIST_BYTES).split(b"\0")) - {b"", *found}
    gone = {name for name in sent if _is_gone(source, name)}
    disk.replace(host.store.root, known, b"\0".join([*found, *sent]))
    # Before the rest, for a folder may have a file's name now. rsync's `--delete-missing-args` is refused by versions
    # of 2026 that check what arrives (its issue 910).
    if gone:
        host.machine.forget_files(copy, [os.fsdecode(name) for name in sorted(gone)])
    _run(host, [*COPYING, "--", f"{source}/", f"far:{copy}/"], found, bound_s, "copied to")
    disk.replace(host.store.root, known, b"\0".join(found))


def fetch(
    host: RemoteHost,
    folder: str,
    names: Sequence[str],
    to: Path,
    bound_s: float,
    check: Callable[[Path], None] | None = None,
) -> tuple[int, list[str], list[str]]:
    """Copy these names from a folder there into one here.

    Returns the bytes and the names of what was not here, and what was left out with the reason: links that lead out
    of what is copied, and what is not a file, a folder or a link. `check` raises for a path that may not be written.
    Raises HostError and InvalidInput.
    """
    wanted = [os.fsencode(name) for name in names]
    options = ["--recursive", "--safe-links", "--no-implied-dirs"]
    ends = ["--", f"far:{folder}/", f"{to}/"]
    listing = ["--dry-run", "--out-format=%l %n", "--info=name,nonreg,symsafe"]
    said = _run(host, [*options, *listing, *ends], wanted, bound_s, "fetched from")
    left = [f"{kept[2]} ({LEFT_OUT[kept[1]]})" for line in said.splitlines() if (kept := SKIPPED.fullmatch(line))]
    found = [line.split(" ", 1) for line in said.splitlines() if re.match(r"\d+ .*[^/]$", line)]
    size = sum(int(bytes_) for bytes_, _ in found)
    if size > COPY_BYTES:
        raise InvalidInput(
            f"That is {size / 1e9:.1f} GB, and {COPY_BYTES / 1e9:.0f} GB is the most: name fewer files, or copy it "
            f"yourself from '{folder}' on host '{host.name}'."
        )
    if found and check is not None:
        for _, name in found:
            check(to / name)
        options += [f"--exclude={pattern}" for pattern in NEVER]  # there may be more by now
    if found:
        to.mkdir(parents=True, exist_ok=True)
        _run(host, [*options, *COPYING, *ends], wanted, bound_s, "fetched from")
    return size, [name for _, name in found], left


def listed(source: Path) -> list[bytes]:
    """The files of a folder that .gitignore does not exclude, as git lists them, whether or not it is a repository."""
    with tempfile.TemporaryDirectory() as empty:
        inside = _git(source, "rev-parse", "--is-inside-work-tree").returncode == 0
        apart: Sequence[str] = ()
        if not inside:
            _git(Path(empty), "init", "--quiet", "--bare", ".")
            apart = [f"--git-dir={empty}", f"--work-tree={source}"]
        done = _git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard", before=apart)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidInput(f"git cannot list the files of '{source}': {why[0] if why else 'it does not say why'}.")
    found: dict[bytes, None] = {}
    for name in filter(None, done.stdout.split(b"\0")):
        path = Path(os.fsdecode(os.path.join(os.fsencode(source), name.rstrip(b"/"))))
        if path.is_dir() and not path.is_symlink():  # a repository in it
            found |= {os.path.join(name, one): None for one in listed(path)}
        elif os.path.lexists(path):
            found[name] = None
    return [*found]


def _git(folder: Path, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
    environ = {key: value for key, value in os.environ.items() if key not in UNTOLD}
    # A repository may name a program that git runs each time.
    argv = ["git", "-c", "core.fsmonitor=false", *before, *words]
    try:
        return subprocess.run(
            argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIST_S
        )
    except FileNotFoundError:
        raise InvalidInput("git is not installed here, and is needed to list the files to copy.") from None
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"git has not listed the files of '{folder}' within {LIST_S:.0f} s.") from None


def _size(source: Path, name: bytes) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(os.path.join(os.fsencode(source), name)).st_size
    return 0


def _is_gone(source: Path, name: bytes) -> bool:
    try:
        os.lstat(os.path.join(os.fsencode(source), name))
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def _run(host: RemoteHost, words: Sequence[str], names: Iterable[bytes], bound_s: float, what: str) -> str:
    """Run rsync with these names, within a bound; returns what it prints."""
    far = program(host)
    mark = f"tmuxjobs-{secrets.token_hex(8)}"
    *ssh, _ = host.connection().argv("-T", "")
    rsh = RSH.format(ssh=shlex.join(ssh), mark=mark)
    argv = ["rsync", *OPTIONS, f"--timeout={SILENT_S}", f"--rsync-path={shlex.quote(far)}"]
    argv += ["-e", "sh -c 'eval \"$TMUXJOBS_RSH\"' sh", *words]
    environ = {**os.environ, "TMUXJOBS_RSH": rsh, "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    why = ""
    try:
        out, said = process.communicate(b"".join(b"./%s\0" % name for name in names), timeout=bound_s)
        if process.returncode not in (0, VANISHED):
            why = _why(said.decode(errors="replace"), process.returncode)
    except subprocess.TimeoutExpired:
        why = f"that takes longer than {bound_s:.0f} s; the next copy continues where this one stopped"
    finally:
        _end(process)
    if why:
        raise HostError(f"The files were not completely {what} host '{host.name}': {why}.")
    return out.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End rsync with its ssh, if it has not ended; it keeps the part of a file that has come."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _why(said: str, code: int) -> str:
    """The reason that rsync, or its ssh, gave: the first line, for the last ones only say where it gave up."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = re.sub(r"^rsync: (\[\w+(=[\d.]+)?\] )?", "", lines[0]) if lines else f"rsync ended with code {code}"
    return text.rstrip(".")


def program(host: RemoteHost) -> str:
    """The path of rsync there, once both sides are known to have it; raises InvalidInput and HostError."""
    if shutil.which("rsync") is None:
        raise InvalidInput("rsync is not installed here, and is needed to copy files: install it.")
    version = subprocess.run(["rsync", "--version"], capture_output=True, timeout=LIST_S).stdout
    if not _is_new(version):
        raise InvalidInput(f"rsync {LEAST[0]}.{LEAST[1]} or newer is needed here; this is an older or a different one.")
    far: str = host.machine.program("rsync", host.environ.get("PATH", os.defpath))
    if not far:
        raise HostError(f"Host '{host.name}' has no rsync, which is needed to copy files: install it there.")
    _, version = host.ask("run", argv=[far, "--version"], env={}, timeout=LIST_S, bound_s=LIST_S)
    if not _is_new(version):
        raise HostError(f"Host '{host.name}' needs rsync {LEAST[0]}.{LEAST[1]} or newer.")
    return far


def _is_new(version: bytes) -> bool:
    found = re.match(rb"rsync +version v?(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= LEAST
