"""
Goal: killing any one server in mid-rehearsal gives a hold with a clear sentence, and the run goes on by itself when the
server returns; the rehearsal still passes.
Method: one whole rehearsal; each server of the simulated beamline is killed with SIGKILL at a moment that hurts it most:
the membrane controller and the spectrometer in mid-ramp, the detector's IOC in mid-scan, the membrane again in an isobar.
"""
import os
import signal
import sys
import time

from rehearsal import Rehearsal


def kill(night, name, at, sentence, then):
    os.kill(night.server_pid(name), signal.SIGKILL)
    print(f"    killed the {name} server", flush=True)
    at = night.wait_line(sentence, at, wall_s=30)
    night.check(True, f"{name} killed: {night.lines[at - 1]}")
    at = night.wait_line(then, at, wall_s=120)
    night.check(True, f"{name} back: {night.lines[at - 1]}")
    return at


def wait_status(night, pattern, at):
    """Progress lines come every 10 s of wall time when the output is not a terminal; ask for one at once instead."""
    import re
    import subprocess
    deadline = time.monotonic() + 120
    program = os.path.join(sys.argv[1], "bin", "isobar")
    while time.monotonic() < deadline:
        answer = subprocess.run([program, "status", "--db", os.path.join(night.directory, "night.db")],
                                capture_output=True, text=True).stdout
        if re.search(pattern, answer):
            return
        time.sleep(0.02)
    raise AssertionError(f"no status like '{pattern}' within 120 s; the last: {answer}")


def main():
    night = Rehearsal(sys.argv[1], "night_kill")
    going_on = r"the reasons for holding are gone: going on"
    at = night.wait_line(r"step 2 of 7, load to 1.50 GPa: ramp")
    wait_status(night, r"load to 1.50 GPa: ramp\] 0\.[3-9]", at)
    at = kill(night, "membrane", at, r"warning hold: no link to the membrane controller", going_on)
    at = night.wait_line(r"scan 1 attempt 1: 6000 frames", at)
    wait_status(night, r"scan 1: [1-9]\d* frames", at)
    at = kill(night, "ioc", at, r"warning hold: no link to the detector", r"scan 1 complete")
    night.check(any("scan 1 attempt 1 failed" in line for line in night.lines if line), "the cut scan is not used")
    at = kill(night, "membrane", at, r"the step goes on: no link to the membrane controller", going_on)
    at = night.wait_line(r"step 4 of 7, load to 3.30 GPa: ramp", at)
    wait_status(night, r"load to 3.30 GPa: ramp\] [2-3]\.", at)
    at = kill(night, "spectrometer", at, r"warning hold: no link to the spectrometer", going_on)
    code = night.end()
    night.check(code == 0, f"the rehearsal passes all the same (exit status {code})")
    night.exit()


main()
