"""How an end is told in words: who may have sent a signal, and whose exit code it is."""

import pytest

from tmuxjobs.outcome import End, by_signal, is_of_pipeline

PIPELINES = (
    "a|b", "c; a | b", "a |& b", "a | b # c", "a 2>&1 | tail -5", "a && b | c", "a |\n b", "a | b\n", "a | b;",
    "cd x &&\\\n pytest 2>&1 | tee log", "x=${a#b}; y | z", "echo a#|cat", "a | { b; c; }", "a | (b)",
    "grep '# x' f | wc -l", 'echo "it\'s # 1" | cat', "echo $'it\\'s' | cat",
)  # fmt: skip
OTHERS = (
    "a", "a || b", "a | b; c", "a | b && c", "a | b &", "echo 'a|b'", 'echo "a|b"', "cat <<E | x\nE", "(a|b)",
    "a $(b|c)", "a # x|y", "set -o pipefail; a|b", "a\\|b", "a >| f", "[[ x =~ a|b ]]", "for i in 1; do a|b; done",
    "case x in x|y) b;; esac", "{ a | b; }", "grep -c '|' f", 'echo "$(a | b)"', 'echo "x\\"|y"', "a | b\nc",
    "echo `a|b`", "unclosed 'a | b",
)  # fmt: skip


@pytest.mark.parametrize("command", PIPELINES)
def test_exit_code_of_a_pipeline_is_that_of_its_last_command(command: str) -> None:
    assert is_of_pipeline(command, "/bin/bash")


@pytest.mark.parametrize("command", OTHERS)
def test_exit_code_of_anything_else_is_its_own(command: str) -> None:
    assert not is_of_pipeline(command, "/bin/bash")


@pytest.mark.parametrize(("shell", "options"), [("/usr/bin/python3", ()), ("/bin/bash", ("-o", "pipefail"))])
def test_shell_that_has_no_such_pipelines_is_not_named(shell: str, options: tuple[str, ...]) -> None:
    assert not is_of_pipeline("a | b", shell, options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SIGSEGV", "crashes"), ("SIGBUS", "crashes"), ("SIGFPE", "crashes"), ("SIGABRT", "ends itself"),
        ("SIGINT", "Ctrl-C"), ("SIGPIPE", "without a reader"), ("SIGTERM", "itself or by another program"),
        ("SIGUSR1", "itself or by another program"), ("SIGKILL", "kernel"), ("SIGRTMIN+3", "itself or by another"),
    ],
)  # fmt: skip
def test_signal_tells_what_can_be_known_of_its_sender(name: str, words: str) -> None:
    assert words in by_signal(name)


def test_window_says_what_ended_the_job() -> None:
    record = {"job": {}, "reason": "signal", "signal": "SIGINT", "runtime_s": 3.0}
    assert End(record).words == "killed after 3.0s by SIGINT, as Ctrl-C in its window sends it"
    noted = End({**record, "note": "0.1s after `interact` pressed C-c"})
    assert noted.words == "killed after 3.0s by SIGINT, 0.1s after `interact` pressed C-c"
