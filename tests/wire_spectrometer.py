#!/usr/bin/python3
"""Goal: our Ocean Optics set agrees with the manual on both ends of the wire, by TCP and on a serial line.

Method: a spectrometer written here from the manual's table alone (no code is shared with the driver or the simulated
device) serves our driver (test_spectrometer drive), over a socket and over a pseudo-terminal through libserialport. It
knows both tables of baud codes, hears noise at another rate than its own, and misbehaves in one way at a time. Then a
client written here asks our simulated spectrometer (test_spectrometer serve), bytes against bytes.
"""
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

import instrument

PROGRAM = sys.argv[1] + "/tests/test_spectrometer"
ACK, NAK, STX, ETX = b"\x06", b"\x15", b"\x02", b"\x03"
SAD500 = {0: 2400, 1: 4800, 2: 9600, 3: 19200, 4: 38400, 5: 57600, 6: 115200}
USB2000 = {0: 115200, 1: 38400, 2: 19200, 3: 9600, 4: 4800, 5: 2400, 6: 1200, 7: 600}
WORDS = {"A": 1, "B": 1, "G": 1, "I": 1, "J": 1, "K": 1, "T": 1, "k": 1}
PIXELS = 2048
C = (660.0, 0.05, 0.0, 0.0)  # nm, nm per pixel
FIRST, LAST = 600, 900       # the pixels of 690 to 705 nm
failures = 0


def check(what, is_good, seen=""):
    global failures
    failures += not is_good
    print("ok  " if is_good else "FAIL", what, "" if is_good else repr(seen), flush=True)


