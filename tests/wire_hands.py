#!/usr/bin/python3
"""
Goal: the hands of the simulated world do what a person at the bench does, and the wire shows it.
Method: a world and its membrane controller; pymodbus sets 12 bar and then watches while `isobar-sim hands` locks the
cell, empties the membrane at the front panel and unlocks the cell; truth.jsonl tells about the screws.
"""
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import types

# Debian's pymodbus imports these for serial lines, which are not used here, but only recommends their packages.
for name in ("serial", "serial_asyncio"):
    sys.modules[name] = types.SimpleNamespace(create_serial_connection=None)

from pymodbus.client import ModbusTcpClient

SLOPE, FMEASURE, FSETPOINT = 0x0022, 0xa100, 0xa118
SIMULATOR = os.path.join(sys.argv[1], "bin", "isobar-sim")
WALL_S_MAX = 60
WITH_ME = ["setpriv", "--pdeathsig", "TERM"]  # a test that is killed leaves no simulator behind
failures = 0


def check(is_passed, text):
    global failures
    failures += not is_passed
    print("ok  " if is_passed else "FAIL", text, flush=True)


def wait_until(what, condition):
    """Looks again and again until the condition holds, with a deadline; whether it does."""
    end = time.monotonic() + WALL_S_MAX
    while not condition():
        if time.monotonic() > end:
            check(False, f"{what} within {WALL_S_MAX} s")
            return False
        time.sleep(0.01)
    return True


def read_bar(client, address):
    words = client.read_holding_registers(address, 2, slave=1).registers
    return struct.unpack(">f", struct.pack(">HH", *words))[0]


def connect(port):
    client = ModbusTcpClient("127.0.0.1", port=port)
    wait_until("the controller answers", client.connect)
    return client


def truth(folder):
    os.chmod(os.path.join(folder, "truth.jsonl"), 0o600)
    with open(os.path.join(folder, "truth.jsonl")) as stream:
        return [(int(lock), float(bar)) for bar, lock in
                re.findall(r'"membrane_bar":([-0-9.]+).*?"is_locked":(\d)', stream.read())]


def hands(folder, deed):
    return [SIMULATOR, "hands", "--dir", folder, deed]


def play(folder, started):
    world = subprocess.Popen([*WITH_ME, SIMULATOR, "world", "--dir", folder, "--seed", "3", "--speed-max", "60"],
                             stdout=subprocess.PIPE, text=True)
    started.append(world)
    check(world.stdout.readline() == "ready\n", "the world is ready")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    started.append(subprocess.Popen([*WITH_ME, SIMULATOR, "membrane", "--dir", folder, "--port", str(port)]))
    client = connect(port)
    client.write_register(SLOPE, 500, slave=1)
    client.write_registers(FSETPOINT, list(struct.unpack(">HH", struct.pack(">f", 12.0))), slave=1)
    wait_until("12 bar", lambda: read_bar(client, FMEASURE) > 11.9)

    deflating = subprocess.Popen(WITH_ME + hands(folder, "deflate"))
    started.append(deflating)
    seen = []

    def watch():
        seen.append((read_bar(client, FSETPOINT), read_bar(client, FMEASURE)))
        return deflating.poll() is not None
    wait_until("the hands are done", watch)
    check(deflating.returncode == 0, f"the hands end well (status {deflating.returncode})")
    setpoints = [setpoint for setpoint, _ in seen]
    check(setpoints[0] == 12 and setpoints[-1] == 0 and sorted(setpoints, reverse=True) == setpoints,
          "the set point at the front panel went down to zero")
    check(len(set(setpoints)) > 5, f"in turns, not at once: {len(set(setpoints))} values seen")
    check(read_bar(client, FMEASURE) < 0.3, "the membrane is empty")
    locked_bar = [bar for lock, bar in truth(folder) if lock]
    check(bool(locked_bar) and locked_bar[0] > 10, "the screws were drawn before the membrane was emptied")

    for deed, lock in (("unlock", 0), ("lock", 1)):
        check(subprocess.run(hands(folder, deed)).returncode == 0, f"{deed}: done")
        wait_until(f"{deed} shows", lambda: truth(folder)[-1][0] == lock)
    for words in (["hands", "--dir", folder], ["hands", "--dir", folder, "vent"], ["world", "--dir", folder, "deflate"]):
        run = subprocess.run([SIMULATOR] + words, capture_output=True, text=True)
        check(run.returncode == 2 and "usage" in run.stderr, f"{' '.join(words[:1] + words[3:])}: refused")

    orphan = subprocess.Popen(WITH_ME + hands(folder, "deflate"), stderr=subprocess.PIPE, text=True)
    started.append(orphan)
    world.terminate()
    world.wait()
    check(orphan.wait(timeout=WALL_S_MAX) == 1 and "ended" in orphan.stderr.read(), "hands without a world end, and say so")


def main():
    started = []
    with tempfile.TemporaryDirectory(prefix="isobar-hands-") as folder:
        try:
            play(folder, started)
        finally:
            for process in started:
                process.kill()
                process.wait()
    print(f"{'FAIL' if failures else 'ok'}: {failures} failures")
    sys.exit(1 if failures else 0)


main()
