"""What is known about programs' options: how wrappers take theirs, and which make a program run or write more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    "git": r"-c.*|--config-env.*|--(git-dir|work-tree|namespace).*|--upl.*|--rece.*|--exec?.*|--ext(-.*)?"
    r"|--out.*|--op.*|--templ.*|-O.*|--textconv|ext::.*|foreach|--unsafe.*|--sep.*",
    "git rebase": r"-[^-]*x.*|--ex.*",
    "git clone": r"-[cu].*|--(conf|u).*",
    "git ls-remote": r"--u.*",
    "git archive": r"-o.*",
    "git format-patch": r"-o.*",
    "tar": r"--(to-c|use-c|checkpoint-a|rsh|rmt|info|new-v|abs).*|-[a-zA-Z]*[IFP].*|[\w.@-]+:.*",
    "rsync": r"-[a-zA-Z]*e.*|--rsh.*|--rsync-path.*",
    "sort": r"-[a-zA-Z]*o.*|--o.*|--com.*",
    "rg": r"--pre.*|--hostname-bin.*",
    "fd": r"-[a-zA-Z]*[xX].*|--exec.*",
    "fdfind": r"-[a-zA-Z]*[xX].*|--exec.*",
    "man": r"-[a-zA-Z]*[PHCXp].*|--(pa|h|con|gx|pre).*",
    "less": r"\+.*|-[a-zA-Z]*[kKoO].*|--l(esskey|og).*",
    "more": r"\+.*",
    "vim": r"-.*[cSsuUwWiElqrtT].*|\+.*|--(cmd|rem|serv|sta|log).*",
    "nano": r"-.*[sC].*|--(sp|ba).*",
    "make": r"-[\w.]*[fEI].*|--(f|mak|ev|inc).*|[\s\S]*[$`;|&<>()\n\r\\][\s\S]*",
    "awk": r"-[fliEeoOdpDW].*|--(f|l|i|e|so|du|pre|pro|de).*|[\s\S]*(system|[|>]|getline|@)[\s\S]*",
    "sed": r"-[a-zA-Z]*(f.*|e.+)|--(f|ex).*|(?!-|s/[^/;\n]*/[^/;\n]*/[gIip0-9]*$|"
    r"[0-9$]*(,[0-9$]+)?[pdq]$|/[^/;\n]*/[pd]$)[\s\S]*",
    "go": r"-C.*|--?(exec|toolexec|vettool|overlay|modfile|ldflags|gccgoflags|gcflags|asmflags|compiler|w)\b.*",
    "cargo": r"-C.*|--(config|manifest-path).*",
    "yarn": r"--(cwd|script-s|use-y).*",
    "pnpm": r"-C.*|--dir.*|--script-shell.*",
    "mvn": r"-[fs].*|--(file|settings).*",
    "gradle": r"-[bpIc].*|--(build-file|project-dir|init-script|settings-file).*",
    "cmake": r"-[PE].*",
    "rake": r"-[frI].*|--(rakefile|require|libdir).*",
    "just": r"-[fd].*|--(justfile|working-directory|shell).*",
    "bundle": r"exec|--gemfile.*",
    "tox": r"-c.*|--conf.*",
    "npm": r"-C.*|--(scr|shell|pref|globalc|global-c|userc|node-o|loc).*",
    "curl": r"-[a-zA-Z]*[oOKTcD].*|--(out|remote-n|config|upl|cookie-j|dump|trace|stderr|libcurl|eng).*"
    r"|--(etag-s|hsts|alt-svc).*",
    "wget": r"-[a-zA-Z]*[OPieoa].*|--(out|ap|dir|use-a|ex|con|in|sa|wa|hs|rej).*",
    "pytest": r"-[pco].*|--(roo|ov|conf|pdbc|im|cov-con).*",
    "split": r"--f.*",
    "file": r"-[a-zA-Z]*C.*|--comp.*",
    "history": r"-[a-z]*[awrn].*",
    "yq": r"-[a-zA-Z]*[is].*|--(inp|split).*",
    "tcpdump": r"-[a-zA-Z]*[wz].*",
    "zip": r"-.*T.*|--(un|te).*",
    "dc": r"[\s\S]*!.*",
    "scp": r"-.*[SoFJD].*",
    "gcc": r"-wrapper|-B.*|-fplugin.*|-specs.*|--(sp|pre|wr).*|-X.*|-load|@.*|-Wl,.*plugin.*",
    "hg": r"--(conf|cw|rep|debugger).*|-R.*|debug.*",
    "svn": r"--(config|diff|diff3|editor|merge).*-(option|dir|cmd|tool).*",
    "uv": r"run|tool|--(dir|proj|config|py).*",
    "poetry": r"run|--(dir|proj).*|-[CP].*",
    "gh": r"alias|extension|config",
    "sqlite3": r"-(cmd|init).*|[\s\S]*\.(sh|sy|lo|ou|on|ex|im|op|re|ba|sa|ar|cd|clone)[\s\S]*"
    r"|[\s\S]*(load_extension|writefile|edit\()[\s\S]*",
    "psql": r"-[a-zA-Z]*[foLv].*|--(f|o|lo|set|var).*|[\s\S]*(\\|(?i:program))[\s\S]*",
    "mysql": r"--(pa|te|init).*|[\s\S]*(\\|system|pager|tee|source)[\s\S]*",
    "pandoc": r"-[a-zA-Z]*[FLo].*|--(fi|lua|pdf-e|out|def|data).*|.*\.lua",
    "pdflatex": r"--?(shell|output|enable|interaction=x).*|\\.*",
    "gs": r"-c|-s.*%.*|-dNOSAFER",
    "ip": r"netns|vrf|-b.*",
    "docker": r"-[a-zA-Z]*[vH].*|--(vol|mou|priv|pid|dev|cap-a|sec|userns|ipc|net|host|config|cg).*",
    "mise": r"exec|x|run|-C.*|--cd.*",
}
"""Arguments by which a program runs another, reads its instructions elsewhere, or writes to a file they name."""
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
SHARP |= {"gmake": SHARP["make"], "ninja": r"-[ft].*", "sftp": f"-b.*|{SHARP['scp']}", "podman": SHARP["docker"]}
SHARP |= dict.fromkeys(names("gawk mawk nawk"), SHARP["awk"])
SHARP |= dict.fromkeys(names("vi view ex nvim gvim vimdiff rvim"), SHARP["vim"])
SHARP |= dict.fromkeys(names("cc g++ c++ clang clang++"), SHARP["gcc"])
SHARP |= dict.fromkeys(names("latex tex pdftex xelatex lualatex"), SHARP["pdflatex"])
_SHARP = {name: re.compile(pattern) for name, pattern in SHARP.items()}

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


def reaches_make(name: str, value: str | None) -> bool:
    """Whether a variable of its environment may change what its recipes run."""
    return value is None or given_to_make(f"{name}={value}")


def sharp(words: tuple[Word, ...], *, counts: bool = False) -> tuple[str, ...]:
    """The words by which that command does, or after expansion may do, more than its name says.

    `$(nproc)` is a number only where that surely runs the program.
    """
    name = (words[0].text or "").rpartition("/")[2]
    if name in RUNNERS:
        return (words[0].text or "",)
    if name not in _SHARP:
        return ()
    verb = next((word.text for word in words[1:] if word.text is not None), "")
    found: list[str] = []
    patterns = [_SHARP[name], *([_SHARP[f"{name} {verb}"]] if f"{name} {verb}" in _SHARP else [])]
    if name == "git":
        before = words[1] if len(words) > 1 else None
        after = words[2].text if len(words) > 2 else None
        if verb in GIT_VERBS and not (verb == "config" and re.match(r"--?(get|list|l)|get$|list$", after or "")):
            found.append(verb)
        if before is not None and before.may_be_option and before.text not in ("--version", "--help"):
            return (before.raw,)
    scripts = sed_scripts(words) if name == "sed" else None
    for number, word in enumerate(words[1:], 1):
        if scripts is not None and number not in scripts and not word.may_be_option:
            continue
        if word.text is None:
            if words[number - 1].text in VALUED.get(f"{name} {verb}", ()) and not word.many:
                continue
            if counts and name in ("make", "gmake") and COUNTED.fullmatch(word.raw):
                continue
            if word.may_be_option or "=" in word.raw or name in CODED:
                found.append(word.raw or "...")
        elif name == "git" and word.text.startswith("-c") and number > 1 and verb != "clone":
            continue
        elif any(pattern.fullmatch(word.text) for pattern in patterns) or (
            name in ("make", "gmake") and given_to_make(word.text)
        ):
            found.append(word.text)
    return tuple(found)


def sed_scripts(words: tuple[Word, ...]) -> set[int]:
    """The positions of its scripts: after each `-e`, else the first word that is not an option."""
    behind = {at + 1 for at, word in enumerate(words) if re.fullmatch(r"-[a-zA-Z]*e|--expression", word.text or "")}
    first = next((at for at, word in enumerate(words) if at and not (word.text or "").startswith("-")), 0)
    return behind or {first}
