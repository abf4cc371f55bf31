"""What our session looks like: its two status lines, as tmux formats over marks that the windows carry.

Only options of our session and our windows are set, so the person's own look and keys stay as they are elsewhere. The
marks: the runner sets `@tmuxjobs_state`, `@tmuxjobs_at` and `@tmuxjobs_end`; the check for readiness sets
`@tmuxjobs_ready`, a process that sees a prompt `@tmuxjobs_input`, and one that starts a job `@tmuxjobs_project` if
there are several projects.
tmux 3.2 leaves out what is nested more than ten levels deep, so cases are placed side by side where possible.
"""

from tmuxjobs.contract import STATES
from tmuxjobs.tmux.panes import PLACE_OF_CURSOR

NOTICE_S = 10
"""How long the status line shows a notice."""
OVER = "#[default]"
NARROW = "#{e|<|:#{client_width},120}"


def case(condition: str, then: str, otherwise: str = "") -> str:
    return f"#{{?{condition},{then},{otherwise}}}"


def is_state(name: str) -> str:
    return f"#{{==:#{{@tmuxjobs_state}},{name}}}"


def both(one: str, other: str) -> str:
    return f"#{{&&:{one},{other}}}"


def count(condition: str, style: str, mark: str, words: str) -> str:
    """How many windows the condition holds for, with the words or, on a narrow line, the mark; nothing for none."""
    found = f"#{{W:{case(condition, 'x')}}}"
    # `n:` counts what the loop prints.
    text = f"  {style}{case(NARROW, mark)}#{{n:{found}}}{case(NARROW, '', f' {words}')}{OVER}"
    return case(found, text)


# A window's process that died before it marked the end was the runner: the end is not known.
LOST = f"#{{||:{both(is_state('running'), '#{pane_dead}')},{is_state('lost')}}}"

RUNNING = both(is_state("running"), "#{!=:#{pane_dead},1}")

# Output after the mark was set means that the program went on.
ASKED = both("#{@tmuxjobs_input}", f"#{{==:#{{@tmuxjobs_input}},{PLACE_OF_CURSOR}}}")

# A person is asked in the window whether its job may run. Kept short: tmux 3.3a shows nothing of 8,192 characters.
ASKS = is_state("asks")
APPROVAL = both(ASKS, "#{!=:#{pane_dead},1}")

RUNS = both(RUNNING, case(ASKED, "", "1"))

# As `verbs/hold.py` derives it, for the client that draws this: its keys keep a hold alive.
SINCE_HELD = "#{e|-|:%s,#{s/:.*//:@tmuxjobs_held}}"

SINCE_KEY = "#{e|-|:%s,#{client_activity}}"

# Held while nobody was attached, or by this client: a person who attaches again is another client.
OF_CLIENT = "#{||:#{m:*:,#{@tmuxjobs_held}},#{m:*#,#{client_pid}#,*,#{@tmuxjobs_held}}}"

HELD = both(
    OF_CLIENT,
    "#{||:" + ",".join(f"#{{e|<|:{age},#{{@tmuxjobs_held_for}}}}" for age in (SINCE_HELD, SINCE_KEY)) + "}",
)

AGE = "#{e|-|:%s,#{@tmuxjobs_at}}"

HOURS = f"#{{e|/|:{AGE},3600}}h#{{e|/|:#{{e|m|:{AGE},3600}},60}}m"

DAYS = f"#{{e|/|:{AGE},86400}}d#{{e|/|:#{{e|m|:{AGE},86400}},3600}}h"

ELAPSED = case(
    f"#{{e|<|:{AGE},3600}}",
    case(f"#{{e|<|:{AGE},60}}", f"{AGE}s", f"#{{e|/|:{AGE},60}}m"),
    case(f"#{{e|<|:{AGE},86400}}", HOURS, DAYS),
)

# Black on yellow is readable on dark and light terminals; a mark says as much as its colour.
ASKING = "#[fg=black]#[bg=yellow]"

IS = {
    "running": RUNS,
    "waits": both(RUNNING, ASKED),
    "paused": is_state("paused"),
    "completed": "#{m/r:^(completed|done)$,#{@tmuxjobs_state}}",
    "failed": is_state("failed"),
    "killed": is_state("killed"),
    "lost": LOST,
}
"""{state: the condition that a window's job is in it}; windows of 0.1.0 say `done`, and what never ran has no state."""


def style(name: str) -> str:
    return ASKING if name == "waits" else f"#[fg={STATES[name][1]}]"


def mark(name: str) -> str:
    return style(name) + STATES[name][0]


MARK = "".join(case(condition, mark(name)) for name, condition in IS.items())
ASKS_MARK = case(ASKS, mark("waits"))
ASKS_BESIDE = case(ASKS, case("#{pane_dead}", " lost", " waits for approval"))
MARK += ASKS_MARK

