"""
Goal: a scan's result is there when the scan is: each row stands in the database before the next scan has ended. Whoever
kills the analysis in mid-scan costs a warning and a second reading, never a result. An attempt that is cut, by the IOC's
death or by the operator's hold, leaves a row that says so, no file, no process, and in the end the result of the attempt
that was whole.
Method: four scans in one isobar over the wires. The first is left alone; the second's follower
gets SIGKILL; the detector's IOC is killed in the third; the operator holds in the fourth. In the end every row is compared with an analysis
of the same files by hand, digit by digit, and with the simulator's tau and beta; the replay must decide the same.
"""
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

from rehearsal import Rehearsal

DEADLINE_S = 120


def wait_for(find, what):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := find()):
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {DEADLINE_S} s")
        time.sleep(0.005)
    return found


def followers(night, series=""):
    """The analyses of this rehearsal, of one series or of all, by process and command line."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                words = stream.read().decode().split("\0")
        except OSError:
            continue
        if words[0] == "isobar-analyze" and len(words) > 1 and night.directory in words[1] and series in words[1]:
            found[int(entry)] = words
    return found


def query(night, sql):
    with sqlite3.connect(f"file:{os.path.join(night.directory, 'night.db')}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def tell(night, command):
    subprocess.run([os.path.join(sys.argv[1], "bin", "isobar"), command, "--db",
                    os.path.join(night.directory, "night.db")], check=True, capture_output=True)


def cut_row(night, scan_number):
    """The row of a scan whose attempt was cut, before its next attempt is whole."""
    sql = f"SELECT tau_s, beta, n_photons, result_path, reason FROM result WHERE scan_number = {scan_number}"
    tau_s, beta, n_photons, path, reason = wait_for(lambda: query(night, sql), f"row of scan {scan_number}")[0]
    night.check(tau_s is None and beta is None and n_photons is None and path == "" and "is not whole" in reason,
                f"the cut attempt's row has a reason and no result: {reason}")


def cut_leavings(night, scan_number):
    left = [name for name in os.listdir(os.path.join(night.directory, "results"))
            if f"_s{scan_number:04d}_a1_" in name]
    night.check(not left, f"it has left no file: {left}")
    night.check(not followers(night, f"_s{scan_number:04d}_a1_"), "and its analysis has ended")


def check_rows(night):
    ends = dict(query(night, "SELECT substr(text, instr(text, '_s') + 2, 4) + 0, seq FROM event WHERE kind = 'scan complete'"))
    results = [seq for seq, in query(night, "SELECT seq FROM event WHERE kind = 'result' ORDER BY seq")]
    night.check(len(results) == 4 and len(ends) == 4, f"{len(ends)} scans complete, {len(results)} results told")
    for number in (1, 2, 3):
        night.check(ends[number] < results[number - 1] < ends[number + 1],
                    f"scan {number}: its result came after its end and before the end of scan {number + 1}")
    rows = query(night, "SELECT r.scan_number, r.reason, r.result_path, s.master_path, s.attempt FROM result r JOIN scan s "
                        "ON s.scan_number = r.scan_number AND s.state = 'complete' ORDER BY 1")
    night.check([(row[0], row[4]) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 2)],
                "one row for each scan, of the attempt that was whole")
    stems = [os.path.basename(row[3]).removesuffix("_master.h5") for row in rows]
    night.check(all(row[1] is None and os.path.basename(row[2]) == f"{stem}_results.hdf" and os.path.exists(row[2])
                    for row, stem in zip(rows, stems)), "each names the result file of that attempt, and it is there")
    raw = os.listdir(os.path.join(night.directory, "raw"))
    night.check(all(sum(name.startswith(f"{stem}_data_") for name in raw) == 60 for stem in stems),
                "every data file holds 10 s, so that little is left to analyse after the last")
    names = sorted(os.listdir(os.path.join(night.directory, "results")))
    night.check(names == sorted(f"{stem}_{what}" for stem in stems for what in ("results.hdf", "events.bin")),
                "and nothing else is in the folder")


def check_numbers(night):
    """tau is longer than a third of these scans, so the rehearsal's own verdict leaves them out; 15 % and 0.2 as there."""
    rows = query(night, "SELECT r.scan_number, r.tau_s, r.beta, r.n_photons, s.master_path FROM result r JOIN scan s "
                        "ON s.scan_number = r.scan_number AND s.state = 'complete' ORDER BY 1")
    with open(os.path.join(night.directory, "truth.jsonl")) as stream:
        truths = {os.path.basename(scan["master"]): scan for scan in map(json.loads, stream) if scan["kind"] == "scan"}
    for number, tau_s, beta, n_photons, master in rows:
        run = subprocess.run([os.path.join(sys.argv[1], "bin", "isobar-analyze"), master, "--json", "--no-events", "-o",
                              os.path.join(night.directory, "by_hand.hdf")], capture_output=True, text=True)
        by_hand = json.loads(run.stdout)
        night.check((tau_s, beta, n_photons) == (by_hand["tau_s"], by_hand["beta"], by_hand["n_photons"]),
                    f"scan {number}: tau {tau_s} s, beta {beta}, {n_photons} photons, as by hand after its end")
        truth = truths[os.path.basename(master)]
        night.check(abs(tau_s / truth["tau_s"] - 1) < 0.15 and abs(beta - truth["beta"]) < 0.2,
                    f"scan {number}: simulated are tau {truth['tau_s']:.1f} s, beta {truth['beta']:.3f}")


def main():
    build = sys.argv[1]
    night = Rehearsal(build, "night_follow", "tests/night_follow.lua")
    at = night.wait_line(r"scan 1 attempt 1: 6000 frames")
    words = next(iter(wait_for(lambda: followers(night, "_s0001_a1_"), "follower of scan 1").values()))
    night.check("--follow" in words, "the analysis begins with the scan, before its end")
    at = night.wait_line(r"scan 1 complete", at)

    at = night.wait_line(r"scan 2 attempt 1: 6000 frames", at)
    os.kill(next(iter(wait_for(lambda: followers(night, "_s0002_a1_"), "follower of scan 2"))), signal.SIGKILL)
    at = night.wait_line(r"scan 2 attempt 1: the analysis that followed it gave no result \(the analysis ended by signal 9\)"
                         r".*as a whole after its end; 1 such", at)
    night.check(True, night.lines[at - 1])

    at = night.wait_line(r"scan 3 attempt 1: 6000 frames", at)
    wait_for(lambda: followers(night, "_s0003_a1_"), "follower of scan 3")
    os.kill(night.server_pid("ioc"), signal.SIGKILL)
    at = night.wait_line(r"scan 3 attempt 1 failed", at)
    cut_row(night, 3)
    cut_leavings(night, 3)

    at = night.wait_line(r"scan 4 attempt 1: 6000 frames", at)
    wait_for(lambda: followers(night, "_s0004_a1_"), "follower of scan 4")
    tell(night, "hold")
    at = night.wait_line(r"scan 4 attempt 1 failed", at)
    cut_row(night, 4)
    cut_leavings(night, 4)
    tell(night, "resume")

    code = night.end()
    night.check(code == 0, f"the rehearsal's exit status is 0 (got {code})")
    check_rows(night)
    check_numbers(night)
    night.check(not followers(night), "no analysis outlives the daemon")
    replay = subprocess.run([os.path.join(build, "bin", "isobar"), "replay", "--db",
                             os.path.join(night.directory, "night.db")], capture_output=True, text=True)
    night.check(replay.returncode == 0, f"the replay decides the same: {(replay.stdout + replay.stderr).strip()}")
    night.exit()


main()
