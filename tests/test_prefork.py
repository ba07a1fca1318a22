"""Jobs forked from a prepared process behave like others, and none outlives its script."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grpo_origin.jobs import prefork
from grpo_origin.study import PRELOADED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")
HAND_OVER = "from grpo_origin.jobs import prefork\nprefork.hand_over()\nimport os, sys, time\n"
LISTENING = "00010000"  # flags of a socket in /proc/net/unix


@pytest.fixture
def server(monkeypatch):
    """A prepared process that has imported nothing, so that it is ready at once."""
    name = f"grpo-origin-test-{os.getpid()}"
    serve = f"prefork.serve({name!r}, {os.getpid()}, [])"
    code = f"from grpo_origin.jobs import prefork; {serve}"
    process = subprocess.Popen([sys.executable, "-c", code])
    monkeypatch.setenv(prefork.VARIABLE, name)
    deadline = time.monotonic() + 20
    while not any(
        line.endswith(f"@{name}") and line.split()[3] == LISTENING
        for line in Path("/proc/net/unix").read_text().splitlines()
    ):
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def script(folder: Path, body: str) -> list[str]:
    file = folder / "job.py"
    file.write_text(HAND_OVER + body)
    return [sys.executable, str(file)]


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_runs_in_a_fork_with_its_output_folder_and_environment(server, tmp_path):
    command = script(
        tmp_path,
        "print(os.getppid(), os.getcwd(), os.environ['MARK'])\nprint('warned', file=sys.stderr)",
    )
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ) | {"MARK": "x"},
        timeout=120,
    )
    assert result.returncode == 0
    assert result.stdout.split() == [str(server.pid), str(tmp_path), "x"]
    assert result.stderr == "warned\n"


@pytest.mark.parametrize(
    ("body", "code", "shown"),
    [("sys.exit(3)", 3, ""), ("sys.exit('gone')", 1, "gone"), ("1/0", 1, "ZeroDivisionError")],
)
def test_exit_status_and_message(server, tmp_path, body, code, shown):
    result = subprocess.run(script(tmp_path, body), capture_output=True, text=True, timeout=120)
    assert (result.returncode, shown in result.stderr) == (code, True)


def test_jobs_are_forked_with_the_modules_of_the_caller_imported(tmp_path):
    (tmp_path / "slow.py").write_text("import os\nwho = os.getpid()\n")
    body = "slow = sys.modules.get('slow')\nprint(bool(slow and slow.who == os.getppid()))"
    controller = tmp_path / "controller.py"
    controller.write_text(
        "import subprocess, sys, time\nfrom grpo_origin.jobs import prefork\n"
        "prefork.start(['slow'])\nend, said = time.monotonic() + 20, ''\n"
        "while 'True' not in said and time.monotonic() < end:\n"
        "    said = subprocess.run(sys.argv[1:], capture_output=True, text=True).stdout\n"
        "print(said)\n"
    )
    environ = dict(os.environ)
    environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environ.get('PYTHONPATH', '')}"
    result = subprocess.run(
        [sys.executable, str(controller), *script(tmp_path, body)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
    )
    assert result.stdout.strip() == "True", result.stderr


def test_the_modules_that_the_workflow_has_imported_are_there():
    assert all(importlib.util.find_spec(name) for name in PRELOADED)


def test_goes_on_by_itself_without_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv(prefork.VARIABLE, "grpo-origin-not-there")
    result = subprocess.run(
        script(tmp_path, "print(os.getppid())"), capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == [str(os.getpid())]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_job(server, tmp_path, how):
    handler = f"import signal\nsignal.signal({how:d}, lambda *_: sys.exit(7))\n"
    body = handler + "open('ready', 'w').close()\ntime.sleep(60)"
    process = subprocess.Popen(script(tmp_path, body), cwd=tmp_path)
    wait_for((tmp_path / "ready").exists)
    process.send_signal(how)
    assert process.wait(timeout=120) == 7


@pytest.mark.parametrize("victim", ["script", "server"])
def test_no_job_outlives_its_script_or_the_server(server, tmp_path, victim):
    body = "open('part', 'w').write(str(os.getpid()))\nos.rename('part', 'pid')\ntime.sleep(60)"
    process = subprocess.Popen(script(tmp_path, body), cwd=tmp_path)
    wait_for((tmp_path / "pid").exists)
    child = int((tmp_path / "pid").read_text())
    (process if victim == "script" else server).kill()
    wait_for(lambda: not alive(child))
    assert process.wait(timeout=120) != 0


def test_nothing_is_told_to_a_server_of_another_user(monkeypatch):
    name = f"grpo-origin-test-foreign-{os.getpid()}"
    monkeypatch.setenv(prefork.VARIABLE, name)
    told = []

    def listen() -> None:
        with listener.accept()[0] as connection:
            told.append(connection.recv(4096))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        me = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: me + 1)
        prefork.hand_over()  # returns: the script runs by itself
        thread.join(20)
    assert told == [b""]


def ask_and_leave(server: subprocess.Popen, sent: bytes, file: int) -> None:
    """Be a script that has sent this much and is gone before the server gets to it."""
    server.send_signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + os.environ[prefork.VARIABLE])
        if sent:
            socket.send_fds(connection, [sent], [file] * 3)
    server.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "size",
    [0, 2, 4, 20, None],
    ids=["nothing", "half a length", "a length", "half a request", "a request"],
)
def test_a_script_that_goes_before_its_job_has_begun_takes_only_its_job_along(
    server, tmp_path, size
):
    (tmp_path / "long.py").write_text("import time\ntime.sleep(120)")
    request = json.dumps(
        {"argv": [str(tmp_path / "long.py")], "cwd": str(tmp_path), "environ": dict(os.environ)}
    ).encode()
    ours, jobs = os.pipe()
    ask_and_leave(server, (struct.pack("!I", len(request)) + request)[:size], jobs)
    os.close(jobs)
    assert select.select([ours], [], [], 20)[0], (
        "the job lives on, or the server has kept its files"
    )
    assert os.read(ours, 1) == b""
    os.close(ours)
    result = subprocess.run(
        script(tmp_path, "print(os.getppid())"), capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == [str(server.pid)]
    assert server.poll() is None
