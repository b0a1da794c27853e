"""How OpenMP's threads wait: they spin while they are alone, and sleep while other programs want the cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cornernet.kernels import openmp

ROOT = Path(__file__).parents[3]

START = """
import ctypes, json, os, subprocess, sys, threading, time
import torch
torch.set_num_threads(2)
from cornernet.kernels import openmp

def cpu_of_waiting():
    # a loop of two threads, then nothing for longer than a thread spins: what is used meanwhile is used by spinning
    x = torch.ones(1 << 18)
    x + x
    time.sleep(0.1)
    used = time.process_time()
    for _ in range(10):
        x + x
        time.sleep(0.05)
    return time.process_time() - used
"""


def run(code: str, **variables: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if name not in openmp.VARIABLES}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", START + code], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def watches() -> bool:
    """Return whether this machine has what it takes: GNU's OpenMP, and the times of waiting."""
    return bool(run("print(json.dumps(openmp.make_way()))"))


def crowded(*looks: tuple[float, float]) -> list[bool]:
    crowding = openmp.Crowding()
    return [crowding.look(now, waited) for now, waited in looks]


def test_the_cores_are_wanted_as_soon_as_threads_wait_for_them() -> None:
    assert crowded((0.2, 0.05), (0.4, 0.14), (0.6, 0.15), (0.8, 0.9)) == [False, False, True, True]


def test_the_cores_are_free_again_after_a_second_without_waiting() -> None:
    assert crowded((1.0, 0.5), (1.9, 0.0), (2.0, 0.0), (2.2, 0.1)) == [True, True, False, False]


def test_waiting_once_more_starts_the_second_again() -> None:
    assert crowded((1.0, 0.5), (1.9, 0.5), (2.1, 0.0), (2.8, 0.0), (2.9, 0.0)) == [True, True, True, True, False]


@pytest.mark.slow
def test_threads_sleep_while_another_program_wants_their_core() -> None:
    """Both threads and a program that computes share one core, so that any machine is a busy one."""
    if not watches():
        pytest.skip("no GNU OpenMP, or a system that does not tell how long threads wait")
    measured = run("""
torch.manual_seed(0)
maps = torch.randn(64, 64, 64)
result, alone = maps.sum(0), cpu_of_waiting()
openmp.make_way()
torch.ones(1 << 18) + 1
core = min(os.sched_getaffinity(0))
for task in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(task), {core})
rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
x = torch.ones(1 << 18)
end = time.monotonic() + 300
while not openmp.ways_made() and time.monotonic() < end:
    x + x
made = openmp.ways_made()
time.sleep(0.1)
beside = cpu_of_waiting()
same = torch.equal(result, maps.sum(0)) and torch.get_num_threads() == 2
rival.kill()
print(json.dumps([alone, made, beside, same]))
""")
    alone, made, beside, same = measured
    assert made
    assert same, "neither the threads nor the results depend on how they wait"
    assert beside < alone / 2, "they spin as long as when nobody waits for the core"


@pytest.mark.parametrize("variable", openmp.VARIABLES)
def test_a_variable_of_the_user_wins(variable: str) -> None:
    value = "passive" if variable == "OMP_WAIT_POLICY" else "10000"
    code = "print(json.dumps([openmp.make_way(), [t.name for t in threading.enumerate()]]))"
    assert run(code, **{variable: value}) == [False, ["MainThread"]]


def test_one_thread_waits_for_nobody() -> None:
    assert run("torch.set_num_threads(1)\nprint(json.dumps(openmp.make_way()))") is False


def test_a_detector_starts_one_watcher_however_often_it_is_built() -> None:
    makes_way, watchers = run("""
from cornernet import build_detector, recipe
for _ in range(2):
    build_detector(recipe("tiny"))
names = [thread.name for thread in threading.enumerate()]
print(json.dumps([openmp.make_way(), names.count("make-way")]))
""")
    assert watchers == int(makes_way)
