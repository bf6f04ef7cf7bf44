"""
Goal: a night that begins with an open cell calibrates its ruby, waits for the hands that close the cell, and has its
pressures on the calibrated ruler: in the readings, in the passport, on another scale, and in the replay. A ruby that
is not free is refused in a sentence, and read anew when somebody resumes.
Method: sequences/calibrate.lua with a seed of its own and simulated hands; then a sequence of many readings, and hands that
close the cell while they are taken.
"""
import os
import re
import sqlite3
import subprocess
import sys
import time

from rehearsal import Rehearsal


def main():
    build = sys.argv[1]
    isobar = os.path.join(build, "bin", "isobar")
    night = Rehearsal(build, "night_calibrate", "sequences/calibrate.lua")
    db = os.path.join(night.directory, "night.db")
    at = night.wait_line(r"step 1 of 4, calibrate_ruby by 20 readings")
    at = night.wait_line(r"ruby calibrated: lambda0 694\.2\d+ \+- 0\.00\d+ nm at 296 K \(stated 694\.2", at)
    at = night.wait_line(r"hold: waiting for the cell to be closed and preloaded by hand; then resume", at)
    at = night.wait_line(r"rehearsal: the daemon waits for hands: the cell is closed and preloaded", at)
    night.wait_line(r"step 3 of 4, load to 0\.80 GPa: ramp", at)
    code = night.end()
    night.check(code == 0, f"the rehearsal passes (exit status {code})")
    night.check(any(line and re.search(r"ok .*lambda0: calibrated", line) for line in night.lines),
                "lambda0 is judged by the truth")

    rows = sqlite3.connect(db)
    lambda0_nm, stated_nm, started, ended = rows.execute(
        "SELECT lambda0_nm, lambda0_nm_stated, started_t_ns, t_ns FROM ruby_calibration WHERE reason IS NULL").fetchone()
    night.check(abs(lambda0_nm - 694.25) < 0.005, f"calibrated {lambda0_nm:.4f} nm, stated {stated_nm:.4f} nm")
    kelvin, kelvin_sigma = rows.execute("SELECT temperature_k, temperature_k_sigma FROM ruby_calibration").fetchone()
    mean_k = rows.execute("SELECT avg(temperature_k) FROM ruby WHERE t_ns BETWEEN ? AND ? AND reason IS NULL",
                          (started, ended)).fetchone()[0]
    night.check(abs(kelvin - mean_k) < 1e-6 and abs(kelvin_sigma - 0.3) < 1e-9 and kelvin != 296,
                f"brought to 296 K by what the thermometer said, {kelvin:.2f} +- {kelvin_sigma:.2g} K")
    before = rows.execute("SELECT DISTINCT lambda0_nm FROM ruby WHERE t_ns <= ?", (ended,)).fetchall()
    after = rows.execute("SELECT DISTINCT lambda0_nm FROM ruby WHERE t_ns > ?", (ended,)).fetchall()
    night.check(before == [(stated_nm,)] and after == [(lambda0_nm,)], "its readings are on the stated ruler, all later "
                f"ones on the calibrated one ({before}, {after})")
    spectra = rows.execute("SELECT count(*) FROM ruby WHERE t_ns BETWEEN ? AND ? AND counts IS NOT NULL",
                           (started, ended)).fetchone()[0]
    night.check(spectra == 20, f"{spectra} spectra of the calibration are kept")
    for command, pattern in ((["replay"], "all the same"), (["cell"], f"lambda0 {lambda0_nm:.3f} nm"),
                             (["ruby", "--rescale", "dewaele2008"], "pressures on dewaele2008")):
        answer = subprocess.run([isobar, *command, "--db", db], capture_output=True, text=True)
        night.check(answer.returncode == 0 and pattern in answer.stdout,
                    f"isobar {command[0]}: {(answer.stdout + answer.stderr).splitlines()[-1]}")

    loaded = Rehearsal(build, "night_calibrate_refused", "tests/night_calibrate.lua")
    world = ["isobar-sim", "hands", "--dir", loaded.directory, "preload"]  # while it is said to be free
    at = loaded.wait_line(r"step 1 of 2, calibrate_ruby by 200 readings")
    subprocess.run([os.path.join(build, "bin", world[0]), *world[1:]], check=True)
    at = loaded.wait_line(r"hold: the calibration of the ruby is refused; .*\((R1 drifts by|lambda0 |\d+ of 200)", at)
    loaded.check(True, "a ruby that is pressed meanwhile is refused: " + loaded.lines[at - 1])
    # A slow slide of the pressed ruby may be refused as a drift once more: whoever resumes is told until it has ended.
    refused = 1
    while refused < 5 and not re.search(r"lambda0 694\.2\d+ nm is \+0\.0\d+ nm from", loaded.lines[at - 1]):
        subprocess.run([isobar, "resume", "--db", os.path.join(loaded.directory, "night.db")], check=True,
                       capture_output=True)
        at = loaded.wait_line(r"hold: the calibration of the ruby is refused; |ruby calibrated", at)
        refused += 1
    loaded.check(re.search(r"refused; .*lambda0 694\.2\d+ nm is \+0\.0\d+ nm from", loaded.lines[at - 1]),
                 f"read {refused} times, it is not free: " + loaded.lines[at - 1])
    time.sleep(1)
    status = subprocess.run([isobar, "status", "--db", os.path.join(loaded.directory, "night.db")], capture_output=True,
                            text=True).stdout
    loaded.check("HOLD: the calibration of the ruby is refused" in status, status.strip())
    loaded.process.terminate()
    loaded.end()
    kept = sqlite3.connect(os.path.join(loaded.directory, "night.db")).execute(
        "SELECT count(*), count(reason) FROM ruby_calibration").fetchone()
    loaded.check(kept == (refused, refused), f"all refusals are recorded with their reasons {kept}")
    loaded.failures += night.failures
    loaded.exit()


main()
