"""What is known about programs' options: how wrappers take theirs, and which make a program run or write more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tmuxjobs.policy import given
from tmuxjobs.policy.tree import Unclear, names, shortened
from tmuxjobs.policy.words import Word


@dataclass(frozen=True, slots=True)
class Known:
    """The options of a wrapper, and how many operands come before the command that it runs."""

    flags: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    operands: int = 0
    optional: frozenset[str] = frozenset()
    """Those of the flags that may have a value, but in the same word only."""


WRAPPERS = {
    "env": Known(names("-i --ignore-environment -0 --null -v --debug"), names("-u --unset")),
    "command": Known(names("-p -v -V")),
    "builtin": Known(),
    "exec": Known(names("-c -l"), names("-a")),
    "nohup": Known(),
    "setsid": Known(names("-c -f -w --ctty --fork --wait")),
    "nice": Known(valued=names("-n --adjustment")),
    "ionice": Known(names("-t --ignore"), names("-c -n --class --classdata")),
    "timeout": Known(
        names("--foreground --preserve-status -v --verbose"), names("-k --kill-after -s --signal"), operands=1
    ),
    "time": Known(names("-p -v --verbose --portability"), names("-f --format")),
    "stdbuf": Known(valued=names("-i -o -e --input --output --error")),
    "unbuffer": Known(names("-p")),
    "xargs": Known(
        names("-0 -r -t -x --null --no-run-if-empty --verbose --exit -i -l -e --replace --max-lines --eof"),
        names("-n -P -L -I -d -s -E -a --max-args --max-procs --delimiter --arg-file --max-chars"),
        optional=names("-i -l -e --replace --max-lines --eof"),
    ),
}
"""Programs that only run the rest of their words. Options not listed here make the command unclear."""
OUTPUTS = {
    "csplit": ("f", "--prefix", 0),
    "brotli": ("o", "--output", 0),
    "dot": ("o", "", 0),
    "gpg": ("o", "--output", 0),
    "iconv": ("o", "--output", 0),
    "openssl": ("", "--out --keyout --writerand", 0),
    "ptx": ("", "", 2),
    "sdiff": ("o", "--output", 0),
    "shuf": ("o", "--output", 0),
    "split": ("", "", 2),
    "tree": ("o", "", 0),
    "uniq": ("", "", 2),
    "uudecode": ("o", "--output-file", 0),
    "xmllint": ("o", "--output", 0),
    "xsltproc": ("o", "--output --writesubtree", 0),
    "xxd": ("", "", 2),
    "zstd": ("o", "", 0),
}
"""Programs that write to a file, named by that letter or those long options, or by the operand of that number."""
TAKES = {
    "uniq": names("-f -s -w --skip-fields --skip-chars --check-chars"),
    "xxd": names("-c -g -l -n -o -R -s -cols -len -seek -name -groupsize -offset"),
    "split": names("-a -b -C -l -n -t --suffix-length --bytes --line-bytes --lines --number --separator"),
}
"""Options of these whose next word is a value, not an operand."""
RUNNERS = names(
    "sudo doas su pkexec ssh sshpass script unshare nsenter chroot strace ltrace gdb perf valgrind parallel flock "
    "systemd-run tmux screen at batch crontab tmuxjobs dtach expect socat nc ncat rlwrap entr start-stop-daemon capsh "
    "taskset chrt numactl setarch linux32 linux64 i386 x86_64 uname26 prlimit choom uclampset coresched cgexec "
    "runuser runcon setpriv newgrp sg firejail bwrap proot schroot faketime fakeroot eatmydata catchsegv "
    "dbus-run-session dbus-launch xvfb-run hyperfine fzf chronic ifne retry run-parts run-one daemon daemonize "
    "setuidgid softlimit tini dumb-init s6-setuidgid su-exec gosu direnv uvx pipx torsocks proxychains "
    "proxychains4 ts parset sem rush loop viddy watchexec nodemon reflex envdir chpst zargs"
)
"""Programs that run others in ways not read here: a rule must name the program, whatever the default is."""
SHARP = {
    "git": r"-c.*|--(config-env|git-dir|work-tree|namespace|exec-path).*|-O.*|(--[a-z-]+=)?ext::.*|foreach",
    "git rebase": r"-[^-]*x.*",
    "git clone": r"-[vqnls46]*[cu].*",
    "git grep": r"-[^-efABCm]*O.*",
    "git archive": r"-[vl\d]*o.*",
    "git format-patch": r"-[nNskqpv\d]*o.*",
    "tar": r"-\w*[IFP].*|[\w.@-]+:.*",
    "rsync": r"-\w*[eM].*",
    "sort": r"-\w*o.*",
    "fd": r"-\w*[xX].*",
    "man": r"-\w*[PHCXp].*",
    "less": r"\+.*|-\w*[kKoO].*",
    "more": r"\+.*",
    "vim": r"-.*[cSsuUwWiElqrtT].*|\+.*|--(cmd|rem|serv|sta|log).*",
    "nano": r"-.*[sCf].*",
    "make": r"-[\w.]*[fEI].*|[\s\S]*[$`;|&<>()\n\r\\][\s\S]*",
    "awk": r"-[^-Fv]*[fliEeoOdpDW].*|[\s\S]*(system|[|>]|getline|@)[\s\S]*",
    "go": r"-C.*|--?(exec|toolexec|vettool|overlay|modfile|ldflags|gccgoflags|gcflags|asmflags|compiler|w)\b.*",
    "cargo": r"-C.*|--(config|manifest-path).*",
    "mvn": r"-[fslt].*|-g[st]",
    "gradle": r"-[bpIcg].*|-Dorg\.gradle\..*",
    "cmake": r"-[PE].*|(-D)?\w*(COMPILER|LAUNCHER|PROGRAM|TOOLCHAIN|LINKER|EXECUTABLE|COMMAND|_INCLUDE|MODULE_PATH"
    r"|EMULATOR|RULE_|_FLAGS|_TOOL)(?<!EXPORT_COMPILE_COMMAND)\w*(:\w+)?=(?!(ON|OFF|TRUE|FALSE|YES|NO|\d+)$).*",
    "rake": r"-\w*[frIeEpRgGC].*",
    "just": r"-\w*[fdcE].*",
    "bundle": r"exec|--gemfile.*",
    "tox": r"-[vqr]*[cx].*",
    "npm": r"-+[a-zA-Z?]*[CL].*",
    "curl": r"-[\w#:]*[oOKTcD].*|[\s\S]*%output\{[\s\S]*",
    "wget": r"-\w*[OPieoa].*",
    "pytest": r"-[vqxslhVfd]*(p(?!no:\w).*|[co].*|W.*:.*:.*\..*)|[a-z]*:[^:]*:(?!pytest\.)\w[\w.]*\..*|@.*",
    "ninja": r"-[nvdh]*[ft].*",
    "file": r"-\w*C.*",
    "history": r"-[a-z]*[awrn].*",
    "yq": r"-\w*[is].*",
    "tcpdump": r"-\w*[wz].*",
    "zip": r"-.*T.*",
    "dc": r"[\s\S]*!.*",
    "scp": r"-.*[SoFJD].*",
    "gcc": r"-wrapper|-B.*|-fplugin.*|-specs.*|-X.*|-load|@.*|-Wl,.*plugin.*",
    "hg": r"-[qvynh]*R.*|debug.*",
    "uv": r"run|tool|--(dir|proj|config|py).*",
    "poetry": r"run|--(dir|proj).*|-[CP].*",
    "gh": r"alias|extension|config",
    "sqlite3": r"-A.*|[\s\S]*\.(sh|sy|lo|ou|on|ex|im|op|re|ba|sa|ar|cd|clone)[\s\S]*"
    r"|[\s\S]*(load_extension|writefile|edit\()[\s\S]*",
    "psql": r"-\w*[foLv].*|[\s\S]*(\\|(?i:program))[\s\S]*",
    "mysql": r"[\s\S]*(\\|system|pager|tee|source)[\s\S]*",
    "pandoc": r"-\w*[FLo].*|.*\.lua",
    "pdflatex": r"\\.*",
    "gs": r"-c|-s.*%.*|-dNOSAFER",
    "ip": r"netns|vrf|-b.*",
    "docker": r"-[a-zA-Z]*[vH].*|--(vol|mou|priv|pid|dev|cap-a|sec|userns|ipc|net|host|config|cg).*",
    "mise": r"exec|x|run|-C.*|--cd.*",
}
"""Arguments by which a program runs another, reads its instructions elsewhere, or writes to a file they name."""
LONG = {
    "git": "upload-pack receive-pack exec ext-diff output output-directory open-files-in-pager template textconv"
    " unsafe-paths separate-git-dir | text",
    "git clone": "config",
    "tar": "to-command use-compress-program checkpoint-action rsh-command rmt-command info-script new-volume-script"
    " absolute-names set-mtime-command remove-files | checkpoint",
    "rsync": "rsh rsync-path remote-option log-file write-batch only-write-batch daemon config",
    "sort": "output compress-program",
    "rg": "pre hostname-bin",
    "fd": "exec exec-batch",
    "man": "pager html config-file gxditview preprocessor",
    "less": "lesskey-file lesskey-src lesskey-content log-file cmd",
    "nano": "speller backupdir rcfile",
    "make": "file makefile eval include-dir jobserver-auth jobserver-fds sync-mutex temp-stdin",
    "awk": "file load include exec source dump-variables pretty-print profile debug",
    "yarn": "cwd script-shell use-yarnrc",
    "npm": "script-shell shell prefix local-prefix globalconfig global-config userconfig node-options location logs-dir"
    " cache init-module init.module editor viewer browser git node-gyp nodedir onload-script pack-destination call tmp"
    " dir cwd store-dir | global",
    "mvn": "file settings global-settings toolchains global-toolchains log-file",
    "gradle": "build-file project-dir init-script settings-file include-build gradle-user-home project-cache-dir",
    "rake": "rakefile require libdir system execute execute-print execute-continue rakelibdir load-system eval",
    "just": "justfile working-directory shell shell-arg command dotenv-path chooser",
    "tox": "conf root workdir override",
    "curl": "output output-dir remote-name remote-name-all config upload-file cookie-jar dump-header trace trace-ascii"
    " stderr libcurl engine etag-save hsts alt-svc | cookie",
    "wget": "output-file append-output output-document directory-prefix use-askpass execute config input-file"
    " save-cookies warc-file warc-tempdir hsts-file rejected-log",
    "pytest": "rootdir override-ini confcutdir pdbcls import-mode cov-config tx rsyncdir px config-file plugin"
    " | co cov pdb",
    "split": "filter",
    "file": "compile",
    "yq": "inplace in-place split-exp split-exp-file",
    "zip": "unzip-command test output-file temp-path logfile-path",
    "gcc": "specs prefix wrapper",
    "hg": "config cwd repository debugger | debug",
    "svn": "config-option config-dir diff-cmd diff3-cmd editor-cmd merge-tool | diff",
    "diff3": "diff-program",
    "sqlite3": "cmd init archive vfs",
    "psql": "file output log-file set variable",
    "mysql": "pager tee init-command defaults-file defaults-extra-file plugin-dir",
    "pandoc": "filter lua-filter pdf-engine pdf-engine-opt output defaults data-dir extract-media log",
    "pdflatex": "shell-escape enable-write18 enable-pipes output-directory output-format cnf-line ini fmt progname",
    "gpg": "agent-program dirmngr-program photo-viewer exec-path options homedir load-extension log-file logger-file"
    " status-file attribute-file",
}
"""Long options by which it does so, whole; each may be shortened. Behind a `|`: harmless ones that one begins with."""
ANY_DASHES = names("npm pnpm mvn sqlite3 pdflatex latex tex xelatex lualatex")
"""Programs whose long options may begin with one dash, or more than two."""
BEFORE = {
    "npm": "(no-)+",
    "curl": "expand-",
    "mysql": "((loose|skip|enable|disable|maximum)-)+",
}
"""What may stand before the name of a long option."""
SET_NAMES = names("pipefail errexit nounset xtrace noglob noclobber verbose")
"""What `-o` of a shell may be given."""
GIT_VERBS = names(
    "bisect filter-branch difftool mergetool config send-email daemon instaweb web--browse hook credential maintenance "
    "p4"
)
"""Verbs of git that run what they name, or what a setting that they change names."""
CODED = names("make gmake sed awk gawk mawk nawk psql sqlite3 mysql dc")
"""An argument of these may be evaluated, so it must be known."""
VALUED = {
    "git commit": names("-m --message -F --file --author --date"),
    "git tag": names("-m --message -F --file"),
    "git log": names("--author --grep --since --until --after --before"),
}
"""Options whose next word is a value, whatever it says."""
LIKE = {
    **dict.fromkeys(names("gmake"), "make"),
    **dict.fromkeys(names("gawk mawk nawk"), "awk"),
    **dict.fromkeys(names("vi view ex nvim gvim vimdiff rvim"), "vim"),
    **dict.fromkeys(names("cc g++ c++ clang clang++"), "gcc"),
    **dict.fromkeys(names("latex tex xelatex lualatex"), "pdflatex"),
    "podman": "docker",
    "pnpm": "npm",
    "py.test": "pytest",
    "fdfind": "fd",
    "sdiff": "diff3",
    "bsdtar": "tar",
}
"""{program: the one whose options it has}."""
SHARP |= {"sftp": f"-b.*|{SHARP['scp']}"}
_SHARP = {name: re.compile(pattern, re.DOTALL) for name, pattern in SHARP.items()}
_LONG = {name: tuple(frozenset(part.split()) for part in f"{text}|".split("|")[:2]) for name, text in LONG.items()}
SAFE_SCRIPT = re.compile(r"s/[^/;\n]*/[^/;\n]*/[gIip0-9]*|[0-9$]*(,[0-9$]+)?[pdq]|/[^/;\n]*/[pd]")
"""What a script of `sed` may be."""
MAKES_OWN = re.compile(
    r"(?!PYTHON(UNBUFFERED|DONTWRITEBYTECODE|HASHSEED|IOENCODING|UTF8|FAULTHANDLER)$)(SHELL|MAKE\w*|CC|CXX|CPP|FC|F77"
    r"|LD|AR|AS|NM|RM|LEX|YACC|M2C|PC|CO|GET|LINT|TEX|TEXI2DVI|C?WEAVE|C?TANGLE|OBJC\w*|[VG]PATH|CURDIR|SUFFIXES"
    r"|TARGET_(ARCH|MACH)|OUTPUT_OPTION|LOADLIBES|\w*LIBS|LDADD|CROSS_COMPILE|HOST(CC|CXX)|INSTALL|PYTHON\w*|NODE"
    r"|NP[MX]|YARN|PNPM|GO|CARGO|RUSTC|JAVAC?|MVN|GRADLE|PERL|RUBY|DOCKER|PODMAN|BASH|SH|SED|M?AWK|GREP|FIND|XARGS|GIT"
    r"|TAR|CURL|WGET|SSH|SCP|RSYNC|SUDO|CMAKE|CTEST|NINJA|MESON|PROTOC|PYTEST|TOX|UV|POETRY|PIP3?|PKG_CONFIG|AUTO(CONF"
    r"|MAKE|HEADER|RECONF)|ACLOCAL|LIBTOOL\w*|M4|BISON|FLEX|NVCC|GCC|GXX|CLANG|STRIP|RANLIB|OBJ(COPY|DUMP)|CP|MV|LN"
    r"|MKDIR|ECHO|CAT|TOUCH|PRINTF|\w*(FLAGS|_CC|_CXX|_LD|CMD|COMMAND|WRAPPER|LAUNCHER|PROG|PROGRAM|EXECUTABLE|_BIN"
    r"|_SHELL|COMPILER|EDITOR|PAGER))"
)
"""Variables of make that it, or most makefiles, take for a program or its options."""


def outputs(words: tuple[Word, ...]) -> list[Word]:
    """The files that one of OUTPUTS may write, by more words than it would; raises Unclear."""
    name = (words[0].text or "").rpartition("/")[2]
    letter, long, operand = OUTPUTS[name]
    found: list[Word] = []
    at = count = 0
    ended = False
    while (at := at + 1) < len(words):
        word, text = words[at], words[at].text
        if text is None and ((word.may_be_option and not ended) or (operand and word.many)):
            raise Unclear(f"`{name} {shortened(word.raw)}` may write to a file that only a run could tell")
        option, equals, value = (text or "").partition("=")
        following = list(words[at + 1 : at + 2])
        if ended or not option.startswith("-") or option == "-":
            count += 1
            found += [word] if operand and count >= operand else []
        elif option == "--":
            ended = True
        elif option in TAKES.get(name, ()):
            at += 0 if equals else 1
        elif any(one.startswith(f"--{option.lstrip('-')}") for one in long.split()):
            found += [replace(word, text=value)] if equals else following
        elif letter and letter in option and not option.startswith("--"):
            behind = (text or "").partition(letter)[2]
            found += [replace(word, text=behind)] if behind else following
    return found


def odd_option(options: Sequence[str]) -> str | None:
    """The first of a shell's options by which its line may run, or read, other things than it says."""
    rest = list(options)
    while rest:
        option = rest.pop(0)
        if re.fullmatch(r"[-+][euxfvC]*o", option):
            if not rest or rest[0] not in SET_NAMES:
                return " ".join([option, *rest[:1]])
            rest.pop(0)
        elif not re.fullmatch(r"[-+][euxfvC]+|-[euxfvCl]+|--(norc|noprofile|login)", option):
            return option
    return None


