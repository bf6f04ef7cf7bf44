"""
Goal: `isobar rehearse` plays first_light.lua as the README says, nothing under test can read the truth meanwhile, and
the recorded run, put through the core again, gives the same decisions.
Method: a whole rehearsal with a seed of its own (SEED=N repeats it). While it runs, a process with exactly the
daemon's privileges tries to read truth.jsonl.
"""
import ctypes
import os
import sqlite3
import subprocess
import sys

from rehearsal import Rehearsal

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def capabilities(pid):
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":\t", 1) for line in status.read().splitlines())
    return int(fields["CapEff"], 16), int(fields["CapBnd"], 16)


def can_read_with(effective, path):
    """Whether a process with these effective capabilities can open the file; tried in a child that gives up the rest."""
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        low, high = effective & 0xFFFFFFFF, effective >> 32
        data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
        if libc.capset(header, data) != 0:
            os._exit(2)
        try:
            os.close(os.open(path, os.O_RDONLY))
            os._exit(1)
        except PermissionError:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def main():
    build = sys.argv[1]
    night = Rehearsal(build, "night_rehearsal")
    truth = os.path.join(night.directory, "truth.jsonl")
    db = os.path.join(night.directory, "night.db")

    at = night.wait_line(r"step 1 of 7, preloaded")
    daemon = night.child_pid("isobard")
    effective, bounding = capabilities(daemon)
    override = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH
    night.check(os.stat(truth).st_mode & 0o777 == 0o200, "truth.jsonl is write-only while the rehearsal runs")
    night.check(effective & override == 0 and bounding & override == 0,
                "isobard (and so isobar-analyze, its child) has no privilege to read it all the same")
    night.check(not can_read_with(effective, truth), "with the daemon's privileges truth.jsonl cannot be opened")
    status = subprocess.run([os.path.join(build, "bin", "isobar"), "status", "--db", db, "--json"],
                            capture_output=True, text=True)
    night.check(status.returncode == 0 and '"simulated":true' in status.stdout, "isobar status --json answers")
    second = subprocess.run([os.path.join(build, "bin", "isobard"), "--sequence", "sequences/first_light.lua",
                             "--beamline", os.path.join(night.directory, "beamline.lua"), "--db", db, "--results",
                             os.path.join(night.directory, "results")], capture_output=True, text=True)
    night.check(second.returncode == 2 and db in second.stderr,
                f"a second daemon on the same database is refused: {second.stderr.strip()}")

    night.wait_line(r"scan 1: tau", at)
    code = night.end()
    night.check(code == 0, f"the rehearsal's exit status is 0 (got {code})")
    last = [line for line in night.lines if line][-1]
    night.check(last.startswith("rehearsal: passed"), f"the last line says so: {last}")
    for artefact in ("night.db", "truth.jsonl", "isobard.log", "results"):
        night.check(os.path.exists(os.path.join(night.directory, artefact)), f"{artefact} is there")

    replay = subprocess.run([os.path.join(build, "bin", "isobar"), "replay", "--db", db], capture_output=True, text=True)
    night.check(replay.returncode == 0 and "all the same" in replay.stdout,
                f"the replay decides the same: {(replay.stdout + replay.stderr).strip()}")
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    night.check(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "the database is whole")
    passes, events, late = connection.execute(
        "SELECT max(pass), count(*), count(*) - count(DISTINCT seq) FROM event").fetchone()
    night.check(events > 1000 and late == 0 and passes > 0, f"{events} events in {passes} passes are recorded once each")
    stray = connection.execute(
        "SELECT count(*) FROM decision d JOIN event e ON e.seq = d.event_seq WHERE d.kind = 'set point' AND NOT EXISTS "
        "(SELECT 1 FROM intent i WHERE i.kind = 'membrane' AND i.t_ns <= e.t_ns "
        "AND d.value BETWEEN i.value AND i.value_max)").fetchone()[0]
    first_set_point, first_durable = connection.execute(
        "SELECT (SELECT min(event_seq) FROM decision WHERE kind = 'set point'), (SELECT min(e.seq) FROM event e WHERE "
        "e.kind = 'durable' AND e.seq > (SELECT min(event_seq) FROM decision WHERE text = 'membrane'))").fetchone()
    night.check(stray == 0, "every set point asked for lies in a range that stands in the journal")
    night.check(first_set_point >= first_durable, "and none was asked for before its range was durable")

    forged = os.path.join(night.directory, "forged.db")
    connection.backup(target := sqlite3.connect(forged))
    target.execute("UPDATE decision SET payload = zeroblob(length(payload)) WHERE rowid = "
                   "(SELECT rowid FROM decision WHERE kind = 'set point' LIMIT 1 OFFSET 100)")
    target.commit()
    target.close()
    replay = subprocess.run([os.path.join(build, "bin", "isobar"), "replay", "--db", forged], capture_output=True,
                            text=True)
    night.check(replay.returncode == 2 and "recorded decision" in replay.stderr,
                f"a changed decision is found: {replay.stderr.strip()}")
    os.remove(forged)
    night.exit()


main()
