#!/usr/bin/python3
"""The two-time correlation counts what SciPy counts.

Goal: for every pair of frames (t1, t2) the photon pairs behind C(t1, t2) are exactly those of SciPy's sparse A @ A.T, A the
counts by frame and pixel: with pixels that hold more than one photon, masked pixels, empty frames, frames brighter than
others, few pixels with many photons (beyond what one line of the cache holds), and any number of threads; in dim scans,
whose pairs are counted photon by photon, and in bright ones, which go over to bit planes. What mathematics
says holds exactly: the order of the pixels does not matter, the pairs of parts of the pixels add up to those of all, and
doubling all counts makes four times the pairs. A scan of more than 65,535 frames has rows of two: their pairs are those of
the summed frames, and the lags that rows cannot tell are SciPy's frame by frame.
Method: isobar-analyze on random series written by h5py; C is pairs n_pixels_effective / (photons(t1) photons(t2)) in single
precision, so that the whole number of pairs comes back as long as it is below 2^23. Argument 1: the build directory.
"""
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HDF5_PLUGIN_PATH", "/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins")
import h5py
import numpy as np
import scipy.sparse

PROGRAM = os.path.join(sys.argv[1], "bin", "isobar-analyze")
DETECTOR = "entry/instrument/detector/"
SPECIFIC = DETECTOR + "detectorSpecific/"
N_FRAMES, N_ROWS, N_COLUMNS, PER_FILE = 600, 62, 88, 250
failures = 0


def check(is_good, what):
    global failures
    failures += not is_good
    print(f"{'ok  ' if is_good else 'FAIL'}  {what}", flush=True)


def draw(random, mean, dtype):
    """Poisson photons of pixels of unequal brightness in a beam of unequal brightness."""
    pixels = mean * random.gamma(2, 0.5, (1, N_ROWS, N_COLUMNS))
    frames = random.poisson(pixels * random.uniform(0.3, 1.7, (N_FRAMES, 1, 1)))
    frames[random.integers(N_FRAMES, size=5)] = 0
    for count in (2, 3, 5, 17, 100 if mean > 0.05 else 4):  # more than 50 photons of a pixel among dim ones: a hot pixel
        frames[random.integers(N_FRAMES, size=20), random.integers(N_ROWS, size=20), random.integers(N_COLUMNS, size=20)] = count
    mask = np.zeros((N_ROWS, N_COLUMNS), np.uint32)
    mask[30:33], mask[:, 40] = 1, 1
    mask[random.integers(N_ROWS, size=40), random.integers(N_COLUMNS, size=40)] = 8
    return frames.astype(dtype), mask


def write(folder, frames, mask):
    stored = frames.copy()
    stored[:, mask != 0] = np.iinfo(frames.dtype).max
    with h5py.File(f"{folder}/scan_master.h5", "w") as master:
        for path, value in {SPECIFIC + "x_pixels_in_detector": N_COLUMNS, SPECIFIC + "y_pixels_in_detector": N_ROWS,
                            SPECIFIC + "nimages": N_FRAMES, SPECIFIC + "ntrigger": 1, SPECIFIC + "pixel_mask": mask,
                            DETECTOR + "frame_time": 0.1}.items():
            master[path] = value
        for k, first in enumerate(range(0, N_FRAMES, PER_FILE), 1):
            name = f"scan_data_{k:06d}.h5"
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            with h5py.File(f"{folder}/{name}", "w") as data:
                data.create_dataset("entry/data/data", data=stored[first:first + PER_FILE], compression=32008,
                                    chunks=(1, N_ROWS, N_COLUMNS), compression_opts=(0, 2))
    return f"{folder}/scan_master.h5"


