#!/usr/bin/python3
"""isobar-analyze from end to end, against independent peers.

Goal: a series written by another program (h5py with the bitshuffle plugin of the system) gives the photons, the matrix, g2
and the fit that numpy finds in it; the result file can be read where it is promised; whatever is not such a series is
refused in one sentence that names the file, with exit status 1, and leaves nothing behind.
Method: dynamic speckle made in numpy (Gaussian frequencies, so beta = 2), thinned to photons; files of both depths; every
kind of broken input. Argument 1: the build directory.
"""
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HDF5_PLUGIN_PATH", "/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins")
import h5py
import numpy as np

PROGRAM = os.path.join(sys.argv[1], "bin", "isobar-analyze")
DETECTOR = "entry/instrument/detector/"
SPECIFIC = DETECTOR + "detectorSpecific/"
FRAME_TIME_S = 0.1
failures = 0


def check(is_good, what):
    global failures
    failures += not is_good
    print(f"{'ok  ' if is_good else 'FAIL'}  {what}")


def draw_photons(n_frames, n_rows, n_columns, tau_frames, photons_per_pixel, seed):
    """uint32 [n_frames, n_rows, n_columns]; g2 - 1 = (1 - 1/8) exp(-2 (lag / tau)^2)."""
    random = np.random.default_rng(seed)
    shape = (8, n_rows, n_columns)
    frequency, phase = random.normal(0, np.sqrt(2), shape), random.uniform(0, 2 * np.pi, shape)
    frames = np.empty((n_frames, n_rows, n_columns), np.uint32)
    for t in range(n_frames):
        field = np.exp(1j * (frequency * t / tau_frames + phase)).sum(0) / np.sqrt(8)
        frames[t] = random.poisson(photons_per_pixel * np.abs(field) ** 2)
    return frames


def write_series(directory, frames, mask=None, dtype="uint32", per_file=100, n_announced=None, stem="series", **dataset):
    n, n_rows, n_columns = frames.shape
    mask = np.zeros((n_rows, n_columns), np.uint32) if mask is None else mask
    stored = frames.astype(dtype)
    stored[:, mask != 0] = np.iinfo(dtype).max
    dataset = dataset or {"compression": 32008, "compression_opts": (0, 2)}
    with h5py.File(f"{directory}/{stem}_master.h5", "w") as master:
        for path, value in {
            SPECIFIC + "x_pixels_in_detector": n_columns, SPECIFIC + "y_pixels_in_detector": n_rows,
            SPECIFIC + "nimages": n if n_announced is None else n_announced, SPECIFIC + "ntrigger": 1,
            SPECIFIC + "pixel_mask": mask, SPECIFIC + "photon_energy": 21000.0,
            SPECIFIC + "countrate_correction_count_cutoff": 60000,
            SPECIFIC + "data_collection_date": np.bytes_("2026-01-02T03:04:05.678901"),
            DETECTOR + "frame_time": FRAME_TIME_S, DETECTOR + "count_time": 0.0999, DETECTOR + "beam_center_x": 3.0,
            DETECTOR + "beam_center_y": 4.0, DETECTOR + "detector_distance": 1.5, DETECTOR + "x_pixel_size": 75e-6,
        }.items():
            master[path] = value
        for k, first in enumerate(range(0, n, per_file), 1):
            name = f"{stem}_data_{k:06d}.h5"
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            with h5py.File(f"{directory}/{name}", "w") as data:
                data.create_dataset("entry/data/data", data=stored[first:first + per_file],
                                    chunks=(1, n_rows, n_columns), **dataset)
    return f"{directory}/{stem}_master.h5"


def analyze(master, result, *options):
    return subprocess.run([PROGRAM, master, "-o", result, *options], capture_output=True, text=True, timeout=60)


def flat_pixels(photons, parts):
    """Pixels that a flat bin of the same noise would have; photons and parts of each pixel."""
    _, part, n = np.unique(parts, return_inverse=True, return_counts=True)
    in_part, total = np.bincount(part, photons), photons.sum()
    return total * (total - 1) / (in_part * (in_part - 1) / n).sum()


