"""Ctrl-C while a search goes on."""

import signal
import threading

import pytest

from llic_jax.system.interrupts import Search


@pytest.fixture(autouse=True)
def pythons_own_answer():
    """A shell's background job ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_ends_the_search_the_second_the_process():
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


def test_elsewhere_than_in_the_main_thread_nothing_changes():
    def run():
        with Search().answers_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_who_ignores_interrupts_goes_on_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Search().answers_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
