"""
Goal: at a beamline whose ruby optics stand in the X-ray beam, a rehearsal with two scans in one isobar passes: no frame
is taken with the optics in the beam or the laser on, the ruby is read before, between and after the scans and at no
other time of the isobar; optics that are stuck hold the run with a sentence until they are free, and so does an IOC
that dies in a scan until it is back.
Method: a whole rehearsal over the wires. While the first scan runs, the stage is jammed with a record of the simulator
that nothing under test knows; it is freed when the hold has been seen. The IOC is killed in the second scan. Afterwards the database is read: what was told to
the stage and the shutter, when the ruby was read, and that the replay decides the same.
"""
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys

from rehearsal import Rehearsal

LASER_CLOSE, OPTICS_OUT, OPTICS_IN, LASER_OPEN = 1, 2, 3, 4  # enum access_move, recorded


def put(night, name, value):
    """In a process of its own: a Channel Access context is made once, for one address list."""
    with open(os.path.join(night.directory, "servers")) as servers:
        port = next(line.split()[2] for line in servers if line.startswith("ioc "))
    environment = dict(os.environ, EPICS_CA_AUTO_ADDR_LIST="NO", EPICS_CA_ADDR_LIST=f"127.0.0.1:{port}")
    program = f"import epics, sys; sys.exit(epics.caput('{name}', {value}, wait=True, timeout=10) != 1)"
    subprocess.run(["/usr/bin/python3", "-c", program], env=environment, check=True, timeout=60)


def read_night(night):
    connection = sqlite3.connect(f"file:{os.path.join(night.directory, 'night.db')}?mode=ro", uri=True)
    moves = [(t_ns, struct.unpack_from("<iiq", payload)[2]) for t_ns, payload in connection.execute(
        "SELECT e.t_ns, d.payload FROM decision d JOIN event e ON e.seq = d.event_seq WHERE d.kind = 'access' "
        "ORDER BY d.event_seq")]
    starts = [t_ns for t_ns, in connection.execute("SELECT started_t_ns FROM scan WHERE state = 'complete' ORDER BY 1")]
    ends = [t_ns for t_ns, in connection.execute("SELECT t_ns FROM event WHERE kind = 'scan complete' ORDER BY seq")]
    scans = list(zip(starts, ends))
    rubies = connection.execute("SELECT t_ns, reason FROM ruby ORDER BY t_ns").fetchall()
    isobar = connection.execute("SELECT started_t_ns, ended_t_ns, ruby_access FROM isobar").fetchone()
    return moves, scans, rubies, isobar


def check_record(night):
    moves, scans, rubies, (start_ns, end_ns, ruby_access) = read_night(night)
    night.check(ruby_access == "between_scans", "the isobar's row says when its ruby was read")
    order = [move for t_ns, move in moves]
    night.check(order[:3] == [LASER_CLOSE, OPTICS_IN, LASER_OPEN] and order[-1] == LASER_CLOSE,
                f"the night begins with laser off, optics in, laser on, and ends with laser off: {order}")
    for i, (scan_start_ns, scan_end_ns) in enumerate(scans, 1):
        before = [move for t_ns, move in moves if t_ns <= scan_start_ns]
        night.check(before[-2:] == [LASER_CLOSE, OPTICS_OUT], f"before scan {i}: laser off, then optics out")
        night.check(not any(scan_start_ns < t_ns < scan_end_ns for t_ns, _ in moves), f"scan {i}: nothing is moved")
        night.check(not any(scan_start_ns < t_ns < scan_end_ns for t_ns, _ in rubies), f"scan {i}: no spectrum taken")
    edges = [start_ns] + [t_ns for scan in scans for t_ns in scan] + [end_ns]
    for gap_start_ns, gap_end_ns in zip(edges[0::2], edges[1::2]):
        n = sum(gap_start_ns < t_ns < gap_end_ns for t_ns, reason in rubies if not reason)
        night.check(n >= 10, f"{n} readings in the gap of {(gap_end_ns - gap_start_ns) / 1e9:.0f} s")
    n_refused = sum(reason is not None for _, reason in rubies)
    night.check(n_refused <= 2, f"{n_refused} spectra without light among {len(rubies)}")


def main():
    build = sys.argv[1]
    night = Rehearsal(build, "night_access", "tests/night_access.lua", ["--ruby-access", "between_scans"])
    at = night.wait_line(r"isobar at 1.50 GPa; ruby read between scans only")
    at = night.wait_line(r"scan 1 attempt 1: 6000 frames", at)
    put(night, "ISB:RUBY:Jam", 1)
    at = night.wait_line(r"scan 1 complete", at)
    at = night.wait_line(r"warning hold: the ruby optics or the laser shutter did not reach the position asked for; .*"
                         r"optics 'Out', laser shutter 'Closed'", at)
    night.check(True, f"jammed: {night.lines[at - 1]}")
    night.check(not any(re.search(r"scan 2 attempt", line) for line in night.lines if line), "no scan meanwhile")
    put(night, "ISB:RUBY:Jam", 0)
    at = night.wait_line(r"the reasons for holding are gone: going on", at)
    at = night.wait_line(r"scan 2 attempt 1: 6000 frames", at)
    os.kill(night.server_pid("ioc"), signal.SIGKILL)
    at = night.wait_line(r"warning hold: the ruby optics or the laser shutter .*\(.*ISB:RUBY:", at)
    night.check(True, f"IOC killed: {night.lines[at - 1]}")
    at = night.wait_line(r"scan 2 attempt 2: 6000 frames", at)
    code = night.end()
    night.check(code == 0, f"the rehearsal passes all the same (exit status {code})")
    shadows = [line for line in night.lines if line and "frames with the ruby optics in the beam" in line]
    night.check(len(shadows) == 2, f"no frame in the shadow, says the simulator: {shadows}")
    check_record(night)
    replay = subprocess.run([os.path.join(build, "bin", "isobar"), "replay", "--db",
                             os.path.join(night.directory, "night.db")], capture_output=True, text=True)
    night.check(replay.returncode == 0, f"the replay decides the same: {(replay.stdout + replay.stderr).strip()}")
    night.exit()


main()