def peer(frames, result, number=1):
    """C(t1, t2), and g2 by the ratio of sums, of one bin, straight from their definitions; the maps are the result's."""
    with h5py.File(result) as file:
        is_in = file["xpcs/qmap/dynamic_roi_map"][()] == number
        parts = file["xpcs/qmap/static_roi_map"][is_in]
    photons = frames[:, is_in].astype(np.float64)
    sums = photons.sum(1)
    pairs, expected = photons @ photons.T, np.outer(sums, sums) / flat_pixels(photons.sum(0), parts)
    g2 = np.array([np.trace(pairs, lag) / np.trace(expected, lag) for lag in range(len(frames))])
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs / expected, g2


VIEWER_PATHS = (
    [f"xpcs/qmap/{name}" for name in
     "mask dynamic_roi_map static_roi_map dynamic_v_list_dim0 static_v_list_dim0 dynamic_v_list_dim1 static_v_list_dim1 "
     "beam_center_x beam_center_y detector_distance pixel_size static_index_mapping dynamic_index_mapping "
     "dynamic_num_pts static_num_pts map_names map_units".split()] +
    "entry/start_time entry/instrument/incident_beam/incident_energy entry/instrument/detector_1/frame_time "
    "entry/instrument/detector_1/count_time entry/instrument/bluesky/metadata xpcs/temporal_mean/scattering_1d "
    "xpcs/temporal_mean/scattering_1d_segments xpcs/temporal_mean/scattering_2d xpcs/spatial_mean/intensity_vs_time "
    "xpcs/multitau/delay_list xpcs/multitau/normalized_g2 xpcs/multitau/normalized_g2_err "
    "xpcs/multitau/config/stride_frame xpcs/multitau/config/avg_frame xpcs/twotime/normalized_g2 "
    "xpcs/twotime/normalized_g2_segments xpcs/twotime/processed_bins xpcs/twotime/config/stride_frame "
    "xpcs/twotime/config/avg_frame xpcs/twotime/correlation_map/c2_00001".split())
NXXPCS_PATHS = ("entry/definition entry/entry_identifier entry/scan_number entry/start_time entry/data/g2 "
                "entry/data/g2_derr entry/data/delay_difference entry/data/frame_average "
                "entry/twotime/two_time_corr_func entry/instrument/masks/dynamic_roi_map "
                "entry/instrument/detector_1/beam_center_x process/program process/version process/date").split()
KEYS = ("master result n_frames n_pixels n_photons tau_s tau_s_sigma beta beta_sigma contrast contrast_sigma baseline "
        "degenerate reason n_hits elapsed_s bins").split()


def check_layout(path, frames):
    with h5py.File(path) as result:
        missing = [name for name in VIEWER_PATHS + NXXPCS_PATHS if name not in result]
        check(not missing, f"every promised dataset is there (missing: {missing})")
        check(len(result["xpcs/qmap"].attrs["hash"]) > 10, "qmap has its hash")
        c2 = result["entry/twotime/two_time_corr_func"]
        check(c2.attrs["populated_elements"] in ("upper_half", b"upper_half") and c2.attrs["baseline_reference"] == 1,
              "the half matrix says that it is one")
        check(result["entry/data/g2"] == result["xpcs/multitau/normalized_g2"], "/entry shows /xpcs by hard links")
        check([name.decode() for name in result["xpcs/qmap/map_names"][()]] == ["q", "phi"], "map names")
        check(result["entry/scan_number"][()] == 42, "the number is the series' own")
        check(result["entry/start_time"][()].decode() == "2026-01-02T03:04:05.678901", "start time is the master's")
        q = result["xpcs/qmap/dynamic_v_list_dim0"][0]
        rows, columns = np.indices(frames.shape[1:])
        valid = result["xpcs/qmap/mask"][()] == 1
        angle = np.arctan2(np.hypot(rows - 4, columns - 3) * 75e-6, 1.5)
        expected = (4 * np.pi * 21 / 12.39842 * np.sin(angle / 2))[valid].mean()
        check(abs(q / expected - 1) < 1e-6, f"mean q {q:.6f} 1/angstrom")


