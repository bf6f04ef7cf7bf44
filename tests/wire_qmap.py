#!/usr/bin/python3
"""q bins of isobar-analyze from end to end, against pyFAI and numpy.

Goal: q and azimuth agree with pyFAI on every pixel of a detector; bands, sectors, masks and polygons choose the pixels
that they should; each bin has the g2 and the matrix that numpy finds in it, and the first numbers of the line are those
of all bins together; an intensity that grows threefold across a bin leaves the baseline at 1, and so do pixels of
different sensitivity with a flat field; dead pixels and particles are left out and counted; the result of several bins
has the layout that its readers expect; what makes no sense is refused in one sentence.
Method: geometries written by pyFAI itself; series written by h5py; peers straight from the definitions. Argument 1: the
build directory.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import wire_analysis
from wire_analysis import PROGRAM, VIEWER_PATHS, NXXPCS_PATHS, analyze, check, draw_photons, peer, write_series

MAPS_PROGRAM = os.path.join(sys.argv[1], "tests", "test_qmap")
ROWS, COLUMNS = 96, 112


def write_poni(path, shape, **geometry):
    """By pyFAI, of a flat detector; returns q in 1/angstrom and the azimuth in rad, of every pixel, in double."""
    known = dict(dist=0.35, poni1=0.002, poni2=-0.004, rot1=0.0, rot2=0.0, rot3=0.0, wavelength=0.59e-10)
    known.update(geometry)
    pixels = known.pop("pixels", (75e-6, 75e-6))
    if os.path.exists(path):
        os.remove(path)  # pyFAI writes behind what is there
    place = Geometry(detector=Detector(*pixels, max_shape=shape), **known)
    place.save(path)
    rows, columns = np.indices(shape, dtype=np.float64)
    q = 4e-10 * np.pi / known["wavelength"] * np.sin(place.tth(rows.ravel(), columns.ravel()) / 2)
    return q.reshape(shape), place.chi(rows.ravel(), columns.ravel()).reshape(shape)


def check_every_pixel(directory):
    path = f"{directory}/a.poni"
    for shape, geometry in (((2162, 2068), dict(rot1=0.21, rot2=-0.13, rot3=0.7, pixels=(75e-6, 80e-6))),
                            ((2162, 2068), dict(poni1=0.08, poni2=0.078, dist=5.0)),
                            ((514, 1030), dict(rot1=-1.2, rot2=0.5, rot3=-2.5, dist=0.02)),
                            ((195, 487), dict(rot1=2.5, rot2=0.1, pixels=(172e-6, 172e-6)))):
        q, phi = write_poni(path, shape, **geometry)
        run = subprocess.run([MAPS_PROGRAM, path, *map(str, shape)], stdout=subprocess.PIPE, timeout=60)
        seen = np.frombuffer(run.stdout).reshape(*shape, 2)
        q_error = np.abs(seen[..., 0] / q - 1)[q > 1e-9].max()
        phi_error = np.abs(np.remainder(np.radians(seen[..., 1]) - phi + np.pi, 2 * np.pi) - np.pi).max()
        check(q_error < 1e-6 and phi_error < 1e-6,
              f"{shape[0]} x {shape[1]}, {geometry}: q within {q_error:.1e}, azimuth within {phi_error:.1e} rad of pyFAI's")


def masked_like(q, lower, upper):
    return (q >= lower) & (q < upper)


def check_bins(directory, master, frames, mask):
    q, _ = write_poni(f"{directory}/det.poni", (ROWS, COLUMNS), rot1=0.12, rot2=0.05, rot3=0.4)
    edges = np.quantile(q, [0.05, 0.4, 0.7, 0.95])
    bands = [(edges[0], edges[1]), (edges[1], edges[2]), (edges[2], edges[3])]
    result = f"{directory}/bins_results.hdf"
    run = analyze(master, result, "--json", "--poni", f"{directory}/det.poni", "--matrix",
                  "--bands", ",".join(f"{a:.12g}:{b:.12g}" for a, b in bands))
    said = json.loads(run.stdout)
    check(run.returncode == 0 and len(said["bins"]) == 3, "three stated bands are three bins")
    with h5py.File(result) as file:
        expected = sum(number * masked_like(q, a, b) for number, (a, b) in enumerate(bands, 1)) * (mask == 0)
        check(np.array_equal(file["xpcs/qmap/dynamic_roi_map"], expected), "the bands' pixels are those by pyFAI's q")
        pairs = together = 0
        for b, bin in enumerate(said["bins"]):
            c, g2 = peer(frames, result, b + 1)
            is_in = expected == b + 1
            check(bin["n_pixels"] == is_in.sum() and bin["n_photons"] == frames[:, is_in].sum()
                  and abs(bin["q_inv_angstrom"] / q[is_in].mean() - 1) < 1e-6, f"bin {b + 1}: pixels, photons, q")
            seen = file[f"xpcs/twotime/correlation_map/c2_{b + 1:05d}"][()]
            check(np.allclose(file["xpcs/every_lag/bins/g2"][:, b], g2, rtol=1e-12)
                  and np.allclose(seen, np.triu(c), rtol=1e-6, equal_nan=True), f"bin {b + 1}: g2 and matrix are numpy's")
            of_bin = file["xpcs/every_lag/bins/pairs_expected"][:, b]
            pairs, together = pairs + g2 * of_bin, together + of_bin
        check(np.allclose(file["xpcs/every_lag/g2"], pairs / together, rtol=1e-12), "all together: pairs over pairs")
        fits = file["xpcs/fit/bins"]
        check(all(np.allclose(fits[key], [bin[key] for bin in said["bins"]], rtol=1e-8)
                  for key in ("tau_s", "tau_s_sigma", "beta", "contrast", "contrast_sigma", "baseline")), "fits as said")
        check(abs(file["xpcs/fit/tau_s"][()] - said["tau_s"]) < 1e-8 and all(
            abs(bin["tau_s"] - said["tau_s"]) < 5 * bin["tau_s_sigma"] for bin in said["bins"]),
            f"tau of all bins {said['tau_s']:.3f} s, of each {[round(bin['tau_s'], 3) for bin in said['bins']]}")
        check(said["n_pixels"] == (expected > 0).sum(), "the line counts the pixels in bins")
        image = file["xpcs/temporal_mean/scattering_2d"][0]
        static = file["xpcs/qmap/static_roi_map"][()]
        of_part = np.bincount(static.ravel(), image.ravel())[1:] / np.bincount(static.ravel())[1:]
        check(np.allclose(file["xpcs/temporal_mean/scattering_1d"][0], of_part, rtol=1e-5), "I(q) of the static map")
        check(np.allclose(np.average(file["xpcs/temporal_mean/scattering_1d_segments"], 0), of_part, rtol=1e-5),
              "and in segments of the scan")
    return result


def check_layout(directory, master):
    result = f"{directory}/layout_results.hdf"
    one_matrix = 3 * 4 * 300 * 301 // 2
    run = analyze(master, result, "--json", "--poni", f"{directory}/det.poni", "--bands", "4", "--sectors", "2",
                  "--ages", "3", "--memory", str(3 * one_matrix + 100))
    said = json.loads(run.stdout)
    n = len(said["bins"])
    check(run.returncode == 0 and 4 < n <= 8 and all(bin["phi_deg"] is not None for bin in said["bins"]),
          f"four bands in two sectors: {n} bins with pixels")
    check([bin["matrix"] for bin in said["bins"]] == [True] * 3 + [False] * (n - 3),
          "three full matrices fit into the memory, and the line says which")
    with h5py.File(result) as file:
        missing = [name for name in VIEWER_PATHS + NXXPCS_PATHS if name not in file]
        check(not missing, f"every promised dataset is there (missing: {missing})")
        names = [f"c2_{b:05d}" for b in range(1, n + 1)]
        check(sorted(file["xpcs/twotime/correlation_map"]) == names and sorted(file["xpcs/twotime/full_map"]) == names[:3]
              and len({file[f"xpcs/twotime/correlation_map/{name}"].shape for name in names}) == 1,
              "maps of one size for all bins, full ones beside them")
        check(list(file["xpcs/twotime/processed_bins"]) == list(range(1, n + 1)), "processed bins")
        qmap = file["xpcs/qmap"]
        n_static = len(qmap["static_index_mapping"])
        check(np.array_equal(np.unique(qmap["dynamic_roi_map"])[1:], range(1, n + 1))
              and len(qmap["dynamic_index_mapping"]) == n
              and max(qmap["dynamic_index_mapping"]) < np.prod(qmap["dynamic_num_pts"])
              and [len(qmap[f"dynamic_v_list_dim{i}"]) for i in (0, 1)] == list(qmap["dynamic_num_pts"])
              and [len(qmap[f"static_v_list_dim{i}"]) for i in (0, 1)] == list(qmap["static_num_pts"])
              and file["xpcs/temporal_mean/scattering_1d"].size == n_static
              and file["xpcs/temporal_mean/scattering_1d_segments"].shape == (10, n_static), "lists and maps fit together")
        n_delays = len(file["xpcs/multitau/delay_list"])
        check(file["xpcs/multitau/normalized_g2"].shape == file["xpcs/multitau/normalized_g2_err"].shape == (n_delays, n)
              and file["xpcs/multitau/normalized_g2_partial"].shape == (3, n_delays, n)
              and len(file["xpcs/multitau/normalized_g2_partial_labels"]) == 3, "g2 of every bin, and in slices")
        stacked = file["entry/twotime/two_time_corr_func"]
        check(stacked.shape[0] == n and all(np.array_equal(stacked[b], file[f"xpcs/twotime/correlation_map/{name}"],
                                                           equal_nan=True) for b, name in enumerate(names)),
              "NXxpcs sees the maps of all bins as one")
        text = lambda group, name: np.asarray(group.attrs[name]).astype(str).item()
        data = file[text(file, "default")][text(file[text(file, "default")], "default")]
        signal, axis = data[text(data, "signal")], data[text(data, "axes")]
        check(text(data, "NX_class") == "NXdata" and signal.ndim == 1 and signal.shape == axis.shape
              and data[f"{text(data, 'signal')}_errors"].shape == signal.shape, "what viewers plot first: a curve with errors")
        missing = [name for name in ("g2", "g2_derr") if "units" not in data[name].attrs]
        check(not missing, f"units are stated (missing: {missing})")


def check_ages(directory, frames):
    with h5py.File(f"{directory}/layout_results.hdf") as file:
        labels = [label.decode() for label in file["xpcs/multitau/normalized_g2_partial_labels"]]
        is_in = file["xpcs/qmap/dynamic_roi_map"][()] == 4
        photons = frames[:, is_in].astype(np.float64)
        pairs, sums = photons @ photons.T, photons.sum(1)
        effective = file["xpcs/fit/bins/n_pixels_effective"][3]
        seen = file["xpcs/multitau/normalized_g2_partial"][:, 2, 3]
        delay = int(round(file["xpcs/multitau/delay_list"][2]))
        good = []
        for label in labels:
            first, last = map(int, label.split("-"))
            at = [t for t in range(first, last + 1) if t + delay < len(frames)]
            good.append(sum(pairs[t, t + delay] for t in at) / sum(sums[t] * sums[t + delay] for t in at) * effective)
    check(labels == ["0-99", "100-199", "200-299"] and np.allclose(seen, good, rtol=1e-12),
          "g2 in slices of the waiting time is numpy's")


def check_masks(directory, master, frames, mask):
    other = np.zeros((ROWS, COLUMNS), np.uint8)
    other[:, 70:73] = 1
    with h5py.File(f"{directory}/m.h5", "w") as file:
        file["mask"] = other
        file["second"] = other.T[:ROWS, :COLUMNS] if ROWS == COLUMNS else np.roll(other, 9, 1)
    with open(f"{directory}/shadow.txt", "w") as file:
        file.write("# of the vacuum tube\n-1 -1\n20.5 -1\n-1 20.5\n\n80.5 40.5\n90.5 40.5\n90.5 50.5\n80.5 50.5\n")
    rows, columns = np.indices((ROWS, COLUMNS))
    shadow = (rows + columns <= 19) | ((rows > 40) & (rows <= 50) & (columns > 80) & (columns <= 90))
    result = f"{directory}/masked_results.hdf"
    said = json.loads(analyze(master, result, "--json", "--mask", f"{directory}/m.h5", "--mask",
                              f"{directory}/m.h5:/second", "--polygon", f"{directory}/shadow.txt").stdout)
    valid = (mask == 0) & (other == 0) & (np.roll(other, 9, 1) == 0) & ~shadow
    with h5py.File(result) as file:
        check(np.array_equal(file["xpcs/qmap/mask"], valid) and said["n_pixels"] == valid.sum(),
              "masks, repeated, and polygons leave out their pixels")
    for polygon, words in (("3 4\n5 6\n", "2 corners"), ("a b\n", "line 1 is 'a b'")):
        with open(f"{directory}/bad.txt", "w") as file:
            file.write(polygon)
        expect_refusal(directory, master, words, "--polygon", f"{directory}/bad.txt")
    expect_refusal(directory, master, "cannot be read", "--polygon", f"{directory}/none.txt")


def check_gradient(directory):
    """Threefold from side to side. Contrast 7/8 by construction."""
    frames = draw_photons(500, ROWS, COLUMNS, 12, 0.25, 11)
    keep = np.linspace(1 / 3, 1, COLUMNS)
    frames = np.random.default_rng(3).binomial(frames, keep).astype(np.uint32)
    master = write_series(directory, frames, stem="slope")
    result = f"{directory}/slope_results.hdf"
    said = json.loads(analyze(master, result, "--json").stdout)
    profile = (keep**2).mean() / keep.mean() ** 2
    check(abs(said["baseline"] - 1) < 0.05 * said["contrast"] and profile > 1.08 and abs(said["contrast"] - 0.875) < 0.03,
          f"threefold gradient: baseline {said['baseline']:.4f} (its square would be {profile:.3f}), "
          f"contrast {said['contrast']:.4f} (0.875)")


def check_flat_field(directory):
    """Pixels of 50 to 150 % that no neighbour knows of, and some that see nothing."""
    random = np.random.default_rng(6)
    keep = random.uniform(1 / 3, 1, (ROWS, COLUMNS))
    frames = random.binomial(draw_photons(500, ROWS, COLUMNS, 12, 0.25, 15), keep).astype(np.uint32)
    flat = 1e4 * keep
    flat[3:5, 50:60], flat[80, 80] = 0, np.nan
    with h5py.File(f"{directory}/flat.h5", "w") as file:
        file["measured/flat"] = flat
    master = write_series(directory, frames, stem="sensitivity")
    result = f"{directory}/sensitivity_results.hdf"
    plain, said = (json.loads(analyze(master, result, "--json", *options).stdout)
                   for options in ([], ["--flat", f"{directory}/flat.h5:/measured/flat"]))
    with h5py.File(result) as file:
        check(np.array_equal(file["xpcs/qmap/mask"], flat > 0), "a pixel without sensitivity is masked")
    check(abs(said["baseline"] - 1) < 0.05 * said["contrast"] < plain["baseline"] - 1
          and abs(said["contrast"] - 0.875) < 0.03,
          f"flat field: baseline {said['baseline']:.4f}, without it {plain['baseline']:.4f}, "
          f"contrast {said['contrast']:.4f} (0.875)")
    expect_refusal(directory, master, "is not readable as a flat field of 96 x 112 pixels", "--flat", f"{directory}/flat.h5")


def check_dead(directory):
    frames = draw_photons(700, 64, 64, 12, 0.3, 12)
    frames[:, 20, 30] = frames[:, 41, 7] = 0
    said = json.loads(analyze(write_series(directory, frames, stem="dead", per_file=400),
                              f"{directory}/dead_results.hdf", "--json").stdout)
    with h5py.File(f"{directory}/dead_results.hdf") as file:
        mask = file["xpcs/qmap/mask"][()]
        check(said["n_pixels"] == 64 * 64 - 2 and mask[20, 30] == mask[41, 7] == 0
              and file["process/n_dead_pixels"][()] == 2, "two dead pixels are found, left out, counted and masked")


def check_hits(directory):
    """Tracks and bursts in dark frames: left out, counted, and the rest is as if they had never been."""
    frames = draw_photons(200, ROWS, COLUMNS, 10, 0.001, 13)
    dirty = frames.copy()
    random = np.random.default_rng(14)
    n_photons = 0
    for t in range(5, 200, 30):
        row, column = random.integers(3, ROWS - 30), random.integers(3, COLUMNS - 30)
        frames[t, row - 1:row + 23, column - 1:column + 23] = dirty[t, row - 1:row + 23, column - 1:column + 23] = 0
        dirty[t, range(row, row + 22), range(column, column + 22)] = 1
        n_photons += 22
        frames[t, row + 3, column + 15] = dirty[t, row + 3, column + 15] = 0
        dirty[t, row + 3, column + 15] = 40
        n_photons += 40
    master = write_series(directory, dirty, stem="hits")
    result = f"{directory}/hits_results.hdf"
    for options, photons in (([], frames), (["--keep-hits"], dirty)):
        said = json.loads(analyze(master, result, "--json", *options).stdout)
        _, g2 = peer(photons, result)
        with h5py.File(result) as file:
            check(np.allclose(file["xpcs/every_lag/g2"], g2, rtol=1e-12, equal_nan=True)
                  and said["n_photons"] == photons.sum() and said["n_hits"] == file["process/n_hits"][()]
                  and file["process/n_hit_photons"][()] == (0 if options else n_photons),
                  f"{said['n_hits']} hits left out, g2 is numpy's without them {options}")
        check(said["n_hits"] == (0 if options else 14), "as many as there were")


def check_events(directory, master):
    options = ["--json", "--poni", f"{directory}/det.poni", "--bands", "5"]
    analyze(master, f"{directory}/whole_results.hdf", *options)
    run = subprocess.run([PROGRAM, "--from-events", f"{directory}/whole_events.bin", "-o",
                          f"{directory}/again_results.hdf", *options], capture_output=True, text=True, timeout=60)
    first, second = (json.loads(text) for text in (analyze(master, f"{directory}/whole_results.hdf", *options,
                                                           "--threads", "2").stdout, run.stdout))
    check(first["bins"] == second["bins"], "from the events, and by two threads, the bins are the same")


def check_progress(directory, master):
    run = analyze(master, f"{directory}/progress_results.hdf", "--json", "--progress")
    check(run.stderr.count("\n") >= 1 and "100 %, 0 s left" in run.stderr, f"--progress tells: {run.stderr.strip()}")
    check(analyze(master, f"{directory}/progress_results.hdf", "--json").stderr == "", "without it a log stays empty")


def expect_refusal(directory, master, words, *options):
    result = f"{directory}/refused_results.hdf"
    run = analyze(master, result, "--json", *options)
    reason = json.loads(run.stdout)["reason"] if run.stdout else run.stderr
    check(run.returncode == 1 and words in reason and "\n" not in reason and not os.path.exists(result),
          f"refused: {reason}")


def check_refusals(directory, master, frames):
    poni = f"{directory}/bad.poni"
    expect_refusal(directory, master, "no valid pixel lies in any band", "--bands", "50:60")
    with open(poni, "w") as file:
        file.write("Distance: 1\nPoni1: 0\nPoni2: nought\n")
    expect_refusal(directory, master, "line 3: Poni2 is 'nought', expected metres", "--poni", poni)
    expect_refusal(directory, master, "cannot be read", "--poni", f"{directory}/none.poni")
    write_poni(poni, (ROWS + 1, COLUMNS))
    expect_refusal(directory, master, f"is for a detector of {ROWS + 1} x {COLUMNS} pixels", "--poni", poni)
    write_poni(poni, (ROWS, COLUMNS), pixels=(172e-6, 172e-6))
    expect_refusal(directory, master, "is for pixels of 172 um, the series has 75 um", "--poni", poni)
    blind = write_series(directory, frames[:40], stem="blind")
    with h5py.File(blind, "r+") as file:
        file["entry/instrument/detector/detector_distance"][...] = 0
    expect_refusal(directory, blind, "bands of q and sectors need the geometry", "--bands", "3")
    said = json.loads(analyze(blind, f"{directory}/blind_results.hdf", "--json").stdout)
    check(said["bins"][0]["q_inv_angstrom"] is None and said["n_photons"] == frames[:40].sum(),
          "a series without a geometry is one bin without q")
    for wrong in (["--bands", "0"], ["--bands", "256"], ["--bands", "2:1"], ["--bands", "1:2,1.5:3"], ["--bands", "1:2,"],
                  ["--bands", "nan:1"], ["--sectors", "x"], ["--memory", "4T"], ["--memory", "-1"], ["--ages", "65"],
                  ["--arm", "x"], ["--arm", "1,"], ["--arm", "1", "--poni", poni]):
        check(analyze(master, f"{directory}/wrong_results.hdf", *wrong).returncode == 2,
              f"{' '.join(wrong[:3])} is refused with the usage")


def check_arm(directory, master):
    """The same arm in pyFAI's words."""
    said = [json.loads(analyze(master, f"{directory}/arm_results.hdf", "--json", "--no-events", "--arm", "9.5,-2",
                               "--bands", "3").stdout)]
    q, _ = write_poni(f"{directory}/arm.poni", (ROWS, COLUMNS), dist=1.5, poni1=4.5 * 75e-6, poni2=3.5 * 75e-6,
                         rot1=np.radians(9.5), rot2=np.radians(2), wavelength=12398.419843320026 / 21000 * 1e-10)
    said.append(json.loads(analyze(master, f"{directory}/arm_results.hdf", "--json", "--no-events", "--poni",
                                   f"{directory}/arm.poni", "--bands", "3").stdout))
    check([bin["n_pixels"] for bin in said[0]["bins"]] == [bin["n_pixels"] for bin in said[1]["bins"]]
          and abs(said[0]["bins"][0]["q_inv_angstrom_min"] / q.min() - 1) < 1e-6
          and abs(said[0]["bins"][2]["q_inv_angstrom_max"] / q.max() - 1) < 1e-6,
          f"an arm at 9.5 degrees: q {q.min():.4f} to {q.max():.4f}/angstrom, as pyFAI has it")


def main():
    directory = tempfile.mkdtemp(prefix="isobar-qmap-")
    try:
        frames = draw_photons(300, ROWS, COLUMNS, 20, 0.15, 5)
        mask = np.zeros((ROWS, COLUMNS), np.uint32)
        mask[30:33], mask[7, 9] = 1, 2
        frames[:, mask != 0] = 0
        master = write_series(directory, frames, mask, stem="qmap_0007")
        unmasked = write_series(directory, frames, stem="open_0008")
        check_every_pixel(directory)
        check_bins(directory, master, frames, mask)
        check_layout(directory, master)
        check_ages(directory, frames)
        check_masks(directory, master, frames, mask)
        check_gradient(directory)
        check_flat_field(directory)
        check_dead(directory)
        check_hits(directory)
        check_events(directory, master)
        check_progress(directory, master)
        check_refusals(directory, master, frames)
        check_arm(directory, unmasked)
    finally:
        shutil.rmtree(directory)
    print(f"{wire_analysis.failures} failures")
    return 1 if wire_analysis.failures else 0


if __name__ == "__main__":
    sys.exit(main())
