"""
Goal: the simulated detector is an IOC and a file writer that strangers understand.
Method: the world and the IOC as processes of their own; pyepics (another Channel Access client) runs scans and looks
at states, put-callbacks, the busy record and the abort; h5py with the bitshuffle plugin (another decoder) reads the
files through the master's links. Every wait is for a state, with a deadline.

Usage: wire_ioc.py BUILD_DIRECTORY
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PREFIX = "ISB:cam1:"
DEADLINE_S = 20
WITH_ME = ["setpriv", "--pdeathsig", "TERM"]  # a test that is killed leaves no simulator behind
failures = 0


def check(is_right, sentence):
    global failures
    failures += not is_right
    print(("ok    " if is_right else "WRONG ") + sentence, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            check(False, f"{what} within {DEADLINE_S} s")
            raise SystemExit(1)
        time.sleep(0.002)


port = free_port()
os.environ.update(EPICS_CA_AUTO_ADDR_LIST="NO", EPICS_CA_ADDR_LIST=f"127.0.0.1:{port}",
                  EPICS_CA_REPEATER_PORT=str(free_port()),
                  HDF5_PLUGIN_PATH="/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins")
import epics  # noqa: E402  (reads the environment)
import h5py  # noqa: E402
import numpy as np  # noqa: E402

channels = {}


def pv(name):
    if name not in channels:
        channels[name] = epics.PV(PREFIX + name if ":" not in name else name, auto_monitor=True)
        wait_for(lambda: channels[name].wait_for_connection(0.1), f"{name} connected")
    return channels[name]


def text(name):
    return pv(name).get(as_string=True, use_monitor=False)


def put(name, value, timeout=DEADLINE_S):
    return pv(name).put(value, wait=True, timeout=timeout) == 1


def acquire():
    """Starts a series; returns the state of its put-callback."""
    done = {"is_done": False}
    pv("Acquire").put(1, wait=False, callback=lambda **_: done.update(is_done=True))
    return done


def configure(raw, n_images, pattern, n_per_file=100):
    settings = [("TriggerMode", "Internal Series"), ("PhotonEnergy", 20950.0), ("ThresholdEnergy", 10475.0),
                ("AcquireTime", 0.0999), ("AcquirePeriod", 0.1), ("NumImages", n_images), ("NumTriggers", 1),
                ("DataSource", "FileWriter"), ("FWEnable", "Enable"), ("FWCompression", "Enable"),
                ("CompressionAlgo", "BS LZ4"), ("FWNamePattern", pattern), ("FWNImagesPerFile", n_per_file),
                ("FilePath", raw), ("SaveFiles", "Enable"), ("BeamX", 128.0), ("BeamY", -2200.0), ("DetDist", 5.0)]
    return all([put(name, value) for name, value in settings])


def check_records(raw):
    kinds = {"AcquireTime": "time_double", "NumImages": "time_long", "TriggerMode": "time_enum",
             "Acquire": "time_enum", "StatusMessage_RBV": "time_char", "HVState_RBV": "time_string",
             "FWNamePattern": "time_char"}
    check(all(pv(name).type == kind for name, kind in kinds.items()), "native types as areaDetector's")
    check(pv("DetectorState_RBV").enum_strs[:2] == ("Idle", "Acquire") and len(pv("DetectorState_RBV").enum_strs) == 11,
          "DetectorState has its eleven choices")
    wait_for(lambda: pv("ISB:RING:Current").get(use_monitor=False) > 100, "ring current")
    check(text("FilePathExists_RBV") == "No", "no file path yet")
    check(configure(raw, 250, "first_$id"), "every setting's put-callback completes")
    check(text("FilePath_RBV") == raw + "/" and text("FilePathExists_RBV") == "Yes", "file path taken")
    check(abs(pv("ThresholdEnergy_RBV").get(use_monitor=False) - 10475) < 1e-6, "threshold after energy")
    put("AcquireTime", 0.25)
    wait_for(lambda: abs(pv("AcquirePeriod").get(use_monitor=False) - 0.25) < 1e-3, "count time lengthens frame time")
    put("AcquirePeriod", 0.1)
    wait_for(lambda: abs(pv("AcquireTime_RBV").get(use_monitor=False) - 0.1) < 1e-3, "frame time shortens count time")
    put("AcquireTime", 0.0999)
    put("AcquirePeriod", 1e9)
    check(pv("AcquirePeriod_RBV").get(use_monitor=False) < 2000, "frame time clamped")
    put("AcquirePeriod", 0.1)
    put("CompressionAlgo", "None")
    check(text("CompressionAlgo_RBV") == "BS LZ4" and pv("CompressionAlgo").severity == 3,
          "compression the detector has not: refused with an alarm")
    put("CompressionAlgo", "BS LZ4")


def check_scan(raw, truth):
    messages = []
    pv("StatusMessage_RBV").add_callback(lambda char_value=None, **_: messages.append(char_value))
    before = pv("SequenceId").get(use_monitor=False)
    start = time.monotonic()
    done = acquire()
    wait_for(lambda: pv("AcquireBusy").get(use_monitor=False) == 1, "busy while acquiring")
    check(not done["is_done"], "put-callback outstanding while busy")
    wait_for(lambda: done["is_done"], "put-callback completes")
    check(text("AcquireBusy") == "Done" and text("Acquire") == "Done", "Acquire and busy Done with it")
    wait_for(lambda: text("StatusMessage_RBV") == "Ready" and text("DetectorState_RBV") == "Idle", "Ready, Idle")
    print(f"      250 frames: put-callback after {time.monotonic() - start:.3f} s", flush=True)
    check(pv("SequenceId").get(use_monitor=False) == before + 1, "SequenceId advanced by one")
    check(pv("NumImagesCounter_RBV").get(use_monitor=False) == 250, "all images counted")
    known = [m for m in messages if m in ("Arming", "Armed", "Triggering", "Processing files", "Ready")]
    check(known and known[-1] == "Ready", "messages end with Ready")
    wait_for(lambda: any(line["kind"] == "scan" for line in truth()), "truth of the scan")
    check_files(raw, f"first_{before + 1}", [line for line in truth() if line["kind"] == "scan"][-1])


def check_files(raw, stem, line):
    check(line["master"] == f"{raw}/{stem}_master.h5" and line["n_frames"] == 250, "truth names the scan")
    with h5py.File(line["master"], "r") as master:
        detector, specific = master["/entry/instrument/detector"], master["/entry/instrument/detector/detectorSpecific"]
        check(master["/entry/definition"][()] == b"NXmx", "definition NXmx")
        check(abs(detector["frame_time"][()] - 0.1) < 1e-9 and abs(detector["count_time"][()] - 0.0999) < 1e-9, "times")
        check(specific["nimages"][()] == 250 and specific["ntrigger"][()] == 1, "nimages, ntrigger")
        check(abs(master["/entry/instrument/beam/incident_wavelength"][()] - 12398.4198 / 20950) < 1e-6, "wavelength")
        check(detector["beam_center_y"][()] == -2200 and detector["detector_distance"][()] == 5, "geometry")
        mask = specific["pixel_mask"][()]
        is_gap = mask & 1
        check(mask.shape == (256, 256) and is_gap[:, 122:134].all() and is_gap[126:130].all(), "gaps in the mask")
        check(10 <= (mask & 2).astype(bool).sum() <= 20, "dead pixels in the mask")
        names = sorted(master["/entry/data"])
        check(names == ["data_000001", "data_000002", "data_000003"], "three links")
        frames, numbers = [], []
        for name in names:
            data = master["/entry/data"][name]
            code, _, parameters, _ = data.id.get_create_plist().get_filter(0)
            check(data.dtype == np.uint32 and data.chunks == (1, 256, 256), f"{name}: {data.shape}, uint32, by frame")
            check(code == 32008 and parameters == (0, 3, 4, 0, 2), f"{name}: bitshuffle, LZ4")
            numbers.append((int(data.attrs["image_nr_low"]), int(data.attrs["image_nr_high"])))
            frames.append(data[()])
    check(numbers == [(1, 100), (101, 200), (201, 250)], "image numbers")
    frames = np.concatenate(frames)
    check((frames[:, mask != 0] == 2**32 - 1).all(), "masked pixels flagged")
    check((frames[:, mask == 0] < 100).all(), "the others hold counts")
    mean = frames[:, mask == 0].mean()
    check(abs(mean / 0.02 - 1) < 0.02, f"mean {mean:.5f} photons per pixel and frame")
    counts = frames[:, mask == 0].sum(axis=0, dtype=np.int64)
    check(counts.std() > 1.1 * np.sqrt(counts.mean()), "speckle beyond Poisson noise within a tau")


def check_abort(raw):
    check(configure(raw, 1000000, "cut_$id"), "a long series configured")
    done = acquire()
    wait_for(lambda: text("StatusMessage_RBV") == "Triggering", "exposing")
    again = pv("NumImages")
    again.put(7, wait=False)
    wait_for(lambda: pv("NumImagesCounter_RBV").get(use_monitor=False) > 0, "images coming in, file by file")
    # A second start while acquiring: another client, for its put-callback must not wait behind the first one's circuit.
    other = subprocess.run([sys.executable, "-c", "import epics, sys, time; p = epics.PV('%sAcquire'); "
                            "p.wait_for_connection(10); t = time.time(); p.put(1, wait=True, timeout=10); "
                            "sys.exit(time.time() - t > 5)" % PREFIX], stderr=subprocess.DEVNULL, timeout=30)
    check(other.returncode == 0 and not done["is_done"], "Acquire=1 while acquiring completes at once, changes nothing")
    pv("Acquire").put(0, wait=False)
    wait_for(lambda: done["is_done"], "abort ends the put-callback")
    wait_for(lambda: text("StatusMessage_RBV") == "Acquisition aborted", "Acquisition aborted")
    check(text("DetectorState_RBV") == "Aborted" and text("Acquire_RBV") == "Done", "state Aborted, Done")
    with h5py.File(f"{raw}/cut_{pv('SequenceId').get(use_monitor=False)}_data_000001.h5", "r") as data:
        check(data["/entry/data/data"].shape[0] == 100, "full files of the cut series readable")
    check(configure(raw, 30, "after_$id"), "configured again")
    done = acquire()
    wait_for(lambda: done["is_done"] and text("DetectorState_RBV") == "Idle", "a short series after the abort")
    check(os.path.getsize(f"{raw}/after_{pv('SequenceId').get(use_monitor=False)}_data_000001.h5") > 1000, "its file")


def check_failures(raw):
    before = pv("SequenceId").get(use_monitor=False)
    put("FilePath", raw + "/nowhere")
    done = acquire()
    wait_for(lambda: done["is_done"], "put-callback completes though the path is wrong")
    wait_for(lambda: text("DetectorState_RBV") == "Error", "state Error")
    check(text("StatusMessage_RBV") == "Invalid file path", "message tells why")
    put("FilePath", raw)
    put("FWEnable", "Disable")
    done = acquire()
    refusal = "FileWriter API is disabled"
    wait_for(lambda: done["is_done"] and text("StatusMessage_RBV") == refusal, refusal)
    check(pv("SequenceId").get(use_monitor=False) == before, "SequenceId has not advanced")


def check_ruby_stand():
    """Beside the beam the optics stand in place and lit from the start; they go and come when told, and can be jammed."""
    check(text("ISB:RUBY:OpticsReadback") == "In" and text("ISB:RUBY:LaserReadback") == "Open", "the ruby's stand is in")
    check(text("ISB:RUBY:Optics") == "In" and text("ISB:RUBY:Laser") == "Open", "and so say its outputs")
    put("ISB:RUBY:Laser", "Closed")
    wait_for(lambda: text("ISB:RUBY:LaserReadback") == "Closed", "laser shutter closed")
    put("ISB:RUBY:Jam", "Jammed")
    put("ISB:RUBY:Optics", "Out")
    start = time.monotonic()
    wait_for(lambda: time.monotonic() - start > 0.3, "0.3 s: minutes of experiment time")
    check(text("ISB:RUBY:OpticsReadback") == "In", "jammed: told to go out, but still in")
    put("ISB:RUBY:Jam", "Free")
    wait_for(lambda: text("ISB:RUBY:OpticsReadback") == "Out", "freed, and out")
    check(text("ISB:RUBY:LaserReadback") == "Closed", "the laser shutter has stayed closed")


def check_spectrograph():
    """Two waveforms of one length, renewed while Busy is up, in light that is the ruby's; and the cell's thermometer."""
    wavelength_nm = pv("ISB:SPEC:Wavelength").get(use_monitor=False)
    check(len(wavelength_nm) == 3648 and np.all(np.diff(wavelength_nm) > 0) and
          wavelength_nm[0] < 690 and wavelength_nm[-1] > 705, "an axis that ascends, around the ruby's lines")
    put("ISB:RUBY:Optics", "In")
    put("ISB:RUBY:Laser", "Open")
    wait_for(lambda: text("ISB:RUBY:OpticsReadback") == "In" and text("ISB:RUBY:LaserReadback") == "Open", "the ruby in")
    busy = []
    pv("ISB:SPEC:Busy").add_callback(lambda value=None, timestamp=None, **_: busy.append((value, timestamp)))
    put("ISB:SPEC:AcquireTime", 0.5)
    spectra = []
    for _ in range(2):
        busy.clear()
        put("ISB:SPEC:Acquire", 1)
        wait_for(lambda: [value for value, _ in busy] == [1, 0], "Busy rises, and falls")
        counts = pv("ISB:SPEC:Counts").get(use_monitor=False, with_ctrlvars=False)
        stamp = pv("ISB:SPEC:Counts").get_timevars()["timestamp"]
        check(busy[0][1] <= stamp <= busy[1][1], "the counts are renewed in between, by the stamps")
        spectra.append(counts)
    window = (wavelength_nm > 690) & (wavelength_nm < 705)
    top_nm = wavelength_nm[window][np.argmax(spectra[1][window])]
    check(len(spectra[1]) == 3648 and 694 < top_nm < 695.5 and 9000 < spectra[1][window].max() < 12500,
          f"R1 at {top_nm:.2f} nm, about 0.1 GPa")
    check(not np.array_equal(spectra[0], spectra[1]), "no two spectra are alike")
    put("ISB:SPEC:AcquireTime", 1000.0)
    wait_for(lambda: pv("ISB:SPEC:AcquireTime").get_timevars()["severity"] == 3, "an exposure it has not: an alarm")
    put("ISB:SPEC:AcquireTime", 0.5)
    kelvin = pv("ISB:CELL:Temperature").get(use_monitor=False)
    check(295 < kelvin < 297 and abs(kelvin * 100 - round(kelvin * 100)) < 1e-6, f"the cell's thermometer: {kelvin} K")
    check(pv("ISB:CELL:Temperature").units == "K", "in kelvin")


def n_wakes(pid):
    n = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            n += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return n


def check_orphan(program, directory, world):
    """An IOC whose world, a fast one, has been killed: its threads do not chase a time that stands still, and it ends."""
    ioc = subprocess.Popen([*WITH_ME, program, "ioc", "--dir", directory, "--port", str(free_port())],
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    served = os.path.join("/proc", str(ioc.pid), "task")
    wait_for(lambda: len(os.listdir(served)) > 5, "it serves")
    world.kill()
    world.wait()
    start = time.monotonic()
    time.sleep(2.5)  # after 2 s a clock is given up
    n_before = n_wakes(ioc.pid)
    time.sleep(1)
    per_s = n_wakes(ioc.pid) - n_before
    check(per_s < 2000, f"its threads wake {per_s} times in a second")
    check(ioc.wait(DEADLINE_S) == 0 and "the simulated world has ended" in ioc.stderr.read(),
          f"ends {time.monotonic() - start:.1f} s after its world")
    return ioc


def main():
    program = os.path.join(sys.argv[1], "bin", "isobar-sim")
    directory = tempfile.mkdtemp(prefix="isobar-wire-")
    raw = directory + "/raw"
    os.mkdir(raw)

    def truth():
        os.chmod(directory + "/truth.jsonl", 0o600)
        with open(directory + "/truth.jsonl") as lines:
            return [json.loads(line) for line in lines if line.endswith("\n")]

    world = subprocess.Popen([*WITH_ME, program, "world", "--dir", directory, "--seed", "11"], stdout=subprocess.PIPE)
    ioc = None
    try:
        world.stdout.readline()
        ioc = subprocess.Popen([*WITH_ME, program, "ioc", "--dir", directory, "--port", str(port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        check_records(raw)
        check_scan(raw, truth)
        check_abort(raw)
        check_ruby_stand()
        check_spectrograph()
        check_failures(raw)
        ioc.terminate()
        check(ioc.wait(10) == 0, "ends with status 0 on SIGTERM")
        ioc = check_orphan(program, directory, world)
    finally:
        for process in (ioc, world):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(directory)
    return failures != 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # pyepics prints about circuits that are gone when it ends in order
