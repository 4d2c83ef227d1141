"""Ctrl-C while a command's modules load, and while a search goes on."""

import ast
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llic_jax.system import interrupts
from llic_jax.system.interrupts import Search
from llic_jax.system.streams import run_command

ROOT = Path(__file__).parents[2]

LOADING = """
import signal, time
from llic_jax.system import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
interrupts.end_at_once()
print("loading", flush=True)
time.sleep(60)
"""


def test_the_process_ends_without_a_traceback():
    child = subprocess.Popen(
        [sys.executable, "-c", LOADING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "loading\n"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30) == ("", "")
    assert child.returncode == -signal.SIGINT  # a shell says 130


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_command_that_has_begun_is_told(before):
    handler = signal.signal(signal.SIGINT, before)
    try:
        interrupts.end_at_once()
        ignored = before is signal.SIG_IGN  # in the background of a shell
        loading = signal.getsignal(signal.SIGINT)
        assert loading is (signal.SIG_IGN if ignored else signal.SIG_DFL)
        assert run_command("test", lambda: int(signal.getsignal(signal.SIGINT) is before)) == 1
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("script", ["train.py", "eval.py", "llic_jax/__main__.py"])
def test_it_comes_before_the_other_imports(script):
    calls = [n for n in ast.walk(ast.parse((ROOT / script).read_text())) if hasattr(n, "lineno")]
    [end] = [n.lineno for n in calls if isinstance(n, ast.Call) and "end_at_once" in ast.dump(n)]
    imported = [n for n in calls if isinstance(n, ast.Import | ast.ImportFrom) and n.lineno < end]
    assert {alias.name for n in imported for alias in n.names} <= {"sys", "interrupts"}


@pytest.fixture
def pythons_own_answer():
    """A shell's background job ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_ends_the_search_the_second_the_process(pythons_own_answer):
    search = Search()
    with search.answers_interrupts():
        with pytest.raises(KeyboardInterrupt):  # there is nothing to keep yet
            signal.raise_signal(signal.SIGINT)
        assert not search.ended.is_set()
        search.begun.set()
        signal.raise_signal(signal.SIGINT)
        assert search.ended.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_elsewhere_than_in_the_main_thread_nothing_changes(pythons_own_answer):
    def run():
        with Search().answers_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_who_ignores_interrupts_goes_on_ignoring_them(pythons_own_answer):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Search().answers_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
