#!/usr/bin/python3
"""Goal: a pair of EPICS waveforms is taken for a spectrum when it is one, and for nothing else.

Method: an IOC of EPICS base's own soft records, nothing of ours in it; pyepics plays the spectrometer behind it, which
does one thing wrong at a time; our driver (test_spectrometer drive) is the client. Every wait is for an answer or a state.

Usage: wire_waveforms.py BUILD_DIRECTORY
"""
import ctypes
import glob
import os
import signal
import socket
import subprocess
import sys
import threading
import time

PIXELS = 400
FIRST_NM, STEP_NM = 680.0, 0.1
FIRST, LAST = 100, 250  # the pixels of 690 to 705 nm
RECORDS = """
record(waveform, "ISB:SPEC:Wavelength") { field(FTVL, "DOUBLE") field(NELM, "%d") }
record(waveform, "ISB:SPEC:Counts") { field(FTVL, "DOUBLE") field(NELM, "%d") field(SIMS, "INVALID") }
record(ao, "ISB:SPEC:AcquireTime") { field(PREC, "3") field(DRVL, "0.001") field(DRVH, "10") }
record(bo, "ISB:SPEC:Acquire") { field(ZNAM, "Done") field(ONAM, "Acquire") }
record(bo, "ISB:SPEC:Busy") { field(ZNAM, "Done") field(ONAM, "Acquiring") field(OSV, "MINOR") }
""" % (PIXELS, PIXELS)


def soft_ioc():
    """This process becomes the IOC, until standard input ends."""
    root = os.path.realpath("build/epics")
    libraries = glob.glob(root + "/lib/linux-x86_64") or [root + "/lib"]

    def load(name):
        return ctypes.CDLL(sorted(glob.glob("%s/lib%s.so*" % (libraries[0], name)))[0], mode=ctypes.RTLD_GLOBAL)

    load("Com")
    core = load("dbCore")
    load("dbRecStd")
    core.dbLoadDatabase((root + "/dbd/base.dbd").encode(), (root + "/dbd").encode(), None)
    core.registerAllRecordDeviceDrivers.argtypes = [ctypes.c_void_p]
    core.registerAllRecordDeviceDrivers(ctypes.c_void_p.in_dll(core, "pdbbase"))
    path = os.environ["RECORDS"]
    core.dbLoadRecords(path.encode(), b"")
    core.iocInit()
    print("serving", flush=True)
    sys.stdin.read()
    os._exit(0)


if len(sys.argv) > 2 and sys.argv[2] == "ioc":
    soft_ioc()

PROGRAM = sys.argv[1] + "/tests/test_spectrometer"
failures = 0


