"""What the verbs ask of the machine that their jobs run on; `ssh.py` has the same of another one."""

import time

from tmuxjobs.far import asked
from tmuxjobs.pane import turns
from tmuxjobs.system import beside, job_processes, probes, processes, terminals


class Machine:
    """This one: each is the function of that name."""

    alive = staticmethod(job_processes.alive)
    as_now = staticmethod(job_processes.as_now)
    asking = staticmethod(beside.asking)
    answers = staticmethod(probes.answers)
    below = staticmethod(job_processes.below)
    cancel = staticmethod(turns.cancel)
    change = staticmethod(turns.change)
    change_group = staticmethod(turns.change_group)
    folder = staticmethod(asked.folder)
    free_bytes = staticmethod(asked.free_bytes)
    fronts = staticmethod(terminals.fronts)
    handlers = staticmethod(job_processes.handlers)
    here = staticmethod(processes.here)
    look = staticmethod(job_processes.look)
    listening = staticmethod(probes.listening)
    monotonic = staticmethod(time.monotonic)
    move = staticmethod(turns.move)
    of_jobs = staticmethod(job_processes.of_jobs)
    of_pane = staticmethod(job_processes.of_pane)
    places = staticmethod(turns.places)
    program = staticmethod(asked.program)
    runners = staticmethod(job_processes.runners)
    send = staticmethod(processes.send)
    set_echo = staticmethod(terminals.set_echo)
    start = staticmethod(turns.start)
    start_of = staticmethod(job_processes.start_of)
    stopped = staticmethod(processes.stopped)
    terminal = staticmethod(terminals.terminal)
    unread = staticmethod(terminals.unread)
    usage = staticmethod(job_processes.usage)
    usual_locale = staticmethod(probes.usual_locale)
