#!/usr/bin/python3
"""Frames to events, against h5py and numpy.

Goal: the photon events that isobar-analyze finds in a series are those that numpy finds in what h5py reads from the same
files: every layout and compression, every depth, module gaps, bad pixels, saturated and flagged values, counts that do not
fit into an event, detectors of more than 2^23 pixels, any number of threads, and series that are still being written. What
was found once can be analysed again, with another mask, without the series; what is damaged is refused.
Method: the event cache is read here from its documented layout, byte by byte, and compared with numpy's non-zero pixels.
Argument 1: the build directory.
"""
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

os.environ.setdefault("HDF5_PLUGIN_PATH", "/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins")
import h5py
import numpy as np

PROGRAM = os.path.join(sys.argv[1], "bin", "isobar-analyze")
DETECTOR = "entry/instrument/detector/"
SPECIFIC = DETECTOR + "detectorSpecific/"
BSLZ4 = {"compression": 32008, "compression_opts": (0, 2)}
CUTOFF = 60000
liblz4 = ctypes.CDLL("liblz4.so.1")
failures = 0


def check(is_good, what):
    global failures
    failures += not is_good
    print(f"{'ok  ' if is_good else 'FAIL'}  {what}", flush=True)


# ---- series --------------------------------------------------------------------------------------------------------


