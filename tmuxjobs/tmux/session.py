"""Our session on the tmux server: windows, facts, keys, the screen. Knows no jobs, only panes with a mark.

Every call is bounded, uses a named socket whatever TMUX says, and gets neither our standard input nor our locale.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tmuxjobs.contract import WELCOME, new_window
from tmuxjobs.errors import TmuxError
from tmuxjobs.tmux.panes import (
    FORMAT,
    LOOK,
    MARK,
    NOW,
    OVER,
    PLACE,
    PLACE_FORMAT,
    PLACE_OF_CURSOR,
    ROOT,
    SCREEN_FORMAT,
    AnyPane,
    Around,
    Asking,
    Client,
    Pane,
    Screen,
    page_again,
)

if TYPE_CHECKING:
    from tmuxjobs.tmux.command import Server

MINIMUM = (3, 2)
SIZE = (100, 50)
EXITED_S = 0.1
UTF8 = re.compile("utf-?8", re.IGNORECASE)


def locale_name(environ: Mapping[str, str]) -> str:
    """The locale for letters, empty when none is set; read from the same variables as tmux and the C library."""
    return next((environ[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(key)), "")


class Tmux:
    """Our session. Calls tmux only when a method needs it.

    `root` is the mark of our state directory: panes of the jobs of another are not ours.
    """

    def __init__(self, *, socket_name: str, session: str, root: str, environ: Mapping[str, str], call_s: float) -> None:
        self.call_s = call_s
        self.socket_name = socket_name
        self.session = session
        self.root = root
        self.environ = environ
        self._server: Server | None = None

    @property
    def binary(self) -> str:
        """Path of the tmux program; raises TmuxError when there is none or it is too old."""
        return self.server._binary

    @property
    def server(self) -> Server:
        if self._server is None:
            path = shutil.which("tmux", path=self.environ.get("PATH", os.defpath))
            if path is None:
                raise TmuxError("tmux is not installed: install it (apt install tmux, brew install tmux), try again.")
            path = os.path.abspath(path)
            check_version(_version(path))
            # libtmux takes 70 ms to import, and many commands do not call tmux.
            from tmuxjobs.tmux.command import Server

            self._server = Server(socket_name=self.socket_name, tmux_bin=path, env=self.environ, call_s=self.call_s)
        return self._server

    @property
    def attach(self) -> str:
        """The command a person types to see the jobs; without `-u` or a UTF-8 locale, tmux shows `_` for our marks."""
        utf8 = "" if UTF8.search(locale_name(self.environ)) else " -u"
        name = "" if self.socket_name == "default" else f" -L {self.socket_name}"
        return f"tmux{utf8}{name} attach -t {self.session}"

    def attach_argv(self, pane: Pane | None) -> list[str]:
        """The command that attaches a terminal, or, inside a client of this server, switches that client over."""
        target = pane.pane_id if pane else f"={self.session}:"
        around = self.environ.get("TMUX", "").rsplit(",", 2)[0]
        ours = self.run("display-message", "-p", "-t", target, "#{socket_path}")[0]
        if around and os.path.realpath(around) != os.path.realpath(ours):
            # Nested in a session of another server there are two status lines, and the outer one takes every prefix.
            raise TmuxError(
                f"This terminal is inside another tmux server ({around}): run `{self.attach}` in a terminal outside of "
                f"it, or here nevertheless: `TMUX= {self.attach}` (then press the prefix twice for the inner one)."
            )
        verb = "switch-client" if around else "attach-session"
        return [self.binary, "-u", f"-L{self.socket_name}", verb, "-t", target]

    def run(self, *args: str, stdin: bytes = b"", timeout: float | None = None) -> list[str]:
        """Run a tmux command and return the lines that it printed; raises TmuxError with what tmux said."""
        call = self.server.cmd(args[0], *args[1:], stdin=stdin, timeout=timeout)
        if call.returncode:
            raise TmuxError(f"tmux refused {args[0]}: {self._said(call.stderr) or f'code {call.returncode}.'}")
        return call.stdout

    def _said(self, stderr: Sequence[str]) -> str:
        """What tmux said, and what to do about a server that drops its client: 3.7 and newer drop older clients."""
        said = "; ".join(stderr)
        if "server exited unexpectedly" not in said:
            return f"{said}." if said else ""
        return (
            f"{said}. If it runs on, it is newer than {self.binary} ({self.version()}): put the tmux that started it "
            "first in PATH."
        )

    @property
    def socket(self) -> str:
        """The path of our server's socket, as tmux finds it: below TMUX_TMPDIR, or /tmp if that is not a directory."""
        folders = (self.environ.get("TMUX_TMPDIR") or "/tmp", "/tmp")
        above = next(filter(os.path.isdir, folders), "/tmp")
        return os.path.join(os.path.realpath(above), f"tmux-{os.getuid()}", self.socket_name)

    def version(self) -> str:
        """What `tmux -V` says."""
        return _version(self.binary)

    def server_option(self, name: str) -> str | None:
        """The value of a server option; None when no server runs."""
        answer = self.server.cmd("show-options", "-sv", name)
        return "".join(answer.stdout) if answer.returncode == 0 else None

    def server_pid(self) -> int | None:
        """The pid of the tmux server; None when none runs."""
        answer = self.server.cmd("display-message", "-p", "#{pid}")
        return int(answer.stdout[0]) if answer.returncode == 0 and answer.stdout else None

    def ensure_session(self, welcome: Sequence[str], look_of_it: Sequence[tuple[str, str]]) -> None:
        """Make our session if there is none, with `welcome` (an argv) in its first window, and set its options."""
        target = f"={self.session}"
        version = f"look-{zlib.crc32(repr(look_of_it).encode()):x}"
        facts = (";", "show-options", "-sv", "exit-unattached", ";", "display-message", "-p", "-t", f"{target}:", NOW)
        look = ("has-session", "-t", target, *facts)
        size = ("-x", str(SIZE[0]), "-y", str(SIZE[1]))
        make = ("new-session", "-d", "-s", self.session, *size, "-n", "jobs", "-c", "/")
        options = (("destroy-unattached", "off"), ("history-limit", "20000"), ("default-size", f"{SIZE[0]}x{SIZE[1]}"))
        # In the creating call: a global `destroy-unattached on` would end it at once.
        keep = (*_setting(f"{target}:", options), ";", "set-option", "-F", "-t", f"{target}:", WELCOME, "#{pane_id}")
        dress = _setting(f"{target}:", (*look_of_it, (LOOK, version)))
        for attempt in range(5):
            answer = self.server.cmd(*look)
            if answer.returncode:
                # If another process made it first, the next check finds it; a server that is ending is tried again.
                made = self.server.cmd(*make, *welcome, *keep, *facts)
                answer = made if made.returncode == 0 else answer
            if answer.returncode == 0:
                break
            time.sleep(0.02 * attempt)
        else:
            raise TmuxError(f"tmux cannot hold the session {self.session}: {self._said(made.stderr)}")
        if "on" in answer.stdout:
            self.server.cmd("kill-session", "-t", target)
            raise TmuxError(
                "tmux's server option exit-unattached is on, so tmux would end with every job when nobody is attached; "
                "set it off (tmux set -s exit-unattached off) and try again."
            )
        look_now, *page = answer.stdout[-1].split(" ")
        if version != look_now:
            self.server.cmd(*dress[1:])
        if len(page) == 1 and page[0]:  # without `there`
            self.server.cmd(*page_again(f"{target}:", welcome, page[0]))

    def open_window(self, name: str, argv: Sequence[str], *, line: str | None, answered: Callable[[], None]) -> Opening:
        """Start a window that runs `argv` for the job of that name; a thread calls `answered` once tmux has answered.

        `line` gets its output. A person's hook may delay the answer, for which nobody waits.
        """
        opening = Opening(answered)
        command = new_window(self.session, name, self.root, [*argv], secrets.token_hex(8), line)
        thread = threading.Thread(target=opening.call, args=(self, command), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            opening.error = TmuxError("No thread can be started: the machine is out of processes or memory.")
        return opening

    def panes(self, *, timeout: float | None = None) -> dict[str, Pane]:
        """{job id: pane} of every pane with the mark of a job of ours; empty without a server or a session.

        It may be in any session. A pane of another state directory may have the same id; one of 0.1.0 names none.
        """
        for last in (False, False, True):
            call = self.server.cmd("list-panes", "-a", "-f", f"#{{{MARK}}}", "-F", FORMAT, timeout=timeout)
            # Of several servers that start at once, all but one end again.
            if last or "server exited" not in " ".join(call.stderr):
                break
            time.sleep(EXITED_S)
        if call.returncode:
            if re.search("no server|error connecting|no current target", " ".join(call.stderr)):
                return {}
            raise TmuxError(f"tmux refused list-panes: {self._said(call.stderr)}")
        panes: dict[str, Pane] = {}
        for line in call.stdout:
            job_id, root, pane_id, window_id, tty, dead, piped, in_mode, viewers, alternate, project = line.split("\t")
            if root not in ("", self.root) or (not root and job_id in panes):
                continue
            panes[job_id] = Pane(
                job_id=job_id,
                pane_id=pane_id,
                window_id=window_id,
                tty=tty,
                dead=dead == "1",
                piped=piped == "1",
                in_mode=in_mode not in ("", "0"),
                viewers=int(viewers or 0),
                alternate=alternate == "1",
                root=root,
                project=project,
            )
        return panes

    def has_clients(self) -> bool:
        """Whether any client is attached to the server, by the mode of its socket.

        tmux sets the user's execute bit on the socket while a session is attached (`server_update_socket`, server.c).
        """
        try:
            return bool(os.stat(self.socket).st_mode & stat.S_IXUSR)
        except OSError:
            return False

    def around(self, job_id: str, *, timeout: float | None = None) -> Around | None:
        """The job's window and every attached client, None when the job has no window."""
        facts = "\t".join(f"#{{{name}}}" for name in (MARK, ROOT, "pane_id", "window_id", "@tmuxjobs_held"))
        who = "\t".join(
            f"#{{{name}}}"
            for name in ("client_control_mode", "client_pid", "client_activity", "window_id", "session_name")
        )
        commands = [
            "list-panes",
            "-a",
            "-f",
            f"#{{{MARK}}}",
            "-F",
            f"pane\t{facts}",
            ";",
            "list-clients",
            "-F",
            f"client\t{who}",
        ]
        call = self.server.cmd(*commands, timeout=timeout)
        panes = [line.split("\t")[1:] for line in call.stdout if line.startswith("pane\t")]
        clients = [line.split("\t")[1:] for line in call.stdout if line.startswith("client\t")]
        # Compared here: a job id that a model made up must not get into a format, which may run commands.
        mine = [pane[2:] for pane in panes if pane[0] == job_id and pane[1] in ("", self.root)]
        if not mine:
            return None
        pane_id, window_id, held = mine[0]
        people = tuple(Client(int(pid), int(at), seen, name) for mode, pid, at, seen, name in clients if mode != "1")
        return Around(pane_id, window_id, held, people)

    def every_pane(self) -> list[AnyPane]:
        """Every pane of the server; none when no server runs."""
        call = self.server.cmd("list-panes", "-a", "-F", PLACE_FORMAT)
        found = []
        for line in call.stdout:
            facts = dict(zip(PLACE, line.split("\t", len(PLACE) - 1), strict=True))
            found.append(
                AnyPane(
                    session=facts["session_name"],
                    index=facts["window_index"],
                    window_id=facts["window_id"],
                    pane_id=facts["pane_id"],
                    active=facts["pane_active"] == "1",
                    panes=int(facts["window_panes"]),
                    pid=int(facts["pane_pid"] or "0"),  # 3.8 has none of a dead pane
                    tty=facts["pane_tty"],
                    over=facts[OVER[2:-1]] == "1",
                    piped=facts["pane_pipe"] == "1",
                    job_id=facts[MARK],
                    root=facts[ROOT],
                    server_pid=int(facts["pid"]),
                    socket=facts["socket_path"],
                    is_welcome=facts["pane_id"] == facts[WELCOME],
                    auto_named=facts["automatic-rename"] == "1",
                    window_name=facts["window_name"],
                )
            )
        return found

    def claim(self, pane: AnyPane, job_id: str) -> bool:
        """Mark the pane as the job's, in one step; False when another process has marked it since."""
        same = f"#{{==:#{{{MARK}}},{pane.job_id}}}"
        set_it = f"set-option -p -t {pane.pane_id} {MARK} {job_id}"
        set_it += f" ; set-option -p -t {pane.pane_id} {ROOT} {self.root}"
        show = ("show-options", "-pv", "-t", pane.pane_id, MARK)
        return self.run("if-shell", "-F", "-t", pane.pane_id, same, set_it, ";", *show) == [job_id]

    def give_back(self, pane: AnyPane) -> None:
        """Remove our mark from a pane that was not adopted after all, and restore its window's name."""
        automatic = ("set-option", "-wu", "-t", pane.pane_id, "automatic-rename")
        marks = [word for name in (MARK, ROOT) for word in (";", "set-option", "-pu", "-t", pane.pane_id, name)]
        # tmux runs `#(...)` in a name.
        name = pane.window_name.replace("#", "##")
        rename = ("rename-window", "-t", pane.pane_id, "--", name)
        self.server.cmd(*marks[1:], ";", *rename, *((";", *automatic) if pane.auto_named else ()))

    def attended(self) -> bool:
        """Whether anybody is attached to our session."""
        return self.has_clients() and bool(self.server.cmd("list-clients", "-t", f"={self.session}").stdout)

    def mark_prompts(self, marks: Mapping[str, Asking | None], *, at: int) -> None:
        """Mark panes by id as asking or, with None, as not asking; a notice is given once for each question.

        A window being viewed gets no notice. The welcome page rings, since a bell in the job's window would be output.
        """
        session = f"={self.session}:"
        page = self.server.cmd("show-options", "-qv", "-t", session, WELCOME).stdout
        ring = f" ; send-keys -t {page[0]} C-g" if page and re.fullmatch(r"%\d+", page[0]) else ""
        words: list[str] = []
        for pane, asking in marks.items():
            mark = ["set-option", "-wF", "-t", pane, "@tmuxjobs_input", PLACE_OF_CURSOR if asking else ""]
            words += [";", *mark]
            if asking and asking.notice:
                asked = f"set-option -w -t {pane} @tmuxjobs_asked {asking.question}"
                tell = f"set-option -t {session} @tmuxjobs_notice_at {at} ; "
                tell += f"set-option -t {session} @tmuxjobs_notice '{asking.notice}'{ring}"
                # Compared and marked in one step: several servers may do this at once.
                once = f"{asked} ; if-shell -F -t {pane} '#{{==:#{{window_active_clients}},0}}' \"{tell}\""
                words += [";", "if-shell", "-F", "-t", pane, f"#{{!=:#{{@tmuxjobs_asked}},{asking.question}}}", once]
        self.server.cmd(*words[1:])

    def tell(self, words: str) -> None:
        """Show these notices in our session for a while, and ring; does nothing without a session."""
        session = f"={self.session}:"
        page = self.server.cmd("show-options", "-qv", "-t", session, WELCOME).stdout
        notice = [("@tmuxjobs_notice_at", str(int(time.time()))), ("@tmuxjobs_notice", words)]
        ring = (";", "send-keys", "-t", page[0], "C-g") if page and re.fullmatch(r"%\d+", page[0]) else ()
        self.server.cmd(*_setting(session, notice)[1:], *ring)

    def mark_window(self, pane_id: str, marks: Mapping[str, str | None]) -> None:
        """Set options on the pane's window; None unsets one."""
        words: list[str] = []
        for name, value in marks.items():
            words += [";", "set-option", "-w", "-t", pane_id, name, value] if value is not None else []
            words += [";", "set-option", "-wu", "-t", pane_id, name] if value is None else []
        self.run(*words[1:])

    def close(self, pane: Pane) -> None:
        """Remove a pane whose job has ended; a running one is left alone."""
        self.server.cmd("if-shell", "-F", "-t", pane.pane_id, OVER, f"kill-pane -t {pane.pane_id}")

    def program(self, pane: Pane) -> str:
        """The name of the program in front of a pane."""
        return self.run("display-message", "-p", "-t", pane.pane_id, "#{pane_current_command}")[0]

    def screen(self, pane: Pane, *, styled: bool = False, live: bool = False, timeout: float | None = None) -> Screen:
        """What a person sees now, scrolled back unless `live`; `styled` keeps colours, including of trailing blanks."""
        capture = ["capture-pane", "-p", *(["-e", "-N"] if styled else []), "-t", pane.pane_id]
        show = ["display-message", "-p", "-t", pane.pane_id, SCREEN_FORMAT]
        said, *lines = self.run(*show, ";", *capture, timeout=timeout)
        width, height, x, y, visible, alternate, mode, scrolled, copy_x, copy_y, title = said.split("\t", 10)
        if mode == "copy-mode" and not live:
            x, y = copy_x, copy_y
            if back := int(scrolled or 0):
                lines = self.run(*capture, "-S", str(-back), "-E", str(int(height) - 1 - back))
        return Screen(
            lines=tuple(lines),
            columns=int(width),
            rows=int(height),
            cursor_column=int(x or 0),
            cursor_row=int(y or 0),
            cursor_visible=visible != "0",
            alternate=alternate == "1",
            mode=mode,
            title=title,
        )


def _setting(target: str, options: Sequence[tuple[str, str]]) -> list[str]:
    return [word for name, value in options for word in (";", "set-option", "-t", target, name, value)]


class Opening:
    """A `new-window` in progress; once tmux has answered it has the pane's pid, or what tmux said as `error`."""

    NO_SESSION = re.compile(
        "can't find session|no current target|no server running|error connecting|server exited|lost server"
    )

    def __init__(self, answered: Callable[[], None]) -> None:
        self.answered = answered
        self.pid: int | None = None
        self.error: TmuxError | None = None

    def call(self, tmux: Tmux, command: Sequence[str]) -> None:
        try:
            self.ask(tmux, command)
        except TmuxError as error:
            self.error = error
        self.answered()

    def ask(self, tmux: Tmux, command: Sequence[str]) -> None:
        self.note(tmux.server.cmd(*command, timeout=60.0))

    def note(self, answer: Any) -> None:
        """Record the answer of the call."""
        if answer.stdout and answer.stdout[0].isdigit():
            # Also on failure: an error of a user's hook comes after the window has been opened.
            self.pid = int(answer.stdout[0])
        else:
            self.error = TmuxError(f"tmux refused new-window: {'; '.join(answer.stderr)}.")

    @property
    def unanswered(self) -> bool:
        return self.pid is None and self.error is None

    @property
    def session_gone(self) -> bool:
        """Whether the session no longer existed: someone closed its last window."""
        return self.error is not None and self.NO_SESSION.search(str(self.error)) is not None


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "-V"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TmuxError(f"'{path}' cannot be run: {error}.") from None
    return done.stdout.decode(errors="replace").strip()


def check_version(said: str) -> None:
    match = re.search(r"(\d+)\.(\d+)", said)
    # A build from the development branch has no number and is newer than any.
    if match and (int(match[1]), int(match[2])) < MINIMUM:
        raise TmuxError(f"{said} is too old: tmuxjobs needs tmux {MINIMUM[0]}.{MINIMUM[1]}a or newer.")
