"""
Goal: a sequence that ends with deflate { } can be rehearsed, with hands that lock the cell and empty the membrane in
the simulated world; and what the night taught of its cell begins the next rehearsal, which records it and replays.
Method: sequences/deflate.lua with a seed of its own (SEED=N repeats it); then the same with the passport of the first
night, and with one of another cell.
"""
import os
import re
import sqlite3
import struct
import subprocess
import sys
import time

from rehearsal import Rehearsal

SEQUENCE = "sequences/deflate.lua"


def truth_of(night):
    with open(os.path.join(night.directory, "truth.jsonl")) as stream:
        return [line for line in stream if '"kind":"cell"' in line]


def main():
    build = sys.argv[1]
    isobar = os.path.join(build, "bin", "isobar")
    start = time.monotonic()
    night = Rehearsal(build, "night_deflate", SEQUENCE)
    db = os.path.join(night.directory, "night.db")
    at = night.wait_line(r"hold: waiting for the membrane to be emptied and the cell locked")
    at = night.wait_line(r"rehearsal: the daemon waits for hands", at)
    at = night.wait_line(r"membrane empty, cell mechanically locked: 1\.\d+ GPa", at)
    code = night.end()
    last = [line for line in night.lines if line][-1]
    night.check(code == 0, f"the rehearsal's exit status is 0 (got {code}): {last}")
    night.check(any(re.search(r"ok .*locked cell: ruby .* true ", line) for line in night.lines if line),
                "the locked cell's pressure is judged by the truth")
    night.check(time.monotonic() - start < 120, f"within two minutes ({time.monotonic() - start:.0f} s)")
    cells = truth_of(night)
    locked = [line for line in cells if '"is_locked":1' in line]
    membrane_bar = [float(re.search(r'"membrane_bar":([-0-9.]+)', line).group(1)) for line in locked]
    night.check(membrane_bar and membrane_bar[0] > 5 and membrane_bar[-1] < 0.5,
                "the cell was locked before the membrane was emptied")
    steps_bar = [a - b for a, b in zip(membrane_bar, membrane_bar[1:])]  # 10 s apart
    night.check(max(steps_bar) < 2.0, f"it was emptied at a person's rate: at most {6 * max(steps_bar):.1f} bar/min")
    panel_bar = [row[0] for row in sqlite3.connect(db).execute(
        "SELECT membrane_bar_setpoint FROM membrane WHERE t_ns > (SELECT max(t_ns) FROM phase WHERE phase = 'deflated')")]
    night.check(panel_bar[0] > 5 and panel_bar[-1] == 0 and len({round(bar) for bar in panel_bar}) > 5,
                "on the wire the daemon saw the set point go down at the front panel, turn by turn")
    setpoints = sqlite3.connect(db).execute(
        "SELECT count(*) FROM decision JOIN event ON seq = event_seq WHERE decision.kind = 'set point' AND t_ns > "
        "(SELECT max(t_ns) FROM phase WHERE phase = 'deflated')").fetchone()[0]
    night.check(setpoints == 0, "the daemon itself asked for no set point")

    passport = os.path.join(night.directory, "..", "night_deflate_cell.lua")
    if os.path.exists(passport):
        os.remove(passport)
    export = subprocess.run([isobar, "cell", "--db", db, "--export", passport], capture_output=True, text=True)
    night.check(export.returncode == 0, f"the passport is written: {(export.stdout + export.stderr).splitlines()[-1]}")
    second = Rehearsal(build, "night_deflate_known", SEQUENCE, ("--cell", passport))
    at = second.wait_line(r"cell's passport .*night_deflate_cell.lua.*measured 2.*loaded anew since: compliance \d+")
    second.wait_line(r"step 2 of 5, load to 1\.50 GPa: ramp", at)
    second.process.terminate()  # passed on as an operator's stop
    second.end()
    replay = subprocess.run([isobar, "replay", "--db", os.path.join(second.directory, "night.db")],
                            capture_output=True, text=True)
    second.check(replay.returncode == 0, f"a run with a known cell replays: {(replay.stdout + replay.stderr).strip()}")
    logged = sqlite3.connect(os.path.join(second.directory, "night.db")).execute(
        "SELECT count(*) FROM log WHERE text LIKE 'cell''s passport%night_deflate_cell.lua%measured%'").fetchone()[0]
    second.check(logged == 1, "the passport stands in the run's log")
    line = next(line for line in second.lines if line and "cell's passport" in line)
    compliance = float(re.search(r"compliance (\d+)", line).group(1))
    settings = sqlite3.connect(os.path.join(second.directory, "night.db")).execute(
        "SELECT core_settings FROM run").fetchone()[0]
    numbers = struct.unpack(f"={len(settings) // 8}d", settings[:len(settings) // 8 * 8])
    second.check(any(abs(number - compliance) <= 0.5 for number in numbers[:64]),
                 "and what it knows in the settings that the core began with")
    second.failures += night.failures
    second.exit()


main()