def draw_series(dtype, n=40, n_rows=66, n_columns=124, seed=1):
    """Frames as a detector would store them, and its mask: gaps and bad pixels at the largest value in every frame, and
    in single frames pixels that are saturated, flagged, or brighter than an event can hold."""
    random = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    frames = random.poisson(random.gamma(2, 0.02, (n_rows, n_columns)), (n, n_rows, n_columns)).astype(dtype)
    mask = np.zeros((n_rows, n_columns), np.uint32)
    mask[30:34], mask[:, 60:66] = 1, 1
    mask[random.integers(0, n_rows, 30), random.integers(0, n_columns, 30)] |= 8
    for value in (top, top - 1, min(top, CUTOFF + 1), min(top - 2, 3), min(top - 2, 4), min(top - 2, 513),
                  min(top - 2, CUTOFF)):
        for _ in range(10):
            frames[random.integers(n), random.integers(n_rows), random.integers(n_columns)] = value
    frames[n // 2] = 0
    frames[:, mask != 0] = top
    return frames, mask


def expected_events(frames, mask):
    """Per frame: pixels, counts, number of invalid ones."""
    top = np.iinfo(frames.dtype).max
    limit = min(CUTOFF, int(top) - 2)
    for frame in frames:
        valid = frame[mask == 0]
        good = (mask == 0) & (frame > 0) & (frame <= limit)
        yield np.flatnonzero(good), frame[good].astype(np.int64), int((valid > limit).sum())


def write_legacy(directory, stem, frames, mask, per_file=15, write=None):
    n, n_rows, n_columns = frames.shape
    write = write or (lambda file, part: file.create_dataset("entry/data/data", data=part,
                                                             chunks=(1, n_rows, n_columns), **BSLZ4))
    with h5py.File(f"{directory}/{stem}_master.h5", "w") as master:
        for path, value in {
            SPECIFIC + "x_pixels_in_detector": n_columns, SPECIFIC + "y_pixels_in_detector": n_rows,
            SPECIFIC + "nimages": n, SPECIFIC + "ntrigger": 1, SPECIFIC + "pixel_mask": mask,
            SPECIFIC + "countrate_correction_count_cutoff": CUTOFF, DETECTOR + "frame_time": 0.1,
        }.items():
            master[path] = value
        for k, first in enumerate(range(0, n, per_file), 1):
            name = f"{stem}_data_{k:06d}.h5"
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            if write is not never:
                with h5py.File(f"{directory}/{name}", "w") as file:
                    write(file, frames[first:first + per_file])
    return f"{directory}/{stem}_master.h5"


def never():
    pass


def write_v2024(directory, stem, frames, mask, per_file):
    """[n, channels, rows, columns], the second channel full of other numbers; per_file 0: all in the master."""
    n, n_rows, n_columns = frames.shape
    both = np.stack([frames, np.full_like(frames, 7)], 1)
    layout = h5py.VirtualLayout(both.shape, frames.dtype)
    with h5py.File(f"{directory}/{stem}_master.h5", "w") as master:
        for k, first in enumerate(range(0, n, per_file), 1) if per_file else ():
            part = both[first:first + per_file]
            name = f"{stem}_data_{k:06d}.h5"
            with h5py.File(f"{directory}/{name}", "w") as file:
                file.create_dataset("entry/data/data", data=part, chunks=(1, 1, n_rows, n_columns), **BSLZ4)
            layout[first:first + len(part)] = h5py.VirtualSource(name, "/entry/data/data", shape=part.shape)
        if per_file:
            master.create_virtual_dataset("entry/data/data", layout)
        else:
            master.create_dataset("entry/data/data", data=both, chunks=(1, 1, n_rows, n_columns), **BSLZ4)
        master[DETECTOR + "frame_time"], master[DETECTOR + "saturation_value"] = 0.1, CUTOFF
        master[DETECTOR + "threshold_1_channel/pixel_mask"] = mask
        master[DETECTOR + "threshold_2_channel/pixel_mask"] = mask * 0 + 1
        master["entry/instrument/beam/incident_energy"] = 21000.0
        master["entry/start_time"] = "2026-01-02T03:04:05.678Z"
    return f"{directory}/{stem}_master.h5"


def lz4_chunk(frame, block_bytes):
    """Filter 32004, with liblz4 itself."""
    data, out = frame.tobytes(), b""
    for i in range(0, len(data), block_bytes):
        block = data[i:i + block_bytes]
        room = ctypes.create_string_buffer(liblz4.LZ4_compressBound(len(block)))
        size = liblz4.LZ4_compress_default(block, room, len(block), len(room))
        packed = room.raw[:size] if size < len(block) else block
        out += struct.pack(">I", len(packed)) + packed
    return struct.pack(">QI", len(data), block_bytes) + out


def write_lz4(file, part):
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_chunk((1,) + part.shape[1:])
    create.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, (0,))
    space = h5py.h5s.create_simple(part.shape)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    dataset = h5py.h5d.create(file.id, b"/entry/data/data", h5py.h5t.py_create(part.dtype), space, create, links)
    for t, frame in enumerate(part):
        dataset.write_direct_chunk((t, 0, 0), lz4_chunk(frame, (1 << 30, 4096, 1000)[t % 3]))


def write_sparse(directory, stem, frames, per_file, **dataset):
    """As Lima2 does at ID10; one frame is out of order, which the format does not exclude."""
    for k, first in enumerate(range(0, len(frames), per_file)):
        part = [(np.flatnonzero(f), f[f > 0]) for f in frames[first:first + per_file]]
        part[3] = (part[3][0][::-1], part[3][1][::-1])
        with h5py.File(f"{directory}/{stem}_{k:05d}.h5", "w") as file:
            group = file.create_group("entry_0000/measurement/data")
            group["frame_ptr"] = np.cumsum([0] + [len(index) for index, _ in part])
            group.create_dataset("index", data=np.concatenate([i for i, _ in part]).astype(np.uint32), **dataset)
            group.create_dataset("intensity", data=np.concatenate([c for _, c in part]).astype(np.uint16), **dataset)
    return f"{directory}/{stem}_00000.h5"


# ---- the program and its event cache -------------------------------------------------------------------------------


def analyze(directory, name, *arguments):
    return subprocess.run([PROGRAM, "-o", f"{directory}/{name}_results.hdf", "--json", *map(str, arguments)], text=True,
                          capture_output=True, timeout=120, stdin=subprocess.DEVNULL)


