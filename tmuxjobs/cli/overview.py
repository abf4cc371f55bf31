"""What `tmuxjobs --help` says, known without the commands and their library; a test compares it with them."""

import shutil
import textwrap

ABOUT = "Background jobs in tmux, shared by a coding agent and the person beside it."
PARTS = {
    "Run": {
        "adopt": "Make a job of a window that you opened: the agent can follow it and type into it.",
        "execute": "Start a command as a background job: `tmuxjobs execute -- make -j4`.",
        "restart": "End a job if it runs, and start its command again as a new job.",
        "up": "Start the jobs of this project's tmuxjobs.toml or Procfile, in order; those that run are left alone.",
    },
    "Look": {
        "attach": "Watch the jobs in tmux, or one of them; inside tmux the client switches over.",
        "events": "Print what happened to jobs, a numbered line each: starts, ends, prompts, holds.",
        "fetch": "Copy results of a job on another host here: files and folders, by their paths in its folder there.",
        "history": "Show who called what on which job, what the policy said and why; newest last.",
        "list": "List jobs, newest first: as a table on a terminal, else a line for each.",
        "log-path": 'Print where a job\'s log is: `less -R "$(tmuxjobs log-path JOB)"`.',
        "output": "Print all of a job's output as clean text: into a pipe or file in full, "
        "on a terminal in $PAGER or less.",
        "screen": "Print a job's screen as an attached person sees it now.",
        "search": "Print the lines of a job's output that match, numbered like those of grep -n; "
        "exits with 1 when there are none.",
        "status": "Show a job's state, and why.",
        "tail": "Print the last lines of a job's output; with -f follow it until the job ends.",
        "wait": "Wait until a job ends or one of the given conditions is met.",
    },
    "Control": {
        "approve": "Approve a job that waits for it, as `y` in its window does.",
        "down": "End the jobs of this project's tmuxjobs.toml or Procfile that run, those that come last first.",
        "group": "Show a group of jobs, limit how many of them may run at once, pause or resume it.",
        "hold": "Keep the agent from typing into a job and from ending it, while you work in it.",
        "interact": "Type into a running job and print what it answers.",
        "kill": "End jobs with everything they started, or send them a signal.",
        "pause": "Stop a job with all that it started, until `resume`; the time between counts for no timeout.",
        "queue": "Change a job that waits for its turn; `kill` cancels it.",
        "refuse": "Refuse a job that waits for approval, as `n` in its window does.",
        "release": "Give a held job back to the agent.",
        "resume": "Resume a paused job.",
    },
    "Set up": {
        "doctor": "Check everything that jobs need, and run one from start to end; exits with 1 if something is wrong.",
        "install": "Set tmuxjobs up in an MCP client: shows what to run or to add, and where.",
        "policy": "What agents may run: check a command line, test the rules, take rules from a client.",
        "prune": "Remove finished jobs and windows beyond what is configured to be kept, on all machines in use.",
        "serve": "Serve MCP on stdio; `tmuxjobs` alone does so when stdin is not a terminal.",
        "token": "Print the path of the bearer token for HTTP clients; `cat` shows the token.",
    },
    "Options": {
        "--help (-h)": "Display this message and exit.",
        "--install-completion": "Make this shell complete commands, options and job ids.",
        "--version": "Display application version.",
    },
}
"""{part: {name: what it does}}."""
COLUMNS = 40, 100


def overview() -> str:
    """All commands in their parts, as wide as the terminal is, within COLUMNS."""
    least, most = COLUMNS
    columns = min(most, max(least, shutil.get_terminal_size().columns))
    lines = ["Usage: tmuxjobs COMMAND", "", *textwrap.wrap(ABOUT, columns)]
    for title, part in PARTS.items():
        lines += ["", f"{title}:"]
        names = max(map(len, part))
        for name, does in part.items():
            first, *more = textwrap.wrap(does, columns - names - 4, break_on_hyphens=False)
            lines += [f"  {name:{names}}  {first}", *(f"{'':{names + 4}}{line}" for line in more)]
    return "\n".join([*lines, "", *textwrap.wrap("`tmuxjobs COMMAND --help` explains one command.", columns)])
