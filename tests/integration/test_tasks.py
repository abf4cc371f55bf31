"""Tasks as they are on the wire: raw JSON over the real server's stdio, which can be killed and started anew."""

import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loaded import Loaded
from support import Jobs, ended, wait_until

EXTENSION = "io.modelcontextprotocol/tasks"
MODERN, LEGACY = "2026-07-28", "2025-06-18"


class Wire:
    """A client that says exactly what the test says."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.start()

    def start(self) -> None:
        (theirs, asked), (answered, out) = os.pipe(), os.pipe()
        self.server = self.loaded.start(["serve"], env=os.environ, fds=(theirs, out, 2), terminal=False)
        os.close(theirs)
        os.close(out)
        self.asked, self.answered = os.fdopen(asked, "wb", buffering=0), os.fdopen(answered, "rb")
        self.number = 0

    def stop(self) -> None:
        self.server.kill()
        self.server.wait(60)
        self.asked.close()
        self.answered.close()

    def send(self, message: dict[str, Any]) -> None:
        self.asked.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer, whole: with `result` or `error`."""
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        deadline = time.monotonic() + 60
        while True:
            ready = select.select([self.answered], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"no answer to {method}"
            answer = json.loads(self.answered.readline())
            if answer.get("id") == self.number:
                return dict(answer)

    def modern(self, method: str, declared: bool = True, **params: Any) -> dict[str, Any]:
        capabilities = {"extensions": {EXTENSION: {}}} if declared else {}
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        }
        return self.request(method, params | {"_meta": meta})

    def call(self, tool: str, declared: bool = True, **arguments: Any) -> dict[str, Any]:
        result = self.modern("tools/call", declared, name=tool, arguments=arguments)["result"]
        assert isinstance(result, dict)
        return result

    def task(self, task_id: str, method: str = "tasks/get") -> dict[str, Any]:
        result = self.modern(method, taskId=task_id)["result"]
        assert isinstance(result, dict)
        return result

    def completed(self, task_id: str) -> dict[str, Any]:
        task = wait_until(lambda: self.task(task_id), lambda task: task["status"] != "working", timeout=60)
        assert task["status"] == "completed"
        result = task["result"]
        assert isinstance(result, dict)
        return result

    def code(self, method: str, declared: bool = True, **params: Any) -> int:
        return int(self.modern(method, declared, **params)["error"]["code"])


@pytest.fixture
def wire(jobs: Jobs, loaded: Loaded) -> Iterator[Wire]:
    wire = Wire(loaded)
    yield wire
    wire.stop()


