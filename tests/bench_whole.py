#!/usr/bin/python3
"""bench_whole.py BUILD_DIRECTORY [whole|online|long|memory ...]: isobar-analyze as a whole, as JSON lines.

Data: 14,000 frames of an EIGER2 4M (32 bit, 0.002 photons per pixel and frame, 100 frames per file, 2.6 GB) drawn once by
tests/bench_series into build/bench, and its first 7,000; no frame is like another. The files are read once before, so that
they come from memory. Goals in brackets; best and median of ROUNDS, because the machine has other work.

  whole   7,000 frames with two threads, from the start of the program to its end, result and events on the disk:
          time_s [<= 5], cpu_s, rss_mb; once with the binned map, once with the full matrix
  online  7,000 frames by --follow, one thread, at its low priority: frame_ms [< 1] is processor time per frame; row_s [< 1] and file_s [< 5]
          the time from the last file's appearance, when all others are done, to the line of the result and to its file
  long    the same once with 14,000 frames and the full matrix: file_s [< 5]
  memory  14,000 frames, one bin, full matrix: rss_mb [< 3000]
"""
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import time

BUILD = sys.argv[1]
WANTED = sys.argv[2:] or ["whole", "online", "long", "memory"]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
FOLDER = "build/bench"
RESULT = f"{FOLDER}/whole_results.hdf"
NICENESS = 10  # as the daemon starts it


def draw():
    out = subprocess.run([f"{BUILD}/tests/bench_series", "14000", "7000"], stdout=subprocess.PIPE, text=True, check=True)
    return out.stdout.split()


def warm(master):
    stem = os.path.basename(master).removesuffix("_master.h5")
    for name in sorted(os.listdir(FOLDER)):
        if name.startswith(stem):
            with open(f"{FOLDER}/{name}", "rb") as stream:
                while stream.read(1 << 24):
                    pass


def start(master, *options, result=RESULT, niceness=0):
    return subprocess.Popen([f"{BUILD}/bin/isobar-analyze", master, "-o", result, "--json", *options],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: os.nice(niceness))


def end(process):
    """Reaps it: its processor time in seconds, its largest memory in MB."""
    status, usage = os.wait4(process.pid, 0)[1:]
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"isobar-analyze ended with {process.returncode}"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def say(bench, case, **numbers):
    line = {"bench": bench, "case": case}
    for key, value in numbers.items():
        if isinstance(value, list):
            line[key], line[key + "_median"] = round(min(value), 3), round(statistics.median(value), 3)
        else:
            line[key] = value
    print(json.dumps(line), flush=True)


def run_whole(master, n_threads, *options):
    started = time.monotonic()
    process = start(master, "--threads", str(n_threads), *options)
    process.stdin.close()
    answer = json.loads(process.stdout.read())
    cpu_s, rss_mb = end(process)
    return time.monotonic() - started, cpu_s, rss_mb, answer


def bench_whole(master):
    for case, options in ("map", ()), ("matrix", ("--matrix",)):
        runs = [run_whole(master, 2, *options) for _ in range(ROUNDS)]
        say("whole", case, frames=runs[0][3]["n_frames"], photons=runs[0][3]["n_photons"], threads=2,
            time_s=[run[0] for run in runs], cpu_s=[run[1] for run in runs], rss_mb=round(runs[0][2]))


def bench_memory(master):
    took_s, cpu_s, rss_mb, answer = run_whole(master, 1, "--matrix")
    say("memory", "matrix", frames=answer["n_frames"], photons=answer["n_photons"], threads=1, time_s=round(took_s, 2),
        cpu_s=round(cpu_s, 2), rss_mb=round(rss_mb))


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def run_online(master, *options):
    """The last file is there from the beginning, empty, and whole when all others have been analysed."""
    folder = f"{FOLDER}/online"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    stem = os.path.basename(master).removesuffix("_master.h5")
    shutil.copy(master, folder)
    names = sorted(name for name in os.listdir(FOLDER) if name.startswith(f"{stem}_data_"))
    for name in names[:-1]:
        os.symlink(os.path.realpath(f"{FOLDER}/{name}"), f"{folder}/{name}")
    open(f"{folder}/{names[-1]}", "w").close()
    os.symlink(os.path.realpath(f"{FOLDER}/{names[-1]}"), f"{folder}/whole")
    result = f"{folder}/scan_results.hdf"
    process = start(f"{folder}/{os.path.basename(master)}", "--follow", *options, result=result, niceness=NICENESS)
    before = -1
    while (ticks := cpu_ticks(process.pid)) - before > 3 or ticks < 50:
        before = ticks
        time.sleep(0.5)
    os.rename(f"{folder}/whole", f"{folder}/{names[-1]}")
    appeared = time.monotonic()
    file_s = None
    while not select.select([process.stdout], [], [], 0.001)[0]:
        if file_s is None and os.path.exists(result):
            file_s = time.monotonic() - appeared
    row_s = time.monotonic() - appeared
    answer = json.loads(process.stdout.readline())
    process.stdin.close()
    cpu_s, rss_mb = end(process)
    return {"frame_ms": 1e3 * cpu_s / answer["n_frames"], "row_s": row_s, "file_s": file_s or row_s, "rss_mb": rss_mb,
            "n_frames": answer["n_frames"]}


def say_online(case, runs):
    say("online", case, frames=runs[0]["n_frames"], frames_last_file=100, threads=1,
        **{key: [run[key] for run in runs] for key in ("frame_ms", "row_s", "file_s")}, rss_mb=round(runs[0]["rss_mb"]))


def bench_online(master):
    for case, options in ("map", ()), ("matrix", ("--matrix",)):
        say_online(case, [run_online(master, *options) for _ in range(ROUNDS)])


def bench_long(master):
    say_online("matrix", [run_online(master, "--matrix")])


def main():
    long, short = draw()
    if "memory" in WANTED or "long" in WANTED:
        warm(long)
    warm(short)
    for bench, master in ("whole", short), ("online", short), ("long", long), ("memory", long):
        if bench in WANTED:
            globals()[f"bench_{bench}"](master)


main()