def check(what, is_good, seen=""):
    global failures
    failures += not is_good
    print("ok  " if is_good else "FAIL", what, "" if is_good else repr(seen), flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


port = free_port()
os.environ.update(EPICS_CA_AUTO_ADDR_LIST="NO", EPICS_CA_ADDR_LIST=f"127.0.0.1:{port}",
                  EPICS_CA_REPEATER_PORT=str(free_port()))
import epics  # noqa: E402  (reads the environment)
import numpy as np  # noqa: E402
import instrument  # noqa: E402


class Ioc:
    def __init__(self, path):
        self.environment = {**os.environ, "RECORDS": path, "EPICS_CAS_SERVER_PORT": str(port),
                            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
                            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO"}

    def start(self):
        self.process = subprocess.Popen([sys.executable, __file__, sys.argv[1], "ioc"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment)
        while (line := self.process.stdout.readline()) != b"serving\n":
            if not line:
                raise SystemExit("the soft IOC does not start")

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Spectrometer:
    """Behind the IOC: does what Acquire says, in the manner of the moment."""

    def __init__(self):
        self.pvs = {}
        for name in ("Wavelength", "Counts", "AcquireTime", "Acquire", "Busy"):
            self.pvs[name] = epics.PV("ISB:SPEC:" + name, auto_monitor=True)
            if not self.pvs[name].wait_for_connection(10):
                raise SystemExit(name + " is not connected")
        self.manner = None
        self.random = np.random.default_rng(3)
        self.sent = np.zeros(PIXELS)
        self.axis = FIRST_NM + STEP_NM * np.arange(PIXELS)
        self.told = threading.Semaphore(0)
        self.n = 0
        self.put("AcquireTime", 0.1)
        self.put("Wavelength", self.axis)
        self.pvs["Acquire"].add_callback(lambda value=None, **_: self.told.release() if value else None)
        threading.Thread(target=self.run, daemon=True).start()

    def put(self, name, value):
        self.pvs[name].put(value, wait=True, timeout=10)

    def run(self):
        epics.ca.use_initial_context()
        while True:
            self.told.acquire()
            self.put("Acquire", 0)  # at once: a record that still holds 1 tells nobody of another 1
            self.take()

    def counts(self):
        return np.round(1000 + 500 * self.random.random(PIXELS))

    def take(self):
        manner, axis, counts = self.manner, self.axis, self.counts()
        self.n += 1
        if manner == "deaf":
            return
        if manner == "counts of before are late":
            self.put("Counts", self.counts())
        self.put("Busy", 1)
        if manner == "not a number":
            counts[333] = np.nan
        if manner == "infinite":
            counts[3] = np.inf
        if manner == "too many counts":
            counts[150] = 65536
        if manner == "too few":
            counts = counts[:-1]
        if manner == "none":
            counts = counts[:1]
        if manner == "descending":
            axis = axis[::-1]
        if manner == "two alike":
            axis = np.where(np.arange(PIXELS) == 200, axis[199], axis)
        if manner == "no wavelength":
            axis = np.where(np.arange(PIXELS) == 5, np.nan, axis)
        if manner == "elsewhere":
            axis = axis - 300
        if manner == "moving":
            axis = axis + 0.01
        if axis is not self.axis:
            self.put("Wavelength", axis)
        if manner == "again":
            counts = self.sent
        if manner == "late":
            self.put("Busy", 0)
            time.sleep(0.3)  # the lateness itself
        if manner == "invalid":
            epics.caput("ISB:SPEC:Counts.SIMM", 1, wait=True)  # simulated, as EPICS calls it: with the severity of SIMS
        if manner not in ("stale", "counts of before are late"):
            self.sent = counts
            self.put("Counts", counts)
        if manner == "invalid":
            epics.caput("ISB:SPEC:Counts.SIMM", 0, wait=True)
        if manner == "endless":
            return
        self.put("Busy", 0)
        if manner == "somebody else":
            for value in (1, 0):
                self.put("Busy", value)

    def mend(self):
        self.manner = None
        self.put("Busy", 0)
        self.put("Wavelength", self.axis)


def is_right(spectrometer, seen):
    counts = spectrometer.sent[FIRST:LAST + 1]
    return seen == "%d %.4f %.4f %d %d %d 0.050 OK" % (len(counts), 690, 705, counts[0], counts[-1], counts.sum())


REFUSED = (  # manner, code, words
    ("deaf", "ERR_TIMEOUT", "ISB:SPEC:Acquire was told 1, and 2.05 s later ISB:SPEC:Busy has not risen"),
    ("endless", "ERR_TIMEOUT", "ISB:SPEC:Busy has not fallen"),
    ("stale", "ERR_TIMEOUT", "ISB:SPEC:Counts has not been renewed"),
    ("counts of before are late", "ERR_TIMEOUT", "ISB:SPEC:Counts has not been renewed"),
    ("not a number", "ERR_DATA", "ISB:SPEC:Counts: value 333 is nan, expected a count"),
    ("infinite", "ERR_DATA", "ISB:SPEC:Counts: value 3 is inf, expected a count"),
    ("too many counts", "ERR_DATA", "pixel at 695 nm has 65536 counts, expected at most 65535"),
    ("too few", "ERR_DATA", "ISB:SPEC:Counts has 399 values and ISB:SPEC:Wavelength 400, expected as many"),
    ("none", "ERR_DATA", "ISB:SPEC:Counts has 1 values and"),
    ("descending", "ERR_", "ISB:SPEC:Wavelength"),
    ("moving", "ERR_STATE", "ISB:SPEC:Wavelength changed while a spectrum was taken"),
    ("again", "ERR_DATA", "all 151 pixels have the counts of the spectrum before"),
    ("invalid", "ERR_STATE", "ISB:SPEC:Counts has the severity INVALID"),
)


def exercise(driver, spectrometer):
    check("a spectrum, count by count", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    check("the exposure is told", abs(spectrometer.pvs["AcquireTime"].get(use_monitor=False) - 0.05) < 1e-9)
    check("another one", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    for manner, code, words in REFUSED:
        spectrometer.manner = manner
        seen = driver.ask("acquire 0.05")
        check("refused: " + manner, seen.startswith(code) and words in seen, seen)
        spectrometer.mend()
        check("and then it is there again", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    for manner, words in (("descending", "value 1 is 719.8 nm after 719.9 nm, expected ascending"),
                          ("two alike", "value 200 is 699.9 nm after 699.9 nm, expected ascending"),
                          ("no wavelength", "value 5 is nan nm after 680.4 nm, expected ascending"),
                          ("elsewhere", "0 pixels lie within 690 to 705 nm, expected at least 16")):
        spectrometer.manner = manner
        driver.ask("acquire 0.05")  # the axis has changed; from the next one on it stays so
        seen = driver.ask("acquire 0.05")
        check("an axis that cannot be is refused: " + manner, seen.startswith("ERR_DATA") and words in seen, seen)
        spectrometer.mend()
    check("mended", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    spectrometer.manner = "late"
    check("counts that come behind the end of Busy are waited for",
          is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    spectrometer.manner = "somebody else"
    for _ in range(5):
        seen = driver.ask("acquire 0.05")
        check("another acquisition behind ours: ours, or refused", seen.startswith("ERR_") or is_right(spectrometer, seen),
              seen)
    spectrometer.mend()
    driver.ask("acquire 0.05")  # what was begun by others comes to its end
    check("an exposure that the instrument clamps is refused", "was told 20 s and reads 10 s" in
          (seen := driver.ask("acquire 20")), seen)
    check("and then it is there again", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)
    spectrometer.put("Busy", 1)
    n = spectrometer.n
    check("an instrument that is busy is not told to acquire", "busy with what was not asked for" in
          (seen := driver.ask("acquire 0.05")) and spectrometer.n == n, seen)
    spectrometer.put("Busy", 0)
    check("and then it is there again", is_right(spectrometer, seen := driver.ask("acquire 0.05")), seen)


def main():
    path = "/tmp/isobar_waveforms_%d.db" % os.getpid()
    with open(path, "w") as stream:
        stream.write(RECORDS)
    ioc = Ioc(path)
    ioc.start()
    try:
        spectrometer = Spectrometer()
        driver = instrument.Driver("epics-waveforms", "127.0.0.1:%d" % port, PROGRAM)
        check("accepted, although no record has been processed yet", driver.first == "OK", driver.first)
        exercise(driver, spectrometer)
        ioc.end()
        check("the IOC is gone", (seen := driver.ask("acquire 0.05")).startswith("ERR_LINK"), seen)
        ioc.start()
        for pv in spectrometer.pvs.values():
            pv.wait_for_connection(60)
        spectrometer.put("AcquireTime", 0.1)
        spectrometer.mend()
        end = time.monotonic() + 60
        while not is_right(spectrometer, seen := driver.ask("acquire 0.05")) and time.monotonic() < end:
            pass
        check("the IOC is back: spectra without help", is_right(spectrometer, seen), seen)
        check("the driver ends by itself", driver.end() == 0)
    finally:
        ioc.end()
        os.unlink(path)
    return 1 if failures else 0


code = main()
sys.stdout.flush()
os._exit(code)  # pyepics prints about circuits that are gone when it ends in order