class Spectrometer:
    def __init__(self, codes):
        self.codes = codes
        self.random = random.Random(4)
        self.baud = 9600
        self.awaited = None        # (rate of before, code, when) of a change that is not confirmed yet
        self.line_rate = lambda: None
        self.is_ascii = False
        self.exposure_ms, self.checksum, self.pixels = 100, 0, (0,)
        self.is_double = False
        self.counts = [100 + (7 * p) % 1900 for p in range(PIXELS)]
        self.manner = None
        self.commands = []         # as they were understood
        self.gaps_s = []           # from a command's first byte to its last, per byte
        self.before = b""          # the scan sent last
        self.held = b""
        self.began = 0.0

    def constant(self, index):
        if index == 0:
            return ACK + b"SAD50123".ljust(15, b"\0")
        if 1 <= index <= 4:
            text = b"%.6e" % C[index - 1]
            return ACK + (text + b"\r" if self.manner == "short text" else text.ljust(15, b"\0"))
        return NAK

    def scan(self):
        if self.manner == "etx":
            return ETX
        counts = [c + self.random.randrange(50) for c in self.counts]
        mode = self.pixels
        if mode[0] == 3:
            counts = counts[mode[1]:mode[2] + 1]
        self.sent = counts
        words = [0xffff, int(self.is_double), 1, self.exposure_ms, 0, 0, *mode]
        data = [w for c in counts for w in ((c >> 16, c & 0xffff) if self.is_double else (c,))]
        words += data
        if self.checksum:
            words.append(sum(data) & 0xffff)
        words.append(0xfffd)
        scan = STX + struct.pack(">%dH" % len(words), *words)
        if self.manner == "flipped":
            i = len(scan) // 2
            scan = scan[:i] + bytes([scan[i] ^ 1]) + scan[i + 1:]
        if self.manner == "torn":
            scan = scan[:len(scan) // 2]
        if self.manner == "stale":
            scan = self.before
        else:
            self.before = scan
        return scan

    def change_rate(self, code):
        if self.manner == "K refused" or code not in self.codes:
            return NAK
        if self.awaited and self.awaited[1] == code:
            self.awaited = None
            return ACK
        if self.manner == "K forgotten":
            return ACK
        self.awaited = (self.baud, code, time.monotonic())
        self.baud = self.codes[code]
        return ACK

    def obey(self, command):
        """The answer to one whole command, of which `held` has the bytes."""
        name, words = command
        self.commands.append(command)
        if name in ("I", "k", "K", "P", "?x") and not words:
            return NAK             # no number, in ASCII mode
        if self.awaited and name != "K":
            self.baud, self.awaited = self.awaited[0], None
            return b""
        if name == "?x":
            return self.constant(words[0])
        if name == "?K":
            code = [code for code, rate in self.codes.items() if rate == self.baud][0]
            return NAK if self.manner == "?K unknown" else ACK + struct.pack(">H", code)
        if name == "S":
            return self.scan()
        if name == "v":
            return ACK + (b"1000\r\n" if self.is_ascii else struct.pack(">H", 1000))
        if name == "K":
            return self.change_rate(words[0])
        if name == "I":
            self.exposure_ms = words[0]
        elif name == "k":
            self.checksum = words[0]
        elif name == "P":
            self.pixels = tuple(words)
        elif name in ("aA", "bB"):
            self.is_ascii = name == "aA" or (self.manner == "stays in ASCII" and self.is_ascii)
        elif name not in ("A", "B", "G", "T") or words not in ([0], [1]):
            return NAK
        return ACK

    def parse(self):
        """A whole command from the bytes held, or None."""
        held, size = self.held, 1
        letter = chr(held[0])
        if letter in "?ab":
            size = 2
        if len(held) < size:
            return None
        name = held[:size].decode("latin-1")
        if self.is_ascii and name not in ("aA", "bB", "v", "S"):
            if held[-1:] not in (b"\r", b"\n"):
                return None
            text = held[size:-1]
            self.held = b""
            return (name, [int(text)] if text.isdigit() else [])
        n = 4 if name == "P" and held[1:3] == b"\0\3" else 1 if name in ("P", "?x") else WORDS.get(name, 0)
        if len(held) < size + 2 * n or (name == "P" and len(held) < 3):
            return None
        self.held = b""
        return (name, list(struct.unpack(">%dH" % n, held[size:size + 2 * n])))

    def hear(self, byte):
        """One byte from the line; what is sent back."""
        rate = self.line_rate()
        if self.awaited and rate:
            if time.monotonic() - self.awaited[2] > 1:
                self.baud, self.awaited = self.awaited[0], None
            elif time.monotonic() - self.awaited[2] < 0.05 or self.manner == "K unconfirmed":
                return b""         # deaf while it changes; or for good
        is_clear = not rate or rate == self.baud
        if not is_clear:
            return bytes([self.random.randrange(256)])  # heard as noise, and answered by noise
        if not self.held:
            self.began = time.monotonic()
        if self.is_ascii and self.held == b"" and byte in b"\r\n":
            return byte
        self.held += byte
        n_held = len(self.held)
        echo = byte if self.is_ascii else b""
        command = self.parse()
        if command is None:
            return echo
        if n_held > 1:
            self.gaps_s.append((time.monotonic() - self.began) / (n_held - 1))
        answer = self.obey(command)
        if self.manner == "silent":
            return b""
        return echo + answer


def serve(spectrometer, read, write):
    while (byte := read()):
        answer = spectrometer.hear(byte)
        if answer and spectrometer.manner == "byte by byte":
            for i in range(len(answer)):
                write(answer[i:i + 1])
        elif answer:
            write(answer)


def serve_tcp(spectrometer):
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                serve(spectrometer, lambda: connection.recv(1), connection.sendall)
            except OSError:
                pass
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    return "tcp:127.0.0.1:%d" % listener.getsockname()[1]


class SpectrometerLine(instrument.Line):
    RATES = {getattr(termios, "B%d" % rate): rate for rate in sorted(set(SAD500.values()) | set(USB2000.values()))}

    def __init__(self, spectrometer, folder, baud):
        super().__init__(folder, "ttySPEC", baud)
        self.spectrometer = spectrometer

    def serve(self):
        def read():
            ready = select.select([self.master, self.stop], [], [])[0]
            return os.read(self.master, 1) if self.stop not in ready else b""

        self.spectrometer.held = b""
        self.spectrometer.line_rate = lambda: self.RATES.get(termios.tcgetattr(self.slave)[5], -1)
        serve(self.spectrometer, read, lambda b: os.write(self.master, b))


def acquire(driver, exposure="0.005"):
    return driver.ask("acquire " + exposure)


def is_right(spectrometer, seen):
    """The driver's line: pixels, first and last wavelength, first and last counts, sum, exposure."""
    counts = spectrometer.sent
    expected = "%d %.4f %.4f %d %d %d %.3f OK" % (
        len(counts), C[0] + C[1] * FIRST, C[0] + C[1] * LAST, counts[0], counts[-1], sum(counts),
        spectrometer.exposure_ms * 1e-3)
    return seen == expected and 5 <= spectrometer.exposure_ms <= 7


def exercise(name, spectrometer, address):
    driver = instrument.Driver("ocean-optics", address, PROGRAM)
    check(name + ": accepted", driver.first == "OK", driver.first)
    check(name + ": a scan, count by count", is_right(spectrometer, seen := acquire(driver)), seen)
    check(name + ": only the window, by pixel mode 3, with a checksum, one scan, no smoothing, no compression",
          spectrometer.pixels == (3, FIRST, LAST, 1) and spectrometer.checksum == 1 and
          all(c in spectrometer.commands for c in (("A", [1]), ("B", [0]), ("G", [0]), ("T", [0]))), spectrometer.commands)
    exposures = []
    for _ in range(6):
        acquire(driver)
        exposures.append(spectrometer.exposure_ms)
    check(name + ": no two scans in a row have one exposure", all(a != b for a, b in zip(exposures, exposures[1:])),
          exposures)
    spectrometer.is_double = True
    check(name + ": double words", is_right(spectrometer, seen := acquire(driver)), seen)
    spectrometer.is_double = False
    spectrometer.manner = "byte by byte"
    check(name + ": byte by byte", is_right(spectrometer, seen := acquire(driver)), seen)
    for manner, code in (("flipped", "ERR_DATA"), ("torn", "ERR_TIMEOUT"), ("stale", "ERR_PROTOCOL"),
                         ("silent", "ERR_TIMEOUT"), ("etx", "ERR_REFUSED")):
        spectrometer.manner = manner
        check(name + ": %s is an error" % manner, (seen := acquire(driver)).startswith(code), seen)
        spectrometer.manner = None
        check(name + ": and then it is there again", is_right(spectrometer, seen := acquire(driver)), seen)
    for partial in (b"P\0\3\0", b"?", b"I\1", b"x"):
        spectrometer.held = partial if partial != b"x" else b""
        spectrometer.is_ascii = partial == b"x"  # somebody's terminal program
        acquire(driver)
        check(name + ": left in the middle of %r, or in ASCII mode, it is found again" % partial,
              is_right(spectrometer, seen := acquire(driver)), (seen, spectrometer.is_ascii, spectrometer.held))
    spectrometer.is_ascii, spectrometer.held = True, b"I50"
    acquire(driver)
    check(name + ": in ASCII mode and in the middle of a number, too", is_right(spectrometer, seen := acquire(driver)), seen)
    for partial in (b"I\1", b"P\0", b"P\0\3\1\4", b"P\0\3\1\4\1\5\0"):
        driver.end()
        spectrometer.held = partial  # the line has lost a byte, or more, and the driver begins
        driver = instrument.Driver("ocean-optics", address, PROGRAM)
        check(name + ": in the middle of %r it is found" % partial, driver.first == "OK", driver.first)
    driver.end()
    spectrometer.manner, spectrometer.is_ascii = "stays in ASCII", True
    driver = instrument.Driver("ocean-optics", address, PROGRAM)
    check(name + ": ASCII mode that cannot be left is named", "answers in ASCII mode, and does not leave it" in driver.first,
          driver.first)
    driver.end()
    spectrometer.is_ascii, spectrometer.manner = False, "short text"
    driver = instrument.Driver("ocean-optics", address, PROGRAM)
    check(name + ": constants shorter than 15 letters", is_right(spectrometer, seen := acquire(driver)), seen)
    spectrometer.manner = None
    check(name + ": the driver ends by itself", driver.end() == 0)
    # A burst would take microseconds. The best of many: this process may be late in reading a first byte.
    check(name + ": the bytes of a command come a millisecond apart, for a buffer of one byte",
          sorted(spectrometer.gaps_s)[len(spectrometer.gaps_s) // 2] > 0.0008, spectrometer.gaps_s[-20:])


def rates(folder):
    for table, codes, baud in (("SAD500", SAD500, 115200), ("USB2000", USB2000, 115200), ("SAD500", SAD500, 57600),
                               ("USB2000", USB2000, 38400)):
        spectrometer = Spectrometer(codes)
        line = SpectrometerLine(spectrometer, folder, baud)
        line.plug()
        driver = instrument.Driver("ocean-optics", line.address, PROGRAM)
        name = "%s, to %d baud" % (table, baud)
        check(name + ": it follows", driver.first == "OK" and spectrometer.baud == baud and not spectrometer.awaited,
              (driver.first, spectrometer.baud, spectrometer.awaited))
        told = [words for name_, words in spectrometer.commands if name_ == "K"]
        code = [code for code, rate in codes.items() if rate == baud]
        check(name + ": told twice, by the right code", told == [code, code], told)
        check(name + ": nothing is said of it", driver.ask("note") == "OK")
        check(name + ": a scan at the new rate", is_right(spectrometer, seen := acquire(driver)), seen)
        driver.end()
        spectrometer.commands.clear()
        driver = instrument.Driver("ocean-optics", line.address, PROGRAM)
        check(name + ": found there again, and left there", is_right(spectrometer, seen := acquire(driver)) and
              not [c for c in spectrometer.commands if c[0] == "K"], (seen, spectrometer.commands))
        spectrometer.baud = 9600  # power was cut
        acquire(driver)
        check(name + ": after a power cut it is told again", is_right(spectrometer, seen := acquire(driver)) and
              spectrometer.baud == baud, (seen, spectrometer.baud))
        driver.end()
        line.unplug()
    for manner, words in (("K refused", "answered by 0x15"), ("K forgotten", "command K answered by"),
                          ("K unconfirmed", "is silent"), ("?K unknown", "it does not tell its baud code")):
        spectrometer = Spectrometer(USB2000)
        spectrometer.manner = manner
        line = SpectrometerLine(spectrometer, folder, 115200)
        line.plug()
        process = instrument.Driver("ocean-optics", line.address, PROGRAM)
        note = process.ask("note") if process.first == "OK" else ""
        check("%s: used at 9600 baud, and that is said" % manner, spectrometer.baud == 9600 and words in note and
              "stays at 9600 baud and does not follow to 115200" in note, (process.first, note))
        check("%s: a scan at the old rate" % manner, process.first == "OK" and
              is_right(spectrometer, seen := acquire(process)), process.first)
        process.end()
        line.unplug()


def unplug_and_replug(folder):
    spectrometer = Spectrometer(USB2000)
    line = SpectrometerLine(spectrometer, folder, 115200)
    line.plug()
    driver = instrument.Driver("ocean-optics", line.address, PROGRAM)
    check("a serial line: open", is_right(spectrometer, seen := acquire(driver)), seen)
    other = instrument.Driver("ocean-optics", line.address, PROGRAM)
    check("a second program on the line is refused", "in use by another program" in other.first, other.first)
    other.end()
    line.unplug()
    start = time.monotonic()
    check("unplugged: the link is lost", (seen := acquire(driver)).startswith("ERR_LINK"), seen)
    check("and at once", time.monotonic() - start < 0.5)
    check("unplugged: still lost", (seen := acquire(driver)).startswith("ERR_LINK"), seen)
    line.plug()
    check("plugged in again: a scan without help", is_right(spectrometer, seen := acquire(driver)), seen)
    line.unplug()
    spectrometer.baud = 9600
    line.plug()
    check("plugged in again after a power cut: a scan without help, at the rate that was wanted",
          (acquire(driver), is_right(spectrometer, seen := acquire(driver)))[1] and spectrometer.baud == 115200,
          (seen, spectrometer.baud))
    driver.end()
    line.unplug()


class Client:
    """Ours, on the manual's side of our server."""

    def __init__(self, connection):
        self.connection = connection

    def ask(self, bytes_, n, wait_s=5):
        self.connection.settimeout(wait_s)
        self.connection.sendall(bytes_)
        answer = b""
        try:
            while len(answer) < n and (more := self.connection.recv(n - len(answer))):
                answer += more
        except TimeoutError:
            pass
        return answer


def our_server(model, code_9600, code_115200):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([PROGRAM, "serve", model, "tcp:127.0.0.1:%d" % port])
    try:
        end = time.monotonic() + 10
        while True:
            try:
                client = Client(socket.create_connection(("127.0.0.1", port), 2))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        word = lambda w: struct.pack(">H", w)  # noqa: E731
        check(model + ": version", (seen := client.ask(b"v", 3)) == ACK + word(1000), seen)
        check(model + ": its code of 9600 baud", (seen := client.ask(b"?K", 3)) == ACK + word(code_9600), seen)
        check(model + ": coefficient C0", float(client.ask(b"?x" + word(1), 16)[1:].strip(b"\0 ")) == 646)
        for command in (b"A" + word(1), b"B" + word(0), b"G" + word(0), b"T" + word(0), b"k" + word(1), b"I" + word(23),
                        b"P" + word(3) + word(1500) + word(1509) + word(1)):
            check(model + ": %r is ACKed" % command, (seen := client.ask(command, 1)) == ACK, seen)
        for command in (b"A" + word(2), b"G" + word(1), b"I" + word(0), b"P" + word(9), b"Z", b"?z", b"K" + word(9)):
            check(model + ": %r is NAKed" % command, (seen := client.ask(command, 1)) == NAK, seen)
        start = time.monotonic()
        scan = client.ask(b"S", 1 + 2 * (10 + 10 + 2))
        words = struct.unpack(">22H", scan[1:])
        check(model + ": a scan, word by word", scan[:1] == STX and words[:10] == (
            0xffff, 0, 1, 23, words[4], words[5], 3, 1500, 1509, 1) and words[20] == sum(words[10:20]) & 0xffff and
            words[21] == 0xfffd, words)
        check(model + ": after its exposure", 0.023 <= time.monotonic() - start)
        check(model + ": the exposure is told", (seen := client.ask(b"?I", 3)) == ACK + word(23), seen)
        check(model + ": ASCII mode", (seen := client.ask(b"aA", 1)) == ACK, seen)
        check(model + ": there it sends back what it gets, and is legible", (seen := client.ask(b"v", 8)) == b"v\x061000\r\n",
              seen)
        check(model + ": a value is ended by a line end", (seen := client.ask(b"I50\r", 5)) == b"I50\r" + ACK, seen)
        check(model + ": ASCII mode is left", (seen := client.ask(b"bB", 3)) == b"bB" + ACK, seen)
        check(model + ": the exposure of ASCII mode holds", (seen := client.ask(b"?I", 3)) == ACK + word(50), seen)
        check(model + ": K is ACKed", (seen := client.ask(b"K" + word(code_115200), 1)) == ACK, seen)
    finally:
        server.terminate()
    check(model + ": SIGTERM ends the server", server.wait(10) == 0)


def main():
    spectrometer = Spectrometer(USB2000)
    exercise("TCP", spectrometer, serve_tcp(spectrometer))
    check("TCP: the rate is left to the serial server", not [c for c in spectrometer.commands if "K" in c[0]])
    with tempfile.TemporaryDirectory(prefix="isobar_", dir="/tmp") as folder:
        spectrometer = Spectrometer(SAD500)
        line = SpectrometerLine(spectrometer, folder, 115200)
        line.plug()
        exercise("serial", spectrometer, line.address)
        line.unplug()
        rates(folder)
        unplug_and_replug(folder)
    our_server("SAD500", 2, 6)
    our_server("USB2000", 3, 0)
    return 1 if failures else 0


sys.exit(main())