RUNS_BESIDE = case(RUNNING, case(ASKED, f"{ASKING} waits", f" {ELAPSED}#{{@tmuxjobs_ready}}"))
BESIDE = RUNS_BESIDE + ASKS_BESIDE + case(LOST, " lost") + case("#{@tmuxjobs_end}", " #{@tmuxjobs_end}")

ENDED = f"#{{||:#{{@tmuxjobs_end}},{LOST}}}"

YOURS = case(HELD, "#[bold] yours")

ROOM = "#{e|<|:#{e|*|:#{session_windows},34},#{client_width}}"

TAB = (
    "#[range=window|#{window_index}]{on} #I "
    + MARK
    + "{name}"
    + case("#{@tmuxjobs_project}", " #[dim]#{@tmuxjobs_project}#[nodim]")
    + BESIDE
    + YOURS
    + f" {OVER}#[norange]"
)


def tab(*, current: bool) -> str:
    name = "#W" if current else case(ROOM, "#W", "#{=/14/…:window_name}")
    on = "#[reverse]" if current else ""
    focus = "#[list=focus]" if current else "#[list=on]"
    return focus + TAB.replace("{name}", name).replace("{on}", on)


LIST = "#[align=left]#[list=on]#[list=left-marker]<#[list=right-marker]>#[list=on]"


def tabs(*, ended: bool) -> str:
    """The tabs of the windows whose job has ended, or of all others."""
    only = case(ENDED, "{tab}", "") if ended else case(ENDED, "", "{tab}")
    shown = [tab(current=current) for current in (False, True)]
    if ended:
        for part in (ASKS_MARK, ASKS_BESIDE, RUNS_BESIDE, YOURS):
            shown = [one.replace(part, "") for one in shown]
    return "#{W:" + ",".join(only.replace("{tab}", one) for one in shown) + "}"


TABS = LIST + tabs(ended=False) + tabs(ended=True) + "#[nolist]"

COUNTS = "#[bold] #{session_name}#[nobold]" + "".join(
    count(condition, style(name), STATES[name][0], name) for name, condition in IS.items()
)
COUNTS += count(APPROVAL, ASKING, STATES["waits"][0], "to approve")

COUNTS += case("#{@tmuxjobs_queued}", f"  {style('queued')}{STATES['queued'][0]}#{{@tmuxjobs_queued}} queued{OVER}")

IS_PAGE = "#{==:#{pane_id},#{@tmuxjobs_welcome}}"

# A person may have closed it.
HAS_PAGE = f"#{{W:{case(IS_PAGE, 'x')}}}"

HOLD_KEY = both("#{@tmuxjobs_keys_hold}", HAS_PAGE)

HOLD = case(HOLD_KEY, "#{E:@tmuxjobs_keys_hold} " + case(HELD, "release", "hold") + "  ")

NO_JOB = "#{==:#{@tmuxjobs_state},}"


def keys(name: str) -> str:
    """The person's own keys, without the one that leads to the page if there is none."""
    return case(HAS_PAGE, f"#{{E:{name}}} ", f"#{{E;s/^[^ ]+ [^ ]+ jobs *//:{name}}} ")


KEYS = (
    case("#{@tmuxjobs_end}", case("#{@tmuxjobs_adopted}", "", "r run again  ") + "x close  ")
    + case(RUNNING, HOLD)
    + case(APPROVAL, "y run it  n refuse it  ")
    + case(NO_JOB, case(IS_PAGE, "", "no job: tmuxjobs adopt  "))
    + case(NARROW, keys("@tmuxjobs_keys_short"), keys("@tmuxjobs_keys"))
)

FRESH = f"#{{e|<|:#{{e|-|:%s,#{{@tmuxjobs_notice_at}}}},{NOTICE_S}}}"

NOTICE = "#[reverse] #{@tmuxjobs_notice} #[noreverse]"

# A narrow line has no room for both.
INFO = f"#[align=left]{case(both(NARROW, FRESH), '', COUNTS)}#[align=right]{case(FRESH, NOTICE, KEYS)}"

OPTIONS = (
    ("status", "2"),
    ("status-style", "bg=default,fg=default"),
    ("status-interval", "1"),
    ("status-format[0]", TABS),
    ("status-format[1]", INFO),
    ("bell-action", "any"),
    ("visual-bell", "off"),
    ("@tmuxjobs_notice_at", "0"),
    ("@tmuxjobs_keys", "#{prefix} n next  #{prefix} p previous  #{prefix} d leave"),
    ("@tmuxjobs_keys_short", "#{prefix} n next  #{prefix} d leave"),
)
"""(name, value) of our session. The welcome page replaces the last two by the person's own keys."""
