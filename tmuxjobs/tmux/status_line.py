"""What our session looks like: its two status lines, as tmux formats over marks that the windows carry.

Only options of our session and our windows are set, so the person's own look and keys stay as they are elsewhere. The
marks: the runner sets `@tmuxjobs_state`, `@tmuxjobs_at` and `@tmuxjobs_end`, whoever sees a prompt `@tmuxjobs_input`.
tmux 3.2 leaves out what is more than ten levels deep, so cases stand beside each other where they can.
"""

from tmuxjobs.contract import MARKS

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
    """How many windows it is true of, with the words or, on a narrow line, the mark; nothing for none."""
    found = f"#{{W:{case(condition, 'x')}}}"
    # `n:` counts what the loop prints.
    text = f"  {style}{case(NARROW, mark)}#{{n:{found}}}{case(NARROW, '', f' {words}')}{OVER}"
    return case(found, text)


# A window's process that died before it text its end was the runner: nobody knows the end.
LOST = f"#{{||:{both(is_state('running'), '#{pane_dead}')},{is_state('lost')}}}"

RUNNING = both(is_state("running"), "#{!=:#{pane_dead},1}")

# Output after the mark was set means that the program went on.
ASKED = both("#{@tmuxjobs_input}", "#{==:#{@tmuxjobs_input},#{window_activity}}")

# As `verbs/hold.py` derives it, for the client that draws this: its keys keep a hold alive.
SINCE_HELD = "#{e|-|:%s,#{s/:.*//:@tmuxjobs_held}}"

SINCE_KEY = "#{e|-|:%s,#{client_activity}}"

HELD = both(
    "#{@tmuxjobs_held}",
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

# Black on yellow is read on a dark and on a light terminal; a mark tells as much as its colour.
ASKING = "#[fg=black]#[bg=yellow]"

STATES = {
    "running": (RUNNING, "#[fg=blue]", "running"),
    "asks": (both(RUNNING, ASKED), ASKING, "for you"),
    "done": (is_state("done"), "#[fg=green]", "done"),
    "failed": (is_state("failed"), "#[fg=red]", "failed"),
    "killed": (is_state("killed"), "#[fg=magenta]", "killed"),
    "lost": (LOST, "#[fg=red]", "lost"),
}
"""{state: (when it is so, its style, the word for how many)}. A job that asks runs, and a lost one is marked so."""


def mark(name: str) -> str:
    return STATES[name][1] + MARKS[name]


MARK = case(RUNNING, case(ASKED, mark("asks"), mark("running"))) + "".join(
    case(STATES[name][0], mark(name)) for name in ("lost", "done", "failed", "killed")
)

BESIDE = (
    case(RUNNING, case(ASKED, f"{ASKING} your input", f" {ELAPSED}"))
    + case(LOST, " lost")
    + case("#{@tmuxjobs_end}", " #{@tmuxjobs_end}")
)

ROOM = "#{e|<|:#{e|*|:#{session_windows},34},#{client_width}}"

TAB = (
    "#[range=window|#{window_index}]{on} #I "
    + MARK
    + "{name}"
    + BESIDE
    + case(HELD, "#[bold] yours")
    + f" {OVER}#[norange]"
)


def tab(*, current: bool) -> str:
    name = "#W" if current else case(ROOM, "#W", "#{=/14/…:window_name}")
    on = "#[reverse]" if current else ""
    focus = "#[list=focus]" if current else "#[list=on]"
    return focus + TAB.replace("{name}", name).replace("{on}", on)


LIST = "#[align=left]#[list=on]#[list=left-marker]<#[list=right-marker]>#[list=on]"

TABS = f"{LIST}#{{W:{tab(current=False)},{tab(current=True)}}}#[nolist]"

COUNTS = "#[bold] #{session_name}#[nobold]" + "".join(
    count(condition, style, MARKS[name], words) for name, (condition, style, words) in STATES.items()
)

ENDED = "#{@tmuxjobs_end}"

HOLD = case("#{@tmuxjobs_keys_hold}", "#{E:@tmuxjobs_keys_hold} " + case(HELD, "release", "hold") + "  ")

NO_JOB = "#{==:#{@tmuxjobs_state},}"

IS_PAGE = "#{==:#{pane_id},#{@tmuxjobs_welcome}}"

KEYS = (
    case(ENDED, case("#{@tmuxjobs_adopted}", "", "r run again  ") + "x close  ")
    + case(RUNNING, HOLD)
    + case(NO_JOB, case(IS_PAGE, "", "no job: tmuxjobs adopt  "))
    + case(NARROW, "#{E:@tmuxjobs_keys_short} ", "#{E:@tmuxjobs_keys} ")
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
"""(name, value) of our session. The last two are what the welcome page replaces by the person's own keys."""