def skipped(words: tuple[Word, ...], known: Known) -> tuple[Word, ...]:
    """The command that a wrapper runs, after its options and operands; raises Unclear for what is not known."""
    name = words[0].text
    at = 1
    while at < len(words) and (words[at].may_be_option or not words[at].known):
        text = words[at].text
        if text is None or not words[at].known:
            raise Unclear(f"`{name}` is given what only a run could tell")
        option = text.partition("=")[0]
        if text == "--":
            at += 1
            break
        letters = re.fullmatch(r"-([a-zA-Z0-9]{2,})", text)
        if option in known.valued and "=" not in text:
            at += 2
        elif (
            text in known.flags
            or (option in known.valued and option.startswith("--"))
            or (text[:2] in known.valued | known.optional and not text.startswith("--"))
            or (option in known.optional and option.startswith("--"))
            or (letters and all(f"-{letter}" in known.flags for letter in letters[1]))
            or (name == "nice" and text[1:].isdigit())
        ):
            at += 1
        else:
            raise Unclear(f"`{name} {shortened(text)}` cannot be read with certainty")
    if any(word.many for word in words[1 : at + known.operands]):
        raise Unclear(f"`{name}` is given what only a run could tell")
    return words[at + known.operands :]


def given_to_make(text: str) -> bool:
    """Whether a variable of make has a name or a value by which its recipes may run something else."""
    name, equals, value = text.partition("=")
    name = name.strip().rstrip(":+?").strip()
    if not equals or text.startswith("-"):
        return False
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII) or MAKES_OWN.fullmatch(name):
        return True
    elsewhere = re.match(r"\s*(/|~|(\S*/)?\.\./)", value) and not re.search(r"(?i)(PREFIX|DIR|ROOT)$", name)
    option = re.search(r"(^|[\s\"'])-", value) and not re.search(r"(?i)ARGS?$|TEST", name)
    return bool(elsewhere or option or SHARP_MAKE.fullmatch(text))


