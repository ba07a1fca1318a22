"""Start-up paid once: a process that has imported all, from which each job is forked (Linux).

Importing torch, transformers and trl takes seconds, and a sweep has hundreds of short jobs. While a
local sweep runs, the controller keeps one process with the imports done; a job's script hands
itself over to a fork of it and waits. Without such a process (another machine, another system,
before it is ready) the script simply goes on by itself.

A job lives exactly as long as its script: signals are passed on, and when the script or the
controller is killed the job is killed too. Knows nothing of what jobs do.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Sequence

VARIABLE = "GRPO_ORIGIN_PREFORK"
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1


def start(modules: Sequence[str]) -> None:
    """Start the process for the jobs of this controller; it dies with the calling thread.

    It imports the modules of these names before it serves.
    """
    if sys.platform != "linux":
        return
    name = f"grpo-origin-{os.getpid()}"
    os.environ[VARIABLE] = name
    subprocess.Popen(
        [sys.executable, "-m", "grpo_origin.jobs.prefork", name, str(os.getpid()), *modules],
        stdin=subprocess.DEVNULL,
    )


def hand_over() -> None:
    """Run this script in a fork of the prepared process and exit with its status.

    Returns if there is no such process.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect("\0" + name)
    except OSError:
        connection.close()
        return
    # the name can be guessed and taken, and the environment may hold secrets
    if not _same_user(connection):
        connection.close()
        return
    request = json.dumps(
        {"argv": sys.argv, "cwd": os.getcwd(), "environ": dict(os.environ)}
    ).encode()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is a job to tell
    socket.send_fds(connection, [struct.pack("!I", len(request))], [0, 1, 2])
    connection.sendall(request)
    answer = connection.makefile("rb")
    child = int(answer.readline() or b"0")
    if not child:
        sys.exit("error: the process that jobs are forked from has gone")
    for number in PASSED_ON:
        signal.signal(number, lambda got, _: os.kill(child, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = answer.readline()
    sys.exit(int(status) if status else 1)


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _run(request: dict, files: list[int], parent: int) -> None:
    """In the fork: become the script."""
    _die_with_parent(parent)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    os.environ.pop(VARIABLE)
    sys.argv = request["argv"]
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _same_user(connection: socket.socket) -> bool:
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return user == os.getuid()


def _receive(connection: socket.socket) -> tuple[dict, list[int]] | None:
    """What a script asks for and its open files; None if it went before it had said so."""
    files: list[int] = []
    try:
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        (size,) = struct.unpack("!I", head)
        with connection.makefile("rb") as stream:
            return json.loads(stream.read(size)), files
    except (OSError, ValueError, struct.error):
        _close(files)
        return None


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def serve(name: str, parent: int, modules: Sequence[str]) -> None:
    """Import the modules, then fork a job for each connection until the parent dies."""
    _die_with_parent(parent)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is imported stays: no collection in a job walks it or copies its pages
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name)
    listener.listen(64)
    wake, waker = socket.socketpair()
    for end in (wake, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    me = os.getpid()
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                received = _receive(connection) if _same_user(connection) else None
                if received is None:
                    connection.close()
                    continue
                request, files = received
                child = os.fork()
                if not child:
                    listener.close()
                    connection.close()
                    signal.set_wakeup_fd(-1)
                    _run(request, files, me)
                _close(files)
                # if the script has gone, the selector says so below
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % child)
                children[child] = connection
                selector.register(connection, selectors.EVENT_READ, data=child)
            elif key.fileobj is wake:
                wake.recv(4096)
                for child in list(children):
                    done, status = os.waitpid(child, os.WNOHANG)
                    if done:
                        _report(selector, children.pop(child), status)
            elif key.data in children:  # the script has gone: so must its job
                os.kill(key.data, signal.SIGKILL)
                selector.unregister(key.fileobj)


def _report(selector: selectors.BaseSelector, connection: socket.socket, status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # the script may have gone
        connection.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    if connection in selector.get_map():
        selector.unregister(connection)
    connection.close()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
