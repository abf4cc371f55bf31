"""Line editors and menus in the shapes that real ones have: `python3 asks.py SHAPE [PROMPT]`.

hint     raw mode; the prompt, a row of hints below it, and the cursor back behind the prompt
toolkit  as prompt_toolkit: an event loop that wakes twice a second, a tool bar, brackets around what is pasted
stars    the same, with a star for each character
slow     the same, but what is typed shows a moment later
hidden   a menu whose cursor is hidden, in an event loop
watch    the same, by one that waits for its files too
redraws  a program that has the whole screen, draws it again and again, and reads nothing
screen   a program that has the whole screen; `q` ends it, and for a moment it still looks for keys
"""

import os
import select
import socket
import sys
import termios
import time
import tty

shape = sys.argv[1]
prompt = sys.argv[2] if len(sys.argv) > 2 else "Name: "
before = termios.tcgetattr(0)
ours, _theirs = socket.socketpair()
loop = select.epoll()
loop.register(0, select.EPOLLIN)
loop.register(ours, select.EPOLLIN)


def write(text: str) -> None:
    os.write(1, text.encode())


def edit_line() -> None:
    """A line that is drawn anew after each key, with something below it."""
    typed = ""
    write("\x1b[?2004h")
    while True:
        shown = "*" * len(typed) if shape == "stars" else typed
        write(f"\r\x1b[J{prompt}{shown}\r\n[F2] menu, Enter to accept\x1b[1A\r\x1b[{len(prompt) + len(shown)}C")
        while not loop.poll(0.5):
            pass
        for key in os.read(0, 4096).decode():
            if key in "\r\n":
                write(f"\x1b[?2004l\r\x1b[J{prompt}\r\n{len(typed)} characters\r\n")
                return
            typed = typed[:-1] if key == "\x7f" else typed + key
        if shape == "slow":
            time.sleep(0.2)


tty.setraw(0) if shape == "hint" else tty.setcbreak(0)
try:
    if shape == "hint":
        write(f"{prompt}\r\n(a hint)\x1b[1A\r\x1b[{len(prompt)}C")
        select.select([0], [], [])
    elif shape in ("hidden", "watch"):
        if shape == "watch":
            changes, _change = os.pipe()
            if os.fork() == 0:  # the other end is somebody else's
                time.sleep(1000)
            os.close(_change)
            loop.register(changes, select.EPOLLIN)
        write(f"\x1b[?25l{prompt}\r\n> one\r\n  two\r\n")
        loop.poll()
    elif shape == "redraws":
        write(f"before\r\n\x1b[?1049h\x1b[H{prompt}")
        for number in range(1000):
            write(f"\x1b[H\x1b[2J{prompt}\x1b[2;1H{number}{' ' * 2000}")
            time.sleep(0.05)
    elif shape == "screen":
        write(f"\x1b[?1049h\x1b[H{prompt}\r\nsome text\x1b[H")
        while os.read(0, 1) != b"q":
            pass
        write("\x1b[2;1Hbye")
        select.select([0], [], [], 0.2)
        write("\x1b[?1049l")
        select.select([0], [], [], 0.1)
    else:
        edit_line()
finally:
    write("\x1b[?25h")
    termios.tcsetattr(0, termios.TCSADRAIN, before)