def analyze(folder, *words):
    """C, upper half, and the pairs behind it; the mask that was used."""
    result = f"{folder}/scan_results.hdf"
    run = subprocess.run([PROGRAM, *words, "-o", result, "--matrix", "--keep-hits"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    with h5py.File(result) as file:
        c = np.triu(file["xpcs/twotime/correlation_map/c2_00001"][()].astype(np.float64))
        valid = file["xpcs/qmap/mask"][()] == 1
        photons = np.rint(file["xpcs/spatial_mean/intensity_vs_time"][1] * valid.sum())
        n_effective = float(np.ravel(file["xpcs/fit/bins/n_pixels_effective"][()])[0])
    pairs = np.nan_to_num(c) * np.outer(photons, photons) / n_effective
    return c, pairs, valid


def scipy_pairs(frames, valid):
    a = scipy.sparse.csr_matrix(frames[:, valid].astype(np.int64))
    return np.triu((a @ a.T).toarray())


def check_case(random, folder, mean, dtype):
    frames, mask = draw(random, mean, dtype)
    master = write(folder, frames, mask)
    case = f"{np.dtype(dtype).name}, {frames[:, mask == 0].mean():.3f} photons per pixel and frame"
    first = None
    for options in [], ["--threads", "2"]:
        c, pairs, valid = analyze(folder, master, *options)
        expected = scipy_pairs(frames, valid)
        exact = np.rint(pairs).astype(np.int64)
        dead = (mask == 0) & ~valid  # may be left out only if it never had a photon
        check(not np.any(valid & (mask != 0)) and frames[:, dead].sum() == 0 and expected.max() < 2**23 and np.array_equal(exact, expected)
              and np.abs(pairs - exact).max() < 0.5,
              f"{case} {options}: {expected.size} cells, {np.triu(expected, 1).sum()} pairs, up to {expected.max()} in one, "
              f"all SciPy's; largest distance from a whole number {np.abs(pairs - exact).max():.3f}")
        first = c if first is None else first
        check(np.array_equal(c, first, equal_nan=True), f"{case} {options}: the same bits as with one thread")
    return frames, mask, first, exact


def check_mathematics(random, folder, frames, mask, c, pairs):
    valid = np.flatnonzero(mask == 0)
    permuted = frames.reshape(N_FRAMES, -1).copy()
    permuted[:, valid] = permuted[:, random.permutation(valid)]
    _, seen, _ = analyze(folder, write(folder, permuted.reshape(frames.shape), mask))
    check(np.array_equal(np.rint(seen), pairs), "pixels in another order: the same pairs")

    _, seen, _ = analyze(folder, write(folder, 2 * frames, mask))
    check(np.array_equal(np.rint(seen / 4), pairs), "all counts doubled: four times the pairs")

    master = write(folder, frames, mask)
    part = random.integers(3, size=mask.shape)
    sums = np.zeros_like(pairs)
    for k in range(3):
        with h5py.File(f"{folder}/part.h5", "w") as file:
            file["mask"] = (part != k).astype(np.uint8)
        _, of_part, _ = analyze(folder, master, "--mask", f"{folder}/part.h5")
        exact = np.rint(of_part).astype(np.int64)
        check(np.array_equal(exact, scipy_pairs(frames, (mask == 0) & (part == k))), f"part {k} of the pixels: SciPy's pairs")
        sums += exact
    check(np.array_equal(sums, pairs), "the pairs of three parts of the pixels add up to those of all")
    events = f"{folder}/scan_events.bin"
    seen, _, _ = analyze(folder, "--from-events", events)
    check(np.array_equal(seen, c, equal_nan=True), "from the events: the same matrix, bit for bit")


def check_long(random, folder, n_frames=70001, side=64, mean=0.01):
    """Sparse frames; the last one is alone in its row."""
    n_pixels = side * side
    counts = scipy.sparse.random(n_frames, n_pixels, density=mean, format="csr", random_state=random,
                                 data_rvs=lambda n: random.integers(1, 4, n)).astype(np.int64)
    counts.data[random.uniform(size=counts.nnz) < counts.indices / n_pixels] = 0  # less and less towards the last row
    counts.eliminate_zeros()
    counts.sort_indices()
    with h5py.File(f"{folder}/long.h5", "w") as file:
        for name, value in ("frame_ptr", counts.indptr), ("index", counts.indices.astype(np.uint32)), ("intensity", counts.data):
            file[f"entry_0000/measurement/data/{name}"] = value
    result = f"{folder}/long_results.hdf"
    run = subprocess.run([PROGRAM, f"{folder}/long.h5", "--frame-time", "0.1", "--shape", f"{side}x{side}", "-o", result,
                          "--no-events", "--keep-hits"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    rows = (counts[0:n_frames - 1:2] + counts[1::2]).tocsr()
    with h5py.File(result) as file:
        valid = file["xpcs/qmap/mask"][()].ravel() == 1
        n_effective = float(np.ravel(file["xpcs/fit/bins/n_pixels_effective"][()])[0])
        delays, g2 = file["xpcs/multitau/delay_list"][()], file["xpcs/multitau/normalized_g2"][:, 0]
        by_row, expected = file["xpcs/every_lag/g2"][()], file["xpcs/every_lag/pairs_expected"][()]
        per_row = file["process/frames_per_row"][()]
    check(per_row == 2 and len(by_row) == rows.shape[0] and counts[:, ~valid].nnz == 0, f"{n_frames} frames in rows of two")

    def correlate(frames, lag):
        photons = np.asarray(frames.sum(1)).ravel().astype(float)
        return frames[:-lag].multiply(frames[lag:]).sum(), (photons[:-lag] * photons[lag:]).sum() / n_effective

    short = [i for i in range(len(delays)) if np.isclose(delays[i], i + 1, rtol=1e-9)]
    seen = [correlate(counts, i + 1) for i in short]
    check(len(short) > 9 and np.allclose(g2[short], [pairs / products for pairs, products in seen], rtol=1e-12),
          f"lags 1 to {len(short)} are SciPy's, frame by frame")
    for lag in 1, 16, 1000, 30000:
        pairs, products = correlate(rows, lag)
        check(np.isclose(expected[lag], products, rtol=1e-12) and round(by_row[lag] * expected[lag]) == pairs,
              f"lag of {lag} rows: {pairs} pairs, SciPy's")
    check(np.all(np.diff(delays) > 0) and delays[-1] > 0.95 * n_frames, f"{len(delays)} delays up to {delays[-1]:.0f} frames")


def main():
    folder = tempfile.mkdtemp(prefix="isobar-correlator-")
    seed = int(os.environ.get("SEED", "1"))
    random = np.random.default_rng(seed)
    print(f"SEED={seed}")
    try:
        for mean, dtype in (0.005, np.uint32), (0.08, np.uint16), (0.6, np.uint32), (2.5, np.uint16):
            kept = check_case(random, folder, mean, dtype)
            check_mathematics(random, folder, *kept)
        check_long(random, folder)
    finally:
        shutil.rmtree(folder)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