def read_cache(path):
    """Per frame: pixels, counts, number of invalid ones; and the mask. Only from the layout in analysis/event_cache.h."""
    data = open(path, "rb").read()
    magic, version, pixel_bits, n_rows, n_columns, n_frames, n_events, n_bright = struct.unpack_from("<8sII5Q", data)
    assert magic == b"ISBEVENT" and version == 1
    n_words = (n_rows * n_columns + 63) // 64
    at = 1024
    valid = np.unpackbits(np.frombuffer(data, np.uint8, 8 * n_words, at), bitorder="little")[:n_rows * n_columns]
    at += 8 * n_words
    events = np.frombuffer(data, "<u4", n_events, at)
    at += 4 * (n_events + n_events % 2)
    first_event = np.frombuffer(data, "<u8", n_frames + 1, at).astype(int)
    first_bright = np.frombuffer(data, "<u8", n_frames + 1, at + 8 * (n_frames + 1)).astype(int)
    at += 16 * (n_frames + 1)
    bright = np.frombuffer(data, "<u4", 2 * n_bright, at).reshape(-1, 2)
    n_invalid = np.frombuffer(data, "<u4", n_frames, at + 8 * n_bright)
    assert at + 8 * n_bright + 4 * (n_frames + n_frames % 2) == len(data)
    frames = []
    for t in range(n_frames):
        own = events[first_event[t]:first_event[t + 1]]
        counts = (own >> pixel_bits).astype(np.int64) + 1
        for index, count in bright[first_bright[t]:first_bright[t + 1]]:
            assert counts[index] == 1 << (32 - pixel_bits)
            counts[index] = count
        frames.append((own & ((1 << pixel_bits) - 1), counts, n_invalid[t]))
    return frames, valid.reshape(n_rows, n_columns) == 0


def check_events(directory, name, what, frames, mask, *arguments, quiet=False):
    run = analyze(directory, name, *arguments)
    said = json.loads(run.stdout)
    if run.returncode != 0:
        check(False, f"{what}: {said['reason']}")
        return said
    found, found_mask = read_cache(f"{directory}/{name}_events.bin")
    expected = list(expected_events(frames, mask))
    is_good = (len(found) == len(expected) and np.array_equal(found_mask, mask != 0)
               and all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) and a[2] == b[2]
                       for a, b in zip(found, expected)))
    n_photons = sum(int(counts.sum()) for _, counts, _ in expected)
    if not quiet or not is_good:
        check(is_good and said["n_frames"] == len(frames), f"{what}: {n_photons} photons in {len(frames)} frames")
    return said


# ---- tests ---------------------------------------------------------------------------------------------------------


