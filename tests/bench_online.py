#!/usr/bin/python3
"""bench_online.py BUILD_DIRECTORY: one scan at its real pace, with everything that runs in a night beside it.

The simulated beamline with an EIGER2 4M (2068 x 2162 pixels, 0.002 photons per pixel and frame, 32 bit) and the daemon on
the same processors, in real time. FRAMES (14000) at RATE (10) per second. One JSON line: seconds of wall time from the
closing of the scan's last file, by its time stamp, to
  complete_s  the daemon saying that the scan is complete (the detector and its IOC take 0.6 s and more)
  row_s       the row of the result, read by another process  [<= 1]
  file_s      the result file under its name  [<= 5]
frame_ms is processor time of the analysis per frame; load the machine's load in the last minute of the scan.
"""
import glob
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

BUILD = sys.argv[1]
FRAMES, RATE = int(os.environ.get("FRAMES", "14000")), float(os.environ.get("RATE", "10"))
FOLDER = os.path.abspath("build/bench/night")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
SEQUENCE = """
cell {{ name = "bench", culet_um = 600, medium = "methanol-ethanol 4:1", pressure_gpa_max = 8, membrane_bar_max = 130 }}
preloaded {{ at = "0.1 GPa" }}
isobar {{ duration = "{duration} s", scan = {{ frames = {frames}, frame_time = "{frame_time} s" }} }}
"""


def start(name, *words, **options):
    """Ends with this process."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", f"{BUILD}/bin/{name}", *words], text=True, **options)


def analysis_cpu_s():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                words = stream.read().decode().split("\0")
            if words[0] == "isobar-analyze" and FOLDER in words[1]:
                with open(path.replace("cmdline", "stat")) as stream:
                    fields = stream.read().rsplit(")", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
        except (OSError, IndexError):
            continue
    return None


def wait_for_scan(daemon):
    """Until the scan is complete: its master, when that was said, and the analysis' processor time until then."""
    os.set_blocking(daemon.stdout.fileno(), False)
    cpu_s, said = None, ""
    while daemon.poll() is None:
        for line in iter(daemon.stdout.readline, ""):
            print("   ", line.rstrip(), file=sys.stderr, flush=True)
            if "scan 1 attempt 1 failed" in line:
                raise SystemExit("bench_online: the scan has failed")
            if "scan 1 complete: " in line:
                return line.split("complete: ")[1].strip(), time.time(), cpu_s
        cpu_s = analysis_cpu_s() or cpu_s
        time.sleep(0.05)
    raise SystemExit("bench_online: the daemon has ended before the scan")


def wait_for_result():
    connection = sqlite3.connect(f"file:{FOLDER}/night.db?mode=ro", uri=True)
    while not (row := connection.execute("SELECT reason, tau_s, result_path FROM result").fetchone()):
        time.sleep(0.01)
    return time.time(), *row


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(f"{FOLDER}/raw")
    with open(f"{FOLDER}/bench.lua", "w") as stream:
        stream.write(SEQUENCE.format(frames=FRAMES, frame_time=1 / RATE, duration=FRAMES / RATE + 60))
    simulator = start("isobar-sim", "beamline", "--dir", FOLDER, "--speed-max", "1", "--detector", "2068x2162",
                      "--photons", "0.002", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    simulator.stdout.readline()
    daemon = start("isobard", "--sequence", f"{FOLDER}/bench.lua", "--beamline", f"{FOLDER}/beamline.lua", "--db",
                   f"{FOLDER}/night.db", "--results", f"{FOLDER}/results", stdout=subprocess.PIPE)
    started = time.time()
    master, complete, cpu_s = wait_for_scan(daemon)
    row, reason, tau_s, result_path = wait_for_result()
    closed = max(os.stat(path).st_mtime for path in glob.glob(master.replace("_master.h5", "_data_*.h5")))
    print(json.dumps({"bench": "online", "case": "night", "frames": FRAMES, "rate_hz": RATE,
                      "complete_s": round(complete - closed, 3), "row_s": round(row - closed, 3),
                      "file_s": round(os.stat(result_path).st_ctime - closed, 3),
                      "frame_ms": round(1e3 * cpu_s / FRAMES, 3) if cpu_s else None, "tau_s": tau_s, "reason": reason,
                      "took_s": round(row - started), "load": os.getloadavg()[0]}), flush=True)
    for process in daemon, simulator:
        process.send_signal(signal.SIGINT if process is daemon else signal.SIGTERM)
        process.wait(60)


try:
    main()
finally:
    shutil.rmtree(f"{FOLDER}/raw", ignore_errors=True)  # gigabytes