def check_against_numpy(directory, dtype):
    frames = draw_photons(350, 32, 40, 30, 0.08, 5)
    frames[120] = 0
    mask = np.zeros((32, 40), np.uint32)
    mask[10:13], mask[20, 7] = 1, 2
    clean = frames.copy()
    frames[33, 2, 2] = 60001  # above the cut-off: not photons in this frame
    clean[33, 2, 2] = 0
    master = write_series(directory, frames, mask, dtype, per_file=100, stem=f"scan_{dtype}_0042")
    result = f"{directory}/{dtype}_results.hdf"
    run = analyze(master, result, "--json", "--matrix")
    said = json.loads(run.stdout)
    check(run.returncode == 0 and run.stdout.count("\n") == 1 and list(said) == KEYS, f"{dtype}: one line, these keys")
    check(said["n_photons"] == clean[:, mask == 0].sum() and said["n_pixels"] == (mask == 0).sum()
          and said["n_frames"] == 350, f"{dtype}: {said['n_photons']} photons, as numpy counts")
    c, g2 = peer(clean, result)
    with h5py.File(result) as file:
        seen = file["xpcs/twotime/correlation_map/c2_00001"][()]
        check(np.allclose(seen, np.triu(c), rtol=1e-6, equal_nan=True), f"{dtype}: the matrix is numpy's, upper half")
        check(np.allclose(file["xpcs/every_lag/g2"], g2, rtol=1e-12), f"{dtype}: g2 is numpy's")
        mean = [np.nanmean(np.diagonal(c, lag)) for lag in range(350)]
        check(np.allclose(file["xpcs/every_lag/g2_mean"], mean, rtol=1e-12), f"{dtype}: the mean of C along diagonals")
        in_time = file["xpcs/spatial_mean/intensity_vs_time"][1]
        check(np.allclose(in_time, clean[:, mask == 0].mean(1)), f"{dtype}: intensity in time")
        image = file["xpcs/temporal_mean/scattering_2d"][0]
        check(np.allclose(image, np.where(mask == 0, clean.mean(0), 0)), f"{dtype}: mean image")
        check(np.array_equal(file["xpcs/qmap/mask"], mask == 0), f"{dtype}: mask")
        fit = file["xpcs/fit"]
        check(all(abs(fit[key][()] - said[key]) <= 1e-8 * abs(said[key])
                  for key in ("tau_s", "tau_s_sigma", "beta", "contrast_sigma", "baseline")), f"{dtype}: fit as said")
    check(abs(said["tau_s"] / 3 - 1) < 0.15 and abs(said["beta"] - 2) < 0.4 and abs(said["contrast"] - 0.875) < 0.15
          and not said["degenerate"] and said["reason"] is None,
          f"{dtype}: tau {said['tau_s']:.3f} s (3), beta {said['beta']:.3f} (2), contrast {said['contrast']:.3f} (0.875)")
    check_layout(result, frames)
    return master, clean, mask


def check_options(directory, master, frames, mask):
    result = f"{directory}/part_results.hdf"
    said = json.loads(analyze(master, result, "--json", "--frames", "130:300").stdout)
    _, g2 = peer(frames[130:300], result)
    with h5py.File(result) as file:
        check(said["n_frames"] == 170 and np.allclose(file["xpcs/every_lag/g2"], g2, rtol=1e-12), "--frames 130:300")
    run = analyze(master, result)
    check(run.returncode == 0 and "tau" in run.stdout and "exp(-2 (t/tau)^beta)" in run.stdout, "text, with convention")
    for wrong in (["--frames", "5:5"], ["--frames", "x"], ["--frames", "1:2x"], ["--frames", "-3:4"], ["--unknown"]):
        check(analyze(master, result, *wrong).returncode == 2, f"{' '.join(wrong)} is refused with the usage")
    check(subprocess.run([PROGRAM], capture_output=True).returncode == 2, "no arguments: the usage")


def check_flat(directory):
    frames = np.random.default_rng(1).poisson(0.05, (200, 32, 40)).astype(np.uint32)
    run = analyze(write_series(directory, frames, stem="flat"), f"{directory}/flat_results.hdf", "--json")
    said = json.loads(run.stdout)
    check(run.returncode == 0 and list(said) == KEYS and said["tau_s"] is None and "flat" in said["reason"],
          f"no dynamics: {said['reason']}")
    with h5py.File(f"{directory}/flat_results.hdf") as file:
        check("tau_s" not in file["xpcs/fit"] and "flat" in str(file["xpcs/fit"].attrs["reason"])
              and file["xpcs/every_lag/g2"].shape == (200,), "its g2 is kept, with the reason")