@pytest.fixture
def gate(jobs: Jobs, tmp_path: Any) -> Any:
    """A FIFO: `read x < GATE` holds a command until something is written into it."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_server_advertises_the_extension(wire: Wire) -> None:
    assert wire.modern("server/discover")["result"]["capabilities"]["extensions"][EXTENSION] == {}


def test_execute_that_waits_becomes_a_task_named_as_its_job(wire: Wire, jobs: Jobs, gate: Any) -> None:
    task = wire.call("execute", command=f"echo begun; read x < {gate}; echo over; exit 3", wait=600)
    assert (task["resultType"], task["status"]) == ("task", "working")
    assert jobs.status(task["taskId"]).status == "running"
    assert isinstance(task["ttlMs"], int)
    assert isinstance(task["pollIntervalMs"], int)
    now = wait_until(lambda: wire.task(task["taskId"]), lambda now: now["statusMessage"] == "begun")
    assert (now["resultType"], now["status"], now["statusMessage"]) == ("complete", "working", "begun")
    gate.write_text("go\n")
    result = wire.completed(task["taskId"])
    fields = result["structuredContent"]
    assert (fields["job_id"], fields["exit_code"], fields["status"]) == (task["taskId"], 3, "failed")
    assert fields["stdout"] == "begun\nover\n"
    assert fields["runtime"] > 0
    assert result["isError"] is False
    assert "over\n==\n[exit: exit code 3" in result["content"][0]["text"]


@pytest.mark.parametrize("tool", ["execute", "wait"])
def test_result_of_a_task_is_what_the_tool_answers(wire: Wire, jobs: Jobs, gate: Any, tool: str) -> None:
    command = f"read x < {gate}"
    arguments = {"command": command, "wait": 600} if tool == "execute" else {"job_id": jobs.execute(command).job_id}
    task = wire.call(tool, **arguments)
    gate.write_text("go\n")
    fields = wire.completed(task["taskId"])["structuredContent"]
    assert (fields["reason"], fields["status"], fields["exit_code"]) == ("exit", "completed", 0)
    assert all(part not in (None, "", [], {}) for part in fields.values())


def test_what_is_over_soon_is_answered_at_once(wire: Wire) -> None:
    asked = lambda: wire.call("execute", command="echo quick", wait=600)  # noqa: E731 - on a slow machine it is not soon
    assert wait_until(asked, lambda result: result["resultType"] == "complete")["structuredContent"]["exit_code"] == 0


def test_wait_becomes_a_task_that_a_new_server_goes_on_with(wire: Wire, jobs: Jobs, gate: Any) -> None:
    job_id = jobs.execute(f"echo ready; read x < {gate}; echo ready; sleep 1000").job_id
    wait_until(lambda: wire.call("tail", job_id=job_id)["structuredContent"]["stdout"])
    task = wire.call("wait", job_id=job_id, pattern="ready")
    assert task["taskId"] == job_id
    assert wire.task(job_id)["status"] == "working"
    wire.stop()
    gate.write_text("go\n")
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: text.count("ready") == 2)
    wire.start()
    fields = wire.completed(job_id)["structuredContent"]
    assert (fields["reason"], fields["note"], fields["status"]) == ("pattern", "line 2: ready", "running")


def test_task_that_is_over_stays_so(wire: Wire, jobs: Jobs, gate: Any) -> None:
    task_id = wire.call("execute", command=f"read x < {gate}; echo over", wait=600)["taskId"]
    gate.write_text("go\n")
    result = wire.completed(task_id)
    wire.stop()
    wire.start()
    assert wire.task(task_id)["result"] == result


def test_second_task_of_a_job_has_an_id_of_its_own(wire: Wire, jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    first, second = (wire.call("wait", job_id=job_id)["taskId"] for _ in range(2))
    assert first == job_id
    assert second.startswith(f"{job_id}.")
    assert wire.task(second)["status"] == "working"


def test_wait_for_several_is_one_task(wire: Wire, jobs: Jobs, gate: Any) -> None:
    both = [jobs.execute("exit 1").job_id, jobs.execute(f"read x < {gate}").job_id]
    task_id = wire.call("wait", job_id=both, mode="all")["taskId"]
    gate.write_text("go\n")
    fields = wire.completed(task_id)["structuredContent"]
    assert [(one["job_id"], one["exit_code"]) for one in fields["jobs"]] == [(both[0], 1), (both[1], 0)]


def test_bound_that_was_asked_for_ends_the_task(wire: Wire, jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    task_id = wire.call("wait", job_id=job_id, timeout=1.5)["taskId"]
    assert wire.completed(task_id)["structuredContent"]["reason"] == "timeout"


def test_cancelled_task_ends_the_waiting_and_not_the_job(wire: Wire, jobs: Jobs) -> None:
    job_id = wire.call("execute", command="sleep 1000", wait=600)["taskId"]
    assert wire.task(job_id, "tasks/cancel")["resultType"] == "complete"
    assert wire.task(job_id)["status"] == "cancelled"
    assert jobs.status(job_id).status == "running"


def test_cancelling_what_is_over_changes_nothing(wire: Wire, gate: Any) -> None:
    task_id = wire.call("execute", command=f"read x < {gate}", wait=600)["taskId"]
    gate.write_text("go\n")
    wire.completed(task_id)
    wire.task(task_id, "tasks/cancel")
    assert wire.task(task_id)["status"] == "completed"


def test_update_is_acknowledged(wire: Wire) -> None:
    task_id = wire.call("execute", command="sleep 1000", wait=600)["taskId"]
    answer = wire.modern("tasks/update", taskId=task_id, inputResponses={"x": {}})["result"]
    assert answer["resultType"] == "complete"


METHODS = ("tasks/get", "tasks/cancel", "tasks/update")


def test_unknown_task_is_invalid(wire: Wire, jobs: Jobs) -> None:
    no_task = jobs.execute("sleep 1000").job_id
    for task_id in ("nosuch-1234", "nosuch-1234.00000000", "../../etc", "", no_task):
        assert [wire.code(method, taskId=task_id) for method in METHODS] == [-32602] * 3, task_id


def test_removed_jobs_task_is_gone(wire: Wire, jobs: Jobs) -> None:
    job_id = wire.call("execute", command="sleep 1000", wait=600)["taskId"]
    jobs.kill(job_id)
    with jobs.host.store.lock():
        jobs.host.store.remove(job_id)
    assert wire.code("tasks/get", taskId=job_id) == -32602


def test_request_must_declare_the_extension(wire: Wire) -> None:
    task_id = wire.call("execute", command="sleep 1000", wait=600)["taskId"]
    for method in METHODS:
        error = wire.modern(method, declared=False, taskId=task_id)["error"]
        assert error["code"] == -32021
        assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


def test_client_that_declares_nothing_gets_the_bounded_wait(wire: Wire) -> None:
    result = wire.call("execute", declared=False, command="sleep 1000", wait=1.3)
    assert (result["resultType"], result["structuredContent"]["reason"]) == ("complete", "timeout")


def test_older_era_knows_no_tasks(wire: Wire, jobs: Jobs) -> None:
    capabilities = {"extensions": {EXTENSION: {}}}
    hello = {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    wire.request("initialize", hello)
    wire.send({"method": "notifications/initialized"})
    meta = {"io.modelcontextprotocol/clientCapabilities": capabilities}
    call = {"name": "execute", "arguments": {"command": "sleep 1000", "wait": 1.3}, "_meta": meta}
    result = wire.request("tools/call", call)["result"]
    assert result["structuredContent"]["reason"] == "timeout"
    job_id = result["structuredContent"]["job_id"]
    assert wire.request("tasks/get", {"taskId": job_id, "_meta": meta})["error"]["code"] == -32601


def test_end_told_by_a_task_is_not_told_again(wire: Wire, jobs: Jobs, gate: Any) -> None:
    task_id = wire.call("execute", command=f"read x < {gate}", wait=600)["taskId"]
    gate.write_text("go\n")
    wire.completed(task_id)
    ended(jobs, task_id)
    assert "also_ended" not in wire.call("list")["structuredContent"]