def check_layouts(directory):
    for dtype in ("uint8", "uint16", "uint32"):
        frames, mask = draw_series(dtype)
        rows, columns = mask.shape
        master = write_legacy(directory, dtype, frames, mask)
        for threads in (1, 2, 5):
            check_events(directory, dtype, f"Legacy, {dtype}, {threads} threads", frames, mask, master, "--threads", threads)
        os.remove(f"{directory}/{dtype}_events.bin")
        run = analyze(directory, dtype, master, "--no-events")
        check(run.returncode == 0 and not os.path.exists(f"{directory}/{dtype}_events.bin"), f"{dtype}: --no-events")
        for per_file in (15, 0):
            master = write_v2024(directory, f"v2024_{dtype}", frames, mask, per_file)
            check_events(directory, "v2024", f"v2024.2, {dtype}, {per_file} frames per file, two channels", frames, mask,
                         master, "--threads", 2)
        master = write_legacy(directory, f"lz4_{dtype}", frames, mask, write=write_lz4)
        check_events(directory, "lz4", f"LZ4 alone, {dtype}", frames, mask, master, "--threads", 2)
        for chunks in (None, (1, rows, columns), (4, rows, columns)):
            master = write_legacy(directory, f"plain_{dtype}", frames, mask,
                                  write=lambda f, part: f.create_dataset("entry/data/data", data=part, chunks=chunks))
            check_events(directory, "plain", f"uncompressed, {dtype}, chunks {chunks}", frames, mask, master)
        with h5py.File(f"{directory}/nd_{dtype}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=frames, chunks=(1, rows, columns), **BSLZ4)
        flagged = np.where(frames[0] == np.iinfo(dtype).max, 1, 0)
        with_cutoff = np.minimum(frames, CUTOFF) if dtype != "uint8" else frames  # no cut-off is known: none is checked
        with_cutoff = np.where(frames >= np.iinfo(dtype).max - 1, frames, with_cutoff)
        with h5py.File(f"{directory}/nd_{dtype}.h5", "r+") as file:
            file["entry/data/data"][...] = with_cutoff
        check_events(directory, "nd", f"NDFileHDF5, {dtype}", with_cutoff, flagged, f"{directory}/nd_{dtype}.h5",
                     "--frame-time", 0.1)
    run = analyze(directory, "nd", f"{directory}/nd_uint8.h5")
    check(run.returncode == 1 and "--frame-time" in run.stdout, "NDFileHDF5 without a frame time says what is missing")


def check_block_sizes(directory):
    """Blocks that the filter was told to make, and frames that end in a short block and in loose elements."""
    for shape in ((67, 121), (128, 256)):
        frames, mask = draw_series("uint32", 6, *shape, seed=2)
        for block in (0, 64, 1024, 4096):
            master = write_legacy(directory, "block", frames, mask, write=lambda f, part: f.create_dataset(
                "entry/data/data", data=part, chunks=(1,) + shape, compression=32008, compression_opts=(block, 2)))
            check_events(directory, "block", f"{shape} pixels in blocks of {block}", frames, mask, master)


def check_large(directory):
    """A 9M has more than 2^23 pixels, so an event has 8 bits for its count."""
    frames, mask = draw_series("uint32", 3, 3262, 3108, seed=3)
    mask[3000, 3000:3002], frames[:, 3000, 3000:3002] = 0, 0
    frames[1, 3000, 3000], frames[1, 3000, 3001] = 256, 257
    master = write_legacy(directory, "large", frames, mask)
    check_events(directory, "large", "a 9M", frames, mask, master, "--threads", 2)


def check_sparse(directory):
    frames, mask = draw_series("uint16", seed=4)
    frames[:, mask != 0] = 0
    frames[frames > CUTOFF] = 0
    none = mask * 0
    for dataset in ({}, {"compression": "gzip", "chunks": (1000,)}):
        path = write_sparse(directory, "eiger4m_sparse_frame_0", frames, 15, **dataset)
        check_events(directory, "sparse", f"Lima2 sparse, three files, {dataset or 'plain'}", frames, none, path,
                     "--frame-time", 0.1, "--shape", "66x124", "--threads", 2)
    for arguments, words in (([], "--shape"), (["--shape", "66x124"], "--frame-time"),
                             (["--shape", "66x60", "--frame-time", "0.1"], "is the shape right?")):
        run = analyze(directory, "sparse", path, *arguments)
        check(run.returncode == 1 and words in run.stdout, f"refused: {json.loads(run.stdout)['reason']}")


def check_cache(directory):
    frames, mask = draw_series("uint32", seed=5)
    master = write_legacy(directory, "again", frames, mask)
    user_mask = np.zeros(mask.shape, np.uint8)
    user_mask[:20] = 1
    with h5py.File(f"{directory}/user_mask.h5", "w") as file:
        file["mask"], file["other/half"] = user_mask, 1 - user_mask
    first = json.loads(analyze(directory, "again", master).stdout)
    masked = json.loads(analyze(directory, "masked", master, "--mask", f"{directory}/user_mask.h5").stdout)
    cache = f"{directory}/again_events.bin"
    shutil.move(f"{directory}/again_data_000001.h5", f"{directory}/elsewhere.h5")
    os.remove(master)
    for before, arguments in ((first, []), (masked, ["--mask", f"{directory}/user_mask.h5"])):
        after = json.loads(analyze(directory, "anew", "--from-events", cache, *arguments).stdout)
        same = [key for key in before if key not in ("elapsed_s", "result") and before[key] == after[key]]
        check(len(same) == len(before) - 2 and not os.path.exists(f"{directory}/anew_events.bin"),
              f"from events {arguments[:1]}, without the series: all as before, {after['n_photons']} photons")
    both = json.loads(analyze(directory, "both", write_legacy(directory, "both", frames, mask | user_mask)).stdout)
    check(all(both[key] == masked[key] for key in both if key not in ("elapsed_s", "result", "master"))
          and masked["n_photons"] < first["n_photons"], "--mask does what the detector's own mask does")
    other = json.loads(analyze(directory, "anew", "--from-events", cache, "--mask", f"{directory}/user_mask.h5:/other/half").stdout)
    check(other["n_photons"] + masked["n_photons"] == first["n_photons"], "two complementary masks share the photons")
    part = json.loads(analyze(directory, "anew", "--from-events", cache, "--frames", "10:30").stdout)
    check(part["n_frames"] == 20, "from events, --frames 10:30")
    check_cache_refusals(directory, cache)


def check_cache_refusals(directory, cache):
    whole = open(cache, "rb").read()
    broken = f"{directory}/broken_events.bin"

    def expect(content, words):
        with open(broken, "wb") as file:
            file.write(content)
        run = analyze(directory, "refused", "--from-events", broken)
        reason = json.loads(run.stdout)["reason"] or ""
        is_good = run.returncode == 1 and words in reason and "broken_events.bin" in reason
        check(is_good and not os.path.exists(f"{directory}/refused_results.hdf"), f"refused: {reason}")
        return is_good

    expect(b"", "shorter than the header")
    expect(whole[:-4], "cut or spoilt")
    expect(whole[:3000], "cut or spoilt")
    expect(whole + b"\0" * 8, "cut or spoilt")
    expect(b"HDF" + whole[3:], "not an event cache")
    expect(whole[:8] + b"\2" + whole[9:], "version 2")
    expect(whole[:64] + b"\1" + whole[65:], "the header is damaged")
    random, n_refused = np.random.default_rng(6), 0
    for _ in range(60):
        at = int(random.integers(len(whole)))
        with open(broken, "wb") as file:
            file.write(whole[:at] + bytes([whole[at] ^ 1 << int(random.integers(8))]) + whole[at + 1:])
        n_refused += analyze(directory, "refused", "--from-events", broken).returncode == 1
    check(n_refused == 60, f"one bit is wrong anywhere: {n_refused} of 60 refused")


class Follower:
    """isobar-analyze --follow on a series, until its end is told by closing standard input."""

    def __init__(self, directory, name, master):
        self.process = subprocess.Popen([PROGRAM, master, "-o", f"{directory}/{name}_results.hdf", "--json", "--follow",
                                         "--threads", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def is_running(self):
        try:
            self.process.wait(0.4)
            return False
        except subprocess.TimeoutExpired:
            return True

    def result(self, tell_end):
        if tell_end:
            self.process.stdin.close()
        line = self.process.stdout.readline()
        code = self.process.wait(60)
        self.process.stdout.close()
        return code, json.loads(line)


def check_following(directory):
    frames, mask = draw_series("uint32", seed=7)
    rows, columns = mask.shape
    follower = Follower(directory, "grown", f"{directory}/growing_master.h5")
    check(follower.is_running(), "following a series that has no master yet")
    write_legacy(directory, "growing", frames, mask, write=never)
    check(follower.is_running(), "following a series that has no data yet")
    for k, first in enumerate(range(0, len(frames), 15), 1):
        part = frames[first:first + 15]
        if k == 1:  # whole by all that can be seen, but not yet what it will be: no file has followed it
            with h5py.File(f"{directory}/growing_data_{k:06d}.h5", "w") as file:
                file.create_dataset("entry/data/data", data=part[::-1], chunks=(1, rows, columns), **BSLZ4)
            check(follower.is_running(), "the first data file has no successor: waiting")
        with h5py.File(f"{directory}/growing_data_{k:06d}.h5", "w") as file:
            dataset = file.create_dataset("entry/data/data", part.shape, frames.dtype, chunks=(1, rows, columns), **BSLZ4)
            dataset[:7] = part[:7]
            file.flush()
            check(follower.is_running(), f"data file {k} is being written: waiting")
            dataset[7:] = part[7:]
    code, said = follower.result(tell_end=False)
    found, _ = read_cache(f"{directory}/grown_events.bin")
    check(code == 0 and said["n_frames"] == len(frames) and all(
        np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(found, expected_events(frames, mask))),
        "the series is whole when its master's number of frames is there: the same events")
    anew = json.loads(analyze(directory, "anew", "--from-events", f"{directory}/grown_events.bin").stdout)
    check(all(anew[key] == said[key] for key in said if key not in ("elapsed_s", "result")), "and from them the same result")
    master = write_legacy(directory, "stopped", frames, mask)
    os.remove(f"{directory}/stopped_data_000003.h5")
    follower = Follower(directory, "stopped", master)
    check(follower.is_running(), "the last data file is missing: waiting")
    code, said = follower.result(tell_end=True)
    check(code == 1 and "source" not in said["reason"] and "data_000003" in said["reason"]
          and not os.path.exists(f"{directory}/stopped_results.hdf"), f"refused when the end is told: {said['reason']}")


def check_damage(directory):
    """Random bytes of any file of any layout: refused in a sentence or analysed, never a crash."""
    random = np.random.default_rng(9)
    frames, mask = draw_series("uint16", 12, seed=8)
    sparse = np.where((mask != 0) | (frames > CUTOFF), 0, frames)
    stated = ["--frame-time", "0.1", "--shape", "66x124"]
    with h5py.File(f"{directory}/worn_nd.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1,) + mask.shape, **BSLZ4)
    series = {
        "v2024.2": ([write_v2024(directory, "worn", frames, mask, 6), f"{directory}/worn_data_000001.h5"], []),
        "LZ4 alone": ([write_legacy(directory, "worn_lz4", frames, mask, write=write_lz4),
                       f"{directory}/worn_lz4_data_000001.h5"], []),
        "NDFileHDF5": ([f"{directory}/worn_nd.h5"], stated[:2]),
        "Lima2 sparse": ([write_sparse(directory, "worn_sparse", sparse, 12, chunks=(500,))], stated),
    }
    # HDF5 asks for as much memory as a damaged file says
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
    for what, (paths, arguments) in series.items():
        statuses = [analyze(directory, "worn", paths[0], *arguments).returncode]
        for path in paths * (40 // len(paths)):
            whole = open(path, "rb").read()
            broken = bytearray(whole)
            for _ in range(random.integers(1, 30)):
                broken[random.integers(len(whole) if random.integers(2) else 4096)] = random.integers(256)
            with open(path, "wb") as file:
                file.write(broken)
            statuses.append(analyze(directory, "worn", paths[0], *arguments).returncode)
            with open(path, "wb") as file:
                file.write(whole)
        check(statuses[0] == 0 and set(statuses) == {0, 1},
              f"{what}, 40 times damaged: {statuses.count(1)} refused, none crashed")


def main():
    directory = tempfile.mkdtemp(prefix="isobar-events-")
    try:
        check_layouts(directory)
        check_block_sizes(directory)
        check_large(directory)
        check_sparse(directory)
        check_cache(directory)
        check_following(directory)
        check_damage(directory)
        left = [name for name in os.listdir(directory) if ".part-" in name]
        check(not left, f"nothing unfinished is left behind {left}")
    finally:
        shutil.rmtree(directory)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