def check_long(directory):
    """More frames than lines of the map."""
    frames = np.random.default_rng(2).poisson(0.05, (2050, 8, 16)).astype(np.uint32)
    analyze(write_series(directory, frames, per_file=1000, stem="long"), f"{directory}/long_results.hdf", "--json")
    c, _ = peer(frames, f"{directory}/long_results.hdf")
    with h5py.File(f"{directory}/long_results.hdf") as file:
        n = 2050 // 3
        blocks = c[:3 * n, :3 * n].reshape(n, 3, n, 3)
        expected = np.triu(np.nanmean(blocks, (1, 3)), 1)  # some frames are empty and have no C
        seen = file["xpcs/twotime/correlation_map/c2_00001"][()]
        check(file["xpcs/twotime/config/avg_frame"][()] == 3 and seen.shape == (n, n)
              and np.allclose(np.triu(seen, 1), expected, rtol=1e-5) and not np.tril(seen, -1).any(),
              "2050 frames: a map of 683 lines, each the mean of 3 frames")
        mean = [seen.diagonal(lag).mean() for lag in range(n)]
        check(np.allclose(file["xpcs/twotime/normalized_g2"][:, 0], mean, rtol=1e-6), "its g2 along its diagonals")


def check_hot_pixels(directory):
    """One that is hot from the first frame, and one that turns hot late: the scan is correlated anew without it."""
    frames = draw_photons(400, 32, 40, 10, 0.1, 6)
    mask = np.zeros((32, 40), np.uint32)
    mask[0] = 1
    frames[:, 7, 9] = 4000
    frames[280:, 9, 12] = 30
    master = write_series(directory, frames, mask, stem="hot")
    mask[7, 9] = mask[9, 12] = 1
    for options in ([], ["--no-events"], ["--threads", "2"]):
        result = f"{directory}/hot_results.hdf"
        said = json.loads(analyze(master, result, "--json", *options).stdout)
        _, g2 = peer(frames, result)
        with h5py.File(result) as file:
            check(said["n_pixels"] == (mask == 0).sum() and file["process/n_hot_pixels"][()] == 2
                  and np.array_equal(file["xpcs/qmap/mask"], mask == 0) and np.allclose(file["xpcs/every_lag/g2"], g2),
                  f"hot pixels are left out, and masked in the result {options}")


def expect_refusal(directory, master, words, result=None, full_disk_bytes=None):
    """With full_disk_bytes, no file can grow beyond that (and SIGXFSZ, which Python ignores, stays ignored)."""
    before = set(os.listdir(directory))
    limit = full_disk_bytes and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full_disk_bytes, full_disk_bytes)))
    run = subprocess.run([PROGRAM, master, "-o", result or f"{directory}/refused_results.hdf", "--json"], text=True,
                         capture_output=True, timeout=60, preexec_fn=limit, restore_signals=False)
    try:
        reason = json.loads(run.stdout)["reason"]
    except (ValueError, KeyError):
        reason = ""
    is_good = run.returncode == 1 and words in reason and "\n" not in reason and "HDF5-DIAG" not in run.stderr
    check(is_good and set(os.listdir(directory)) == before, f"refused: {reason or (run.returncode, run.stdout, run.stderr)}")


def overwrite(path, offset, replacement):
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        file.write(replacement)


