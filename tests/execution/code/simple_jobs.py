"""Small jobs for tests of the executor. User code: it runs on workers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NoReturn

from jobflow import Flow, Job, Response, job


def append(file: str, line: str) -> None:
    """Append a line in one system call, so that lines of many processes never mix."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


@job
def log_line(file: str, line: str, after: Any = None) -> str:
    """Append a line to a file; ``after`` is what must have run before."""
    append(file, line)
    return line


@job
def log_span(file: str, name: str, seconds: float, after: Any = None) -> str:
    """Append when the job begins and when it ends."""
    append(file, f"begin {name} {time.time():.3f}")
    time.sleep(seconds)
    append(file, f"end {name} {time.time():.3f}")
    return name


@job
def wait_for(path: str, after: Any = None) -> str:
    """Say that it runs, and go on once a file exists."""
    Path(f"{path}.runs").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@job
def log_and_wait(file: str, line: str, gate: str) -> str:
    """Append a line, and go on once a file exists."""
    append(file, line)
    while not Path(gate).exists():
        time.sleep(0.02)
    return line


@job
def fails(text: str) -> NoReturn:
    raise ValueError(text)


@job
def fails_at_first(file: str, line: str, times: int, after: Any = None) -> int:
    """Append a line, and fail unless that many are there already; return how many there are."""
    append(file, line)
    attempts = Path(file).read_text().splitlines().count(line)
    if attempts <= times:
        raise ValueError(f"{line} fails for the {attempts}. time")
    return attempts


@job
def dies(code: int) -> NoReturn:
    os.write(2, b"last words \xff\n")
    os._exit(code)


@job
def ignores_the_end(path: str) -> None:
    """Fork a child that ignores SIGTERM, write its pid, and ignore SIGTERM, too."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    Path(f"{path}.partial").write_text(str(child))
    Path(f"{path}.partial").rename(path)
    time.sleep(60)


@job
def removes_its_directory() -> str:
    import shutil

    shutil.rmtree(Path.cwd())
    return "homeless"


@job
def prints_bytes() -> str:
    os.write(1, b"\xff\xfe\n")
    os.write(2, b"\xff\xfe\n")
    return "printed"


@job
def leaves_a_child() -> int:
    """Leave a process behind that lives on with stdout open; return its pid."""
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    return child


@job(data="heavy")
def keeps_heavy(n: int) -> dict[str, Any]:
    return {"light": n, "heavy": list(range(n))}


@job
def give(value: Any) -> Any:
    return value


@job
def relaxes(file: str, step: int, last: int) -> Any:
    """Tell each step, and replace itself by the next one until the last."""
    append(file, f"step {step}")
    output = {"step": step, "forces": last - step}
    return Response(output=output, replace=relaxes(file, step + 1, last) if step < last else None)


@job
def total(values: list[float]) -> float:
    return sum(values)


@job
def opens_gate_then_generates(gate: str) -> Response:
    """Wait for a file, then ask for two more jobs."""
    while not Path(gate).exists():
        time.sleep(0.01)
    child = give(1)
    child.name = "child"
    return Response(addition=Flow([child]))


@job
def log_and_fail(file: str) -> NoReturn:
    append(file, "failed")
    raise ValueError("as it was told to")


@job
def log_and_generate(file: str) -> Response:
    """Append a line, and ask for two jobs that do so, too."""
    append(file, "generator")
    first = log_line(file, "first")
    second = log_line(file, "second", first.output)
    return Response(addition=Flow([first, second]))


def one_retried(function: str, args: list[Any], retries: dict[str, Any]) -> Job:
    """Return one job of this module, with retries."""
    made: Job = globals()[function](*args)
    made.config.manager_config = {"retries": retries}
    return made


def one(function: str, **kwargs: Any) -> Job:
    """Return one job of this module."""
    made: Job = globals()[function](**kwargs)
    return made


@job
def some_bytes() -> dict[str, Any]:
    """Return bytes in several places of an output."""
    return {"blob": b"abc\x00\xff", "empty": b"", "list": [b"x", {"deep": b"y"}], "text": "@bytes"}


@job
def joined(value: Any) -> list[str]:
    """Return the types and values that a job gets from :func:`some_bytes`."""
    return [f"{type(one).__name__} {one!r}" for one in (value["blob"], value["empty"], value["list"][0])]


@job
def numbers(count: int) -> dict[str, Any]:
    """Return a list of numbers, of nine bytes each as stored, and more."""
    return {"values": [n / 7 for n in range(count)], "count": count, "rows": [{"n": n} for n in range(9)]}


@job(data="values")
def numbers_kept_apart(count: int) -> dict[str, Any]:
    """Return the same with the list in an additional store."""
    return {"values": [n / 7 for n in range(count)], "count": count}


@job
def counts_on(last: int) -> dict[str, Any]:
    """Append the number of this attempt to a file that attempts hand on, and fail unless it has ``last``."""
    state, began = Path("count.ckpt"), Path("start.in")
    attempts = state.read_text().split() if state.exists() else []
    attempts.append(os.environ["RECONCILER_ATTEMPT"])
    started = began.read_text() if began.exists() else "0"
    state.write_text(" ".join(attempts))
    Path("next.in").write_text(attempts[-1])
    if len(attempts) < last:
        raise RuntimeError("it needs another attempt")
    previous = os.environ.get("RECONCILER_PREVIOUS_RUN_DIR")
    return {"attempts": attempts, "previous": previous, "started": started}


@job
def counts_until_signalled(last: int) -> list[str]:
    """Like :func:`counts_on`, but each attempt except the last one works until SIGUSR1 announces its end."""
    import signal

    ends: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: ends.append(number))
    state = Path("count.ckpt")
    attempts = [*(state.read_text().split() if state.exists() else []), os.environ["RECONCILER_ATTEMPT"]]
    while len(attempts) < last and not (ends or Path("claim/signalled").exists()):
        time.sleep(0.05)
    state.write_text(" ".join(attempts))
    if len(attempts) < last:
        raise RuntimeError("the time is over")
    return attempts
