"""Hosts: this machine and the others that are in use, and which of them has a job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Self, TypeVar, cast
from weakref import WeakKeyDictionary

from tmuxjobs.errors import InvalidInput, NotAllowed
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller
from tmuxjobs.settings import HOST
from tmuxjobs.store.index import ID

T = TypeVar("T")
AT_ONCE = 16
_made: WeakKeyDictionary[Host, Hosts] = WeakKeyDictionary()


class Hosts:
    """Each is made once, and is connected to when it is needed. A job's id tells which one has it."""

    def __init__(self, home: Host) -> None:
        self.home = home
        self._others: dict[str, Host] = {}
        home.find, home.owner, home.others = self.of, self.owner, self.used
        home.chosen = lambda asked: self.chosen(asked, Caller(kind="person"))

    @classmethod
    def over(cls, home: Host) -> Self:
        """Those of that machine, for all who use it in this process."""
        if home not in _made:
            _made[home] = cls(home)
        return cast(Self, _made[home])

    def named(self, name: str) -> Host:
        """The host of that name; this machine for none. Raises InvalidInput for what ssh would take for an option."""
        if not name:
            return self.home
        if not HOST.fullmatch(name):
            raise InvalidInput(f"'{name}' is not the name of a host in the ssh configuration.")
        host = self._others.get(name)
        if host is None:
            from tmuxjobs.hosts.ssh import RemoteHost  # takes 30 ms, and most use no other host

            host = self._others[name] = RemoteHost(self.home, name)
            host.find, host.owner, host.others = self.of, self.owner, self.used
        return host

    def used(self) -> list[Host]:
        """The other hosts that are configured, or have had jobs of ours."""
        names = [*self.home.settings.hosts, *self._others]
        with contextlib.suppress(OSError):
            folders = os.scandir(self.home.settings.state_dir / "hosts")
            names += [one.name for one in folders if HOST.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
        return [self.named(name) for name in dict.fromkeys(names)]

    def usable(self, caller: Caller) -> list[Host]:
        """This machine and all others that the caller may use: an agent those that the settings name."""
        return [self.home, *(host for host in self.used() if self._may(caller, host))]

    def chosen(self, asked: str | None, caller: Caller) -> Host:
        """The host that a job is to run on, the configured one for None; raises HostError, and NotAllowed to agents."""
        host = self.named((self.home.settings.host or "") if asked is None else asked)
        if not self._may(caller, host):
            there = ", ".join(self.home.settings.hosts) or "none"
            raise NotAllowed(f"Agents may use these hosts (TMUXJOBS_HOSTS): {there}. Nothing was started on '{asked}'.")
        return host.connected()

    def having(self, job_id: str, caller: Caller) -> Host:
        """The host that has the job; this machine where none has that the caller may use."""
        return host if self._may(caller, host := self.of(job_id)) else self.home

    def _may(self, caller: Caller, host: Host) -> bool:
        return caller.kind == "person" or host.name in ("", *self.home.settings.hosts)

    def of(self, job_id: str) -> Host:
        """The host that has the job, with what is known of it brought up to date; this machine where none has."""
        host = self.owner(job_id)
        if host is not self.home:
            host.fresh(job_id)
        elif ID.fullmatch(job_id) and not has(self.home, job_id):
            at_once(lambda other: other.fresh(), *self.used())
            host = self.owner(job_id)
        return host

    def owner(self, job_id: str) -> Host:
        """As `of`, by what is known here."""
        if not ID.fullmatch(job_id) or has(self.home, job_id):
            return self.home
        return next((host for host in self.used() if has(host, job_id)), self.home)

    def close(self) -> None:
        for host in self._others.values():
            host.close()


def has(host: Host, job_id: str) -> bool:
    return os.path.lexists(host.store.jobs / job_id)


def at_once(look: Callable[[Host], T], *hosts: Host) -> list[T]:
    """The look at each of these, all at the same time: one that does not answer holds up no other."""
    if len(hosts) < 2:
        return list(map(look, hosts))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(hosts))) as pool:
        return list(pool.map(look, hosts))