def check_refusals(directory):
    frames = draw_photons(30, 16, 24, 5, 0.1, 3)
    expect_refusal(directory, f"{directory}/nothing_master.h5", "cannot be read")
    with open(f"{directory}/text_master.h5", "w") as file:
        file.write("tau = 95 s\n" * 500)
    expect_refusal(directory, f"{directory}/text_master.h5", "not a readable HDF5 file")
    with h5py.File(f"{directory}/foreign_master.h5", "w") as file:
        file["measurement/temperature"] = np.arange(10.0)
    expect_refusal(directory, f"{directory}/foreign_master.h5", "/entry/data/data_000001")
    expect_refusal(directory, write_series(directory, frames, n_announced=31, stem="short"), "announces 31 frames")
    expect_refusal(directory, write_series(directory, frames, stem="gzip", compression="gzip"), "bitshuffle")
    expect_refusal(directory, write_series(directory, frames, stem="zip", compression=32008, compression_opts=(0, 0)),
                   "filter 32008, option 0")
    expect_refusal(directory, write_series(directory, frames, dtype="int32", stem="signed"), "uint8, uint16 or uint32")
    expect_refusal(directory, write_series(directory, frames[:1], stem="single"), "single_master.h5: 1 frames: a correlation needs 2 to 1048560")
    expect_refusal(directory, write_series(directory, frames * 0, stem="dark"), "no photons")
    expect_refusal(directory, write_series(directory, frames, np.ones((16, 24), np.uint32), stem="blind"), "blind_master.h5: 0 valid")
    master = write_series(directory, frames, per_file=10, stem="missing")
    os.remove(f"{directory}/missing_data_000002.h5")
    expect_refusal(directory, master, "/entry/data/data_000002")
    master = write_series(directory, frames, stem="cut")
    os.truncate(f"{directory}/cut_data_000001.h5", os.path.getsize(f"{directory}/cut_data_000001.h5") // 2)
    expect_refusal(directory, master, "truncated")
    os.truncate(master, os.path.getsize(master) // 2)
    expect_refusal(directory, master, "not a readable HDF5 file")
    master = write_series(directory, frames, stem="corrupt")
    with h5py.File(f"{directory}/corrupt_data_000001.h5") as file:
        offset = file["entry/data/data"].id.get_chunk_info(7).byte_offset
    overwrite(f"{directory}/corrupt_data_000001.h5", offset + 12, b"\xff" * 4)
    expect_refusal(directory, master, "corrupt_data_000001.h5, frame 8 of 30")
    master = write_series(directory, frames, stem="raw")
    with h5py.File(f"{directory}/raw_data_000001.h5", "r+") as file:
        file["entry/data/data"].id.write_direct_chunk((3, 0, 0), frames[3].tobytes(), filter_mask=1)
    expect_refusal(directory, master, "raw_data_000001.h5, frame 4 of 30: a chunk of 1536 bytes with filter mask 1")
    master = write_series(directory, frames, stem="gap")
    with h5py.File(f"{directory}/gap_data_000001.h5", "w") as file:
        part = file.create_dataset("entry/data/data", (30, 16, 24), "uint32", chunks=(1, 16, 24), compression=32008,
                                   compression_opts=(0, 2))
        part[:20] = frames[:20]
    expect_refusal(directory, master, "frame 21 of 30: the frame was never written")
    master = write_series(directory, frames, stem="shape")
    with h5py.File(master, "r+") as file:
        file[SPECIFIC + "x_pixels_in_detector"][...] = 25
    expect_refusal(directory, master, "mask is not readable as 16 x 25")
    with h5py.File(master, "r+") as file:
        file[SPECIFIC + "x_pixels_in_detector"][...] = 2**31
    expect_refusal(directory, master, "not possible")
    master = write_series(directory, frames, stem="fine")
    expect_refusal(directory, master, "No such file or directory", f"{directory}/no_such_folder/x_results.hdf")
    os.mkdir(f"{directory}/folder_results.hdf")
    expect_refusal(directory, master, "Is a directory", f"{directory}/folder_results.hdf")
    expect_refusal(directory, master, "File too large", full_disk_bytes=20000)


def check_damage(directory):
    """Random bytes of the master and of a data file: refused or analysed, never a crash."""
    random = np.random.default_rng(8)
    master = write_series(directory, draw_photons(30, 16, 24, 5, 0.1, 3), stem="damaged")
    data = f"{directory}/damaged_data_000001.h5"
    kept = {path: open(path, "rb").read() for path in (master, data)}
    statuses = []
    for _ in range(60):
        for path, whole in kept.items():
            broken = bytearray(whole)
            for _ in range(random.integers(1, 30)):
                broken[random.integers(len(whole))] = random.integers(256)
            with open(path, "wb") as file:
                file.write(broken)
            statuses.append(analyze(master, f"{directory}/damaged_results.hdf").returncode)
            with open(path, "wb") as file:
                file.write(whole)
    check(set(statuses) <= {0, 1} and 1 in statuses, f"120 damaged files: {statuses.count(1)} refused, none crashed")


def main():
    directory = tempfile.mkdtemp(prefix="isobar-analysis-")
    try:
        master, frames, mask = check_against_numpy(directory, "uint32")
        check_against_numpy(directory, "uint16")
        check_options(directory, master, frames, mask)
        check_flat(directory)
        check_long(directory)
        check_hot_pixels(directory)
        check_refusals(directory)
        check_damage(directory)
    finally:
        shutil.rmtree(directory)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
