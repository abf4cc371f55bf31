"""Programs that look at their terminal while they work, or pass on what is typed: `python3 works.py SHAPE [ARGV]`.

frames   looks for a key between the frames of a line that it draws again and again
counts   looks for a key now and then behind a line that it does not draw again
thread   has a thread that reads while it works
child    looks for lines while its child works
socket   copies to a socket what is typed, as nc and ssh do
guest    lets one ask who is not of the terminal's session, as gpg's agent does
inner    runs ARGV on a terminal of its own, as script, expect and sudo do
"""

import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
import time

shape = sys.argv[1]
if shape == "inner":
    pty.spawn(sys.argv[2:])
elif shape in ("frames", "counts"):
    os.write(1, b"working")
    frame = 0
    while not select.select([0], [], [], 0.3)[0]:
        frame += 1
        if shape == "frames":
            os.write(1, f"frame {frame}\r".encode() if frame % 2 else f"\rframe {frame}".encode())
elif shape == "socket":
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        time.sleep(1000)
    theirs.close()
    os.write(1, b"Working... ")
    select.select([0, ours], [], [])
elif shape == "guest":
    place = os.ttyname(0)
    waits, answers = os.pipe()
    if os.fork() == 0:
        os.setsid()
        terminal = os.open(place, os.O_RDWR | os.O_NOCTTY)
        modes = termios.tcgetattr(terminal)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
        os.write(terminal, b"PIN of the card: ")
        select.select([terminal], [], [], 1000)
        os._exit(0)
    os.close(answers)
    os.read(waits, 1)
elif shape == "thread":
    threading.Thread(target=sys.stdin.readline, daemon=True).start()
    os.write(1, b"working... ")
    while True:
        time.sleep(0.2)
else:
    child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    loop = select.epoll()
    loop.register(0, select.EPOLLIN)
    loop.register(child.stdout, select.EPOLLIN)
    os.write(1, b"building... ")
    loop.poll()
