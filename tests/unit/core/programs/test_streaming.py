"""Programs whose output is read as it comes: their end, what they leave, and what is told of them."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, kill_running, stream
from tests.unit.core.programs.test_running import PARENT, wait_until_gone

ENDLESS = "import sys\nwhile True: sys.stdout.write('x' * 4096)"


def python(code: str, *arguments: str, idle_seconds: float = 30, **options: Any) -> Any:
    command = [sys.executable, "-c", code, *arguments]
    return stream(command, name="it", environment=os.environ, idle_seconds=idle_seconds, **options)


def read(child: Any) -> bytes:
    found, buffer = b"", memoryview(bytearray(100_000))
    while count := child.read_into(buffer):
        found += buffer[:count]
    return found


def test_gives_all_that_it_wrote_and_what_it_said() -> None:
    code = "import sys; sys.stdout.write('y' * 3_000_000); print('said', file=sys.stderr)"
    with python(code) as child:
        assert read(child) == b"y" * 3_000_000
        assert child.finish() == "said\n"


def test_what_it_says_does_not_stop_it() -> None:
    code = "import sys; sys.stderr.write('z' * 5_000_000); sys.stderr.write('\\nlast\\n'); print('done')"
    with python(code) as child:
        assert read(child) == b"done\n"
        assert child.finish().endswith("last\n")
        assert len(child.errors) <= 5_000_000


def test_a_failure_is_told_without_its_output() -> None:
    with python("import sys; print('told', file=sys.stderr); sys.exit(3)") as child:
        assert read(child) == b""
        with pytest.raises(ProgramError) as caught:
            child.finish()
    assert str(caught.value) == "it ended with status 3"
    assert caught.value.output == "told\n"


def test_secrets_are_struck_out_of_what_it_says() -> None:
    code = "import sys; print('password pw-12 is wrong', file=sys.stderr); sys.exit(1)"
    with python(code, secrets=["pw-12", ""]) as child:
        read(child)
        with pytest.raises(ProgramError) as caught:
            child.finish()
    assert caught.value.output == "password *** is wrong\n"


def test_silence_is_not_waited_for_longer_than_told(tmp_path: Path) -> None:
    with (
        python(PARENT, str(tmp_path / "pids"), idle_seconds=2) as child,
        pytest.raises(ProgramTimeoutError, match="it wrote nothing for 2 s and was killed"),
    ):
        read(child)
    wait_until_gone(tmp_path / "pids")


def test_an_end_is_not_waited_for_longer_than_told() -> None:
    code = "import os, time; os.close(1); time.sleep(60)"
    with python(code, idle_seconds=1) as child:
        assert read(child) == b""
        with pytest.raises(ProgramTimeoutError, match="it did not end within 1 s and was killed"):
            child.finish()


BEGUN = PARENT.replace("time.sleep(60)\n", "print('begun', flush=True); time.sleep(60)\n")


def read_and_fail(*arguments: str) -> None:
    with python(BEGUN, *arguments) as child:
        child.read_into(memoryview(bytearray(5)))
        raise RuntimeError("of the reader")


def test_nothing_is_left_when_nobody_reads_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the reader"):
        read_and_fail(str(tmp_path / "pids"))
    wait_until_gone(tmp_path / "pids")


def test_a_program_that_writes_on_is_killed_when_the_block_is_left() -> None:
    with python(ENDLESS) as child:
        child.read_into(memoryview(bytearray(10)))
        pid = child._child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_can_be_killed_from_elsewhere() -> None:
    with python(ENDLESS) as child:
        killer = threading.Timer(0.5, kill_running)
        killer.start()
        read(child)
        with pytest.raises(ProgramError, match="was killed by signal SIGKILL"):
            child.finish()
        killer.join()


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ProgramError, match="it cannot be started: No such file"):
        stream(["/nowhere"], name="it", environment={}, idle_seconds=1).__enter__()
