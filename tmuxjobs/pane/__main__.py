"""The one program that runs in panes: `__main__.py ROLE ...`, started by path with `python -I -S`.

Its path, `STATE/pane/UNIT/tmuxjobs/pane/__main__.py`, tells it the state directory. The environment names its job: in
the arguments, a `pkill -f` with the job's name would find it.
"""

import os
import sys

UNIT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STATE = os.path.dirname(os.path.dirname(UNIT))

if not __package__:
    sys.path.insert(0, UNIT)


def folder() -> str:
    """The job's folder. The job's id is removed from the environment, so what we start does not inherit it."""
    from tmuxjobs.contract import IN_OURS

    job_id = os.environ.pop(IN_OURS, None)
    if job_id is None:  # a person had tmux respawn the window
        with os.popen("tmux display-message -p -t \"$TMUX_PANE\" '#{@tmuxjobs_job}'") as pipe:
            job_id = pipe.read().strip()
    if not job_id or os.path.basename(job_id) != job_id:
        sys.exit("This window's job is not known; `tmuxjobs list` shows all.")
    return os.path.join(STATE, "jobs", job_id)


def main() -> None:
    """Run the role that the first argument names; each role imports only what it needs."""
    role, *rest = sys.argv[1:]
    if role == "runner":
        from tmuxjobs.pane.runner import Runner

        place = folder()
        if not os.path.lexists(os.path.join(place, "job.json")):  # the caller has given it up
            os.execvp("tmux", ["tmux", "kill-pane", "-t", os.environ["TMUX_PANE"]])
        runner = Runner(place, os.ttyname(0))
        if runner.job.get("detached"):
            from tmuxjobs.pane.slurm import BatchRunner

            runner = BatchRunner(runner.folder, runner.tty)
        elif runner.job.get("slurm"):
            from tmuxjobs.pane.slurm import SlurmRunner

            runner = SlurmRunner(runner.folder, runner.tty)
        elif any(map(runner.job.get, ("retry", "restart_policy", "ready_when"))):
            from tmuxjobs.pane.attempts import Repeating

            runner = Repeating(place, runner.tty)
        sys.exit(runner.main())
    elif role == "recorder":
        from tmuxjobs.pane import recorder

        recorder.main(folder(), *rest)
    elif role == "adopter":
        from tmuxjobs.pane import adopter

        adopter.detached(folder())
    elif role == "finished":
        from tmuxjobs.pane import window

        window.ended(folder(), marked=not rest)
    elif role == "hook":
        from tmuxjobs.pane import announce

        announce.run_hook(rest[0], dict(os.environ))
    elif role == "announce":
        from tmuxjobs.contract import IN_OURS
        from tmuxjobs.pane import turns

        turns.announce_all(STATE, os.environ.pop(IN_OURS).split())
    elif role == "welcome":
        from tmuxjobs.pane import welcome

        welcome.welcome(STATE, *rest)
    else:
        sys.exit(f"no role {role!r}")


if __name__ == "__main__":
    try:
        main()
    except Exception:
        from tmuxjobs.pane.announce import save_bug

        save_bug(STATE)
        raise