SHARP_MAKE = _SHARP["make"]
COUNTED = re.compile(r"\"?(-j|--jobs=)?\"?\$\(nproc( --all)?\)\"?")
"""A number of jobs that is one number."""


def _is_long(name: str, text: str) -> bool:
    """Whether it is one of LONG, perhaps shortened."""
    if name not in _LONG or not (text.startswith("--") or (name in ANY_DASHES and re.match(r"-[^-]{2}", text))):
        return False
    option = text.lstrip("-") if name in ANY_DASHES else text[2:]
    option = option.partition("=")[0].lower()
    option = re.sub(f"^{BEFORE[name]}", "", option) if name in BEFORE else option
    option = option.replace("_", "-") if name == "mysql" else option
    dangerous, harmless = _LONG[name]
    return option != "" and option not in harmless and any(one.startswith(option) for one in dangerous)


def reaches_make(name: str, value: str | None) -> bool:
    """Whether a variable of its environment may change what its recipes run."""
    return value is None or given_to_make(f"{name}={value}")


def leaves_out(rest: tuple[Word, ...]) -> bool:
    return bool(rest) and re.fullmatch(r"no:\w+", rest[0].text or "") is not None


def sharp(words: tuple[Word, ...], *, counts: bool = False) -> tuple[str, ...]:
    """The words by which that command does, or after expansion may do, more than its name says.

    `$(nproc)` is a number only where that surely runs the program.
    """
    name = (words[0].text or "").rpartition("/")[2]
    if name in RUNNERS:
        return (words[0].text or "",)
    if re.fullmatch(r"python[\d.]*", name) and len(words) > 2 and words[1].text == "-m":
        return sharp(words[2:])
    name = LIKE.get(name, name)
    if name == "sed":
        return _sharp_sed(words)
    if name not in _SHARP and name not in _LONG:
        return ()
    verb = next((word.text for word in words[1:] if word.text is not None), "")
    found: list[str] = []
    both = (name, f"{name} {verb}")
    patterns = [_SHARP[one] for one in both if one in _SHARP]
    if name == "git":
        before = words[1] if len(words) > 1 else None
        after = words[2].text if len(words) > 2 else None
        if verb in GIT_VERBS and not (verb == "config" and re.match(r"--?(get|list|l)|get$|list$", after or "")):
            found.append(verb)
        if before is not None and before.may_be_option and before.text not in ("--version", "--help"):
            return (before.raw,)
    if name == "tar" and len(words) > 1 and words[1].text and not words[1].text.startswith("-"):
        words = (words[0], replace(words[1], text=f"-{words[1].text}"), *words[2:])
    for number, word in enumerate(words[1:], 1):
        if word.text is None:
            if words[number - 1].text in VALUED.get(f"{name} {verb}", ()) and not word.many:
                continue
            if counts and name == "make" and COUNTED.fullmatch(word.raw):
                continue
            if word.may_be_option or "=" in word.raw or name in CODED:
                found.append(word.raw or "...")
        elif name in ("npm", "tox") and word.text == "--" and re.match(r"[^-]|-.*=", words[number - 1].text or "-"):
            break  # what follows is for what it runs, unless this is the value of an option
        elif name == "cmake" and word.text == "--":
            return (*found, *sharp((Word("make"), *words[number + 1 :])))
        elif name == "pytest" and word.text == "-p" and leaves_out(words[number + 1 :]):
            continue  # it leaves a plugin out
        elif name == "git" and word.text.startswith("-c") and number > 1 and verb != "clone":
            continue
        elif (
            any(pattern.fullmatch(word.text) for pattern in patterns)
            or any(_is_long(one, word.text) for one in both)
            or (name == "make" and given_to_make(word.text))
        ):
            found.append(word.text)
    return tuple(found)


def _sharp_sed(words: tuple[Word, ...]) -> tuple[str, ...]:
    """Its scripts, unless they only print, delete or replace lines."""
    arguments = given.read(words, given.SED)
    scripts = given.sed_scripts(arguments)
    found: list[str] = []
    for one in arguments:
        script = one.value if one in scripts and one.value is not None else Word("p")
        unsafe = one.name in ("f", "file") or script.text is None or not SAFE_SCRIPT.fullmatch(script.text)
        if unsafe or (one.word.text is None and one.word.may_be_option):
            apart = one in scripts and one.value is not None and one.value.raw in [word.raw for word in words]
            word = script if apart else one.word
            found.append(word.text or word.raw or "...")
    return tuple(found)
