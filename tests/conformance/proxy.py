"""Stands before `tmuxjobs serve --http` for the conformance suite, which has no token and calls tools of its own.

It adds the token, and where the suite calls `slow_compute` it calls `execute` of a command that takes as long.
"""

import contextlib
import json
import re
import socket
import socketserver
import threading

PIECE = 65536


class Proxy(socketserver.ThreadingTCPServer):
    """On a port of its own; one request for each connection, so that each has the token."""

    daemon_threads = True

    def __init__(self, port: int, token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = ("127.0.0.1", port)
        self.added = [f"Authorization: Bearer {token}".encode(), b"Connection: close"]


class Handler(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        request = b""
        while not is_whole(request):
            piece = self.request.recv(PIECE)
            if not piece:
                return
            request += piece
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        body, lines = as_ours(body, lines)
        lines = [line for line in lines if not line.lower().startswith((b"connection:", b"content-length:"))]
        length = f"Content-Length: {len(body)}".encode()
        with socket.create_connection(self.server.behind) as behind:
            behind.sendall(b"\r\n".join([first, *lines, *self.server.added, length, b"", body]))
            threading.Thread(target=pump, args=(self.request, behind), daemon=True).start()
            pump(behind, self.request)


def is_whole(request: bytes) -> bool:
    """Whether all of its head, and all of the body that the head announces, has come."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def as_ours(body: bytes, lines: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The request, a call of the suite's tool as one of ours."""
    with contextlib.suppress(ValueError):
        message = json.loads(body)
        if isinstance(message, dict) and message.get("method") == "tools/call":
            params = message["params"]
            if params.get("name") == "slow_compute":
                seconds = params["arguments"]["seconds"]
                # What is over within a second is answered at once, and the suite wants a task.
                command = f"sleep {seconds + 1}" if seconds else "true"
                params |= {"name": "execute", "arguments": {"command": command, "wait": 50}}
                lines = [re.sub(rb"(?i)^(mcp-name: *)slow_compute$", rb"\1execute", line) for line in lines]
                return json.dumps(message).encode(), lines
    return body, lines


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side has closed
        while piece := source.recv(PIECE):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
