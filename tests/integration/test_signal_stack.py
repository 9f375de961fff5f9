"""Signals after a model has gone: OpenVINO gives threads stacks for signal handlers, and takes them away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.integration.house import House, embedding, reload, running, served
from tests.processes import clean_environment, wait_until

LOADED_HERE_AND_DROPPED_THERE = """
import gc, os, signal, sys, threading
from llmrs.models.engines import open_engine
from llmrs.models.folder import read_folder

folder = read_folder(__import__("pathlib").Path(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *about: print("handled"))
models = [open_engine(folder)]

def replace():
    models.append(open_engine(folder))
    del models[0]
    gc.collect()

thread = threading.Thread(target=replace)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_another_thread_let_the_first_model_go(house: House) -> None:
    command = [sys.executable, "-c", LOADED_HERE_AND_DROPPED_THERE, str(house.tiny.folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr[-2000:]


@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
@pytest.mark.chooses_worker_class
def test_a_stop_after_a_reload_ends_without_a_fault(house: House, worker_class: str) -> None:
    house.write(house.local("tiny", house.tiny))
    with running(house, WORKER_CLASS=worker_class) as server:
        before = embedding(server, "tiny")
        for model in (house.other, house.tiny):
            house.write(house.local("tiny", model))
            assert reload(server).json()["models"] == ["tiny"]
            gone = "model tiny is served no more"
            wait_until(lambda seen=gone: seen in server.log, 30, server)
            time.sleep(0.2)  # the last reference may be a thread's, which lets it go a moment later
        assert served(server) == ["tiny"]
        assert embedding(server, "tiny") == pytest.approx(before, abs=1e-6)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "SIG" not in server.log
