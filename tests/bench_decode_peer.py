#!/usr/bin/python3
"""Frames to events beside h5py and numpy, on the series of tests/bench_decode.c; JSON lines.

The peer reads each frame with h5py (the bitshuffle filter of the system), takes the pixels that are not masked and not 0,
and their counts: what a user writes; its processor time is taken. Program and peer take turns on the same files in the
same minutes; the best of ROUNDS turns counts on both sides. Argument 1: the build directory; further ones: cases, u32_0.002 and so on.
"""
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("HDF5_PLUGIN_PATH", "/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins")
import h5py
import numpy as np

ROUNDS = 2
PEER_FRAMES = 12
CASES = ["u32_0.002", "u32_0.01", "u32_0.05", "u16_0.002", "u16_0.01", "u16_0.05"]


def peer_time_s(case, seed):
    with h5py.File(f"build/bench/decode_{case}_{seed}_master.h5") as master:
        valid = master["entry/instrument/detector/detectorSpecific/pixel_mask"][()].ravel() == 0
        data, n_photons = master["entry/data/data_000001"], 0
        start = time.thread_time()
        for t in range(PEER_FRAMES):
            frame = data[t].ravel()
            pixels = np.flatnonzero((frame > 0) & valid)
            n_photons += int(frame[pixels].sum())
        return (time.thread_time() - start) / PEER_FRAMES


def main():
    program, seed = os.path.join(sys.argv[1], "tests", "bench_decode"), os.environ.get("SEED", "1")
    for case in sys.argv[2:] or CASES:
        ours, peer_s = {}, []
        for _ in range(ROUNDS):
            lines = subprocess.run([program, case], check=True, capture_output=True, text=True).stdout
            for line in map(json.loads, lines.splitlines()):
                key = line["path"], line["threads"]
                ours[key] = min(ours.get(key, line), line, key=lambda l: l["time_s"])
            peer_s.append(peer_time_s(case, seed))
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for line in ours.values():
            line.update(peer="h5py+numpy", ratio_peer=round(min(peer_s) / line["time_s"], 1),
                        peer_time_s=float(f"{min(peer_s):.3e}"), peer_rss_mb=round(rss_mb))
            print(json.dumps(line, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
