#!/usr/bin/python3
"""Goal: our SCPI agrees with the manual on both ends of the wire, by TCP and on a serial line.

Method: a PACE written here from the manual's table alone (no code is shared with the driver or the simulated device)
serves our driver (test_membrane drive), over a socket and over a pseudo-terminal through libserialport, cuts its answers
at every place, and misbehaves; then a client written here asks our simulated PACE (test_membrane serve).
"""
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

import instrument

PEER = instrument.PEER
failures = 0


def check(what, is_good, seen=""):
    global failures
    failures += not is_good
    print("ok  " if is_good else "FAIL", what, "" if is_good else repr(seen), flush=True)


class Pace:
    """The manual's table: every query answered with its header; commands silent; errors queued."""

    def __init__(self):
        self.values = {":SENS:PRES": "47.6250", ":SOUR:PRES": "48.500000", ":SOUR:PRES:SLEW": "0.1",
                       ":SOUR:PRES:SLEW:MODE": "LIN", ":SOUR:PRES:SLEW:OVER": "0", ":OUTP:STAT": "1",
                       ":SOUR:PRES:COMP": "180.2", ":INST:SENS:FULL": "210.0, 0.0", ":UNIT:PRES": "BAR",
                       "*IDN": "GE Druck,Pace5000 User Interface,3213201,02.00.07"}
        self.errors = []
        self.written = []      # every command that came
        self.answer_end = "\r\n"
        self.cut = None        # an answer is sent in two pieces, cut here
        self.manner = None

    def obey(self, line):
        """The answer as bytes, None for silence."""
        if line.endswith("?"):
            header = line[:-1]
            if header == ":SYST:ERR":
                number, text = self.errors.pop(0) if self.errors else (0, "No error")
                return (':SYST:ERR %d,"%s"' % (number, text) + self.answer_end).encode()
            if header not in self.values:
                self.errors.append((-113, "Undefined header"))
                return None
            return (header + " " + self.values[header] + self.answer_end).encode()
        self.written.append(line)
        header, _, argument = line.partition(" ")
        if header not in self.values:
            self.errors.append((-113, "Undefined header"))
        elif header == ":SOUR:PRES" and not 0 <= float(argument) <= 210:
            self.errors.append((222, "Data out of range"))
        elif self.manner != "deaf":
            self.values[header] = argument
        return None

    def serve(self, read, write):
        """One connection, until `read` gives nothing."""
        held = b""
        late = None
        while (more := read()):
            held += more
            while (ends := [i for i in (held.find(b"\r"), held.find(b"\n")) if i >= 0]):
                line, held = held[:min(ends)].decode(), held[min(ends) + 1:]
                answer = self.obey(line.strip()) if line.strip() else None
                if answer is None or self.manner == "silent":
                    continue
                if self.manner == "garbage":
                    answer = bytes(range(128, 150)) + b"\r"
                if self.manner == "shifted":  # the answer to the question before
                    late, answer = answer, late
                    if answer is None:
                        continue
                if self.cut is None:
                    write(answer)
                else:
                    write(answer[:self.cut])
                    time.sleep(0.002)  # long enough to arrive in two pieces; nothing waits for it
                    write(answer[self.cut:])


def serve_tcp(pace):
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                pace.serve(lambda: connection.recv(100), connection.sendall)
            except OSError:
                pass
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    return "tcp:127.0.0.1:%d" % listener.getsockname()[1]


class PaceLine(instrument.Line):
    def __init__(self, pace, folder):
        super().__init__(folder, "ttyPACE", 9600)
        self.pace = pace

    def serve(self):
        def read():
            ready = select.select([self.master, self.stop], [], [])[0]
            return os.read(self.master, 100) if self.stop not in ready else b""

        self.pace.serve(read, lambda b: os.write(self.master, b))


GOOD = "47.625 48.5 210 6 1 0 180.2 1 OK"


def exercise(name, pace, address):
    pace.errors = [(-102, "Syntax error"), (201, "Invalid while in local")]  # somebody else's, of before
    driver = instrument.Driver("pace", address)
    check(name + ": accepted, with old errors in its queue", driver.first == "OK", driver.first)
    check(name + ": every value read", (seen := driver.ask("read")) == GOOD, seen)
    for end in ("\r", "\n", "\r\n"):
        pace.answer_end = end
        check(name + ": answers ending with %r" % end, (seen := driver.ask("read")) == GOOD, seen)
    wrong = []
    for cut in range(1, 20):
        pace.cut = cut
        wrong += [seen] if (seen := driver.ask("read")) != GOOD else []
    pace.cut = None
    check(name + ": answers cut at every place", not wrong, wrong)
    before = len(pace.written)
    check(name + ": a set point is written", (seen := driver.ask("setpoint 12.345")) == "OK", seen)
    check(name + ": once, as the manual has it", pace.written[before:] == [":SOUR:PRES 12.345000"], pace.written)
    before = len(pace.written)
    pace.values[":SOUR:PRES"] = "20.000000"
    check(name + ": a set point of somebody else is not written over", (seen := driver.ask("setpoint 12.4")) == "ERR_STATE "
          "membrane controller: its set point was changed from 12.345 to 20 bar by somebody else; nothing was written", seen)
    check(name + ": nothing was", len(pace.written) == before, pace.written[before:])
    check(name + ": after a look at it", driver.ask("read").split()[1] == "20")
    check(name + ": it is", (seen := driver.ask("setpoint 12.345")) == "OK", seen)
    before = len(pace.written)
    check(name + ": a slew is written", (seen := driver.ask("slew 4")) == "OK", seen)
    check(name + ": linear, without overshoot, not faster than asked", pace.written[before:] == [
        ":SOUR:PRES:SLEW:OVER 0", ":SOUR:PRES:SLEW 0.066666", ":SOUR:PRES:SLEW:MODE LIN"], pace.written[before:])
    before = len(pace.written)
    for what, value in (("above full scale", "211"), ("below zero", "-1"), ("no number", "nan"), ("infinite", "inf"),
                        ("above the supply", "190")):
        check(name + ": a set point %s is refused" % what,
              (seen := driver.ask("setpoint " + value)).startswith("ERR_LIMIT"), seen)
    check(name + ": the supply is named", seen == "ERR_LIMIT membrane set point 190 bar refused: above the supply 180.2 "
          "bar; nothing was written; check the bottle and its regulator", seen)
    for header, value, word in ((":UNIT:PRES", "MBAR", 'works in "MBAR"'), (":OUTP:STAT", "0", "output is off"),
                                (":SOUR:PRES:SLEW:MODE", "MAX", "slew mode MAX")):
        held, pace.values[header] = pace.values[header], value
        seen = driver.ask("setpoint 13")
        check(name + ": no set point while %s is %s" % (header, value), seen.startswith("ERR_STATE") and word in seen, seen)
        pace.values[header] = held
    check(name + ": nothing of that was written", len(pace.written) == before, pace.written[before:])
    pace.values[":SOUR:PRES:SLEW:MODE"] = "MAX"
    check(name + ": a slew without limit is read as such", " inf " in (seen := driver.ask("read")), seen)
    pace.values[":SOUR:PRES:SLEW:MODE"] = "LIN"
    pace.manner = "deaf"
    check(name + ": a set point that is not held is noticed",
          (seen := driver.ask("setpoint 14")).startswith("ERR_REFUSED"), seen)
    for manner, code in (("silent", "ERR_TIMEOUT"), ("garbage", "ERR_PROTOCOL"), ("shifted", "ERR_")):
        pace.manner = manner
        check(name + ": %s is an error" % manner, (seen := driver.ask("read")).startswith(code), seen)
        pace.manner = None
        check(name + ": and then it is there again", driver.ask("read").endswith("OK"))
    for value in ("NAN", "INF", "9.9e37", "300", "1e999"):
        held, pace.values[":SENS:PRES"] = pace.values[":SENS:PRES"], value
        check(name + ": %s is no pressure" % value, (seen := driver.ask("read")).startswith("ERR_"), seen)
        pace.values[":SENS:PRES"] = held
    before = len(pace.written)
    check(name + ": valves shut", (seen := driver.ask("shut")) == "OK", seen)
    check(name + ": first the output, then the set point to what is measured, and never a vent",
          pace.written[before:] == [":OUTP:STAT 0", ":SOUR:PRES 47.625000"], pace.written[before:])
    check(name + ": the driver ends by itself", driver.end() == 0)


def refused_at_connect(address, pace):
    for header, value, code, words in (
            ("*IDN", "ACME,Thermostat,1,1", "ERR_DATA", "expected a PACE"),
            (":UNIT:PRES", "PSI", "ERR_STATE", "set its unit to bar at its panel"),
            (":INST:SENS:FULL", "100.0, 0.0", "ERR_STATE", "does not reach membrane_bar_max 150 bar"),
            (":INST:SENS:FULL", "0.0", "ERR_DATA", "full scale reads 0 bar")):
        held, pace.values[header] = pace.values[header], value
        driver = instrument.Driver("pace", address)
        check("refused at connect: %s %s" % (header, value), driver.first.startswith(code) and words in driver.first,
              driver.first)
        driver.end()
        pace.values[header] = held


def unplug_and_replug(line):
    driver = instrument.Driver("pace", line.address)
    check("a serial line: open", driver.first == "OK", driver.first)
    line.unplug()
    start = time.monotonic()
    check("unplugged: the link is lost", (seen := driver.ask("read")).startswith("ERR_LINK"), seen)
    check("and at once", time.monotonic() - start < 0.5)
    check("unplugged: no set point", (seen := driver.ask("setpoint 1")).startswith("ERR_LINK"), seen)
    line.plug()
    check("plugged in again: read without help", (seen := driver.ask("read")).endswith("OK"), seen)
    other = instrument.Driver("pace", line.address)
    check("a second program on the line is refused", "in use by another program" in other.first, other.first)
    other.end()
    driver.end()


def our_server():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([PEER, "serve", "pace", "tcp:127.0.0.1:%d" % port])
    try:
        end = time.monotonic() + 10
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), 2)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        stream = connection.makefile("rw", newline="")

        def ask(line, is_query=True):
            stream.write(line + "\r\n")
            stream.flush()
            return stream.readline().strip() if is_query else ""

        check("the simulated one: identity", "Pace5000" in (seen := ask("*IDN?")), seen)
        check("short and long form",
              (seen := ask(":SOURCE:PRESSURE:LEVEL:IMMEDIATE:AMPLITUDE?")).endswith(" 31.500000"), seen)
        check("measured", abs(float(ask(":SENS:PRES?").split()[1]) - 31.5) < 0.01)
        ask(":SOUR:PRES 40.25", False)
        check("a set point is taken", (seen := ask(":SOUR:PRES?")) == ":SOUR:PRES 40.250000", seen)
        for command, number in ((":SOUR:PRES 211", 222), (":SOUR:PRES -1", 222), (":SOUR:PRES nan", 222),
                                (":SOUR:PRES", -109), (":SOUR:PRES twelve", 224), (":NONSENSE 1", -113),
                                (":SENS:PRES 3", -108), (":SOUR:PRES:LEV:IMM:AMPL:VENT 1", 221)):
            ask(command, False)
            check("%s is error %d" % (command, number), (seen := ask(":SYST:ERR?")).startswith(":SYST:ERR %d," % number),
                  seen)
        check("no more errors", ask(":SYST:ERR?") == ':SYST:ERR 0,"No error"')
        check("nothing of that was applied", (seen := ask(":SOUR:PRES?")) == ":SOUR:PRES 40.250000", seen)
        connection.close()
    finally:
        server.terminate()
    check("SIGTERM ends the server", server.wait(10) == 0)


def main():
    pace = Pace()
    address = serve_tcp(pace)
    exercise("TCP", pace, address)
    refused_at_connect(address, Pace.__init__(pace) or pace)
    with tempfile.TemporaryDirectory(prefix="isobar_", dir="/tmp") as folder:
        pace = Pace()
        line = PaceLine(pace, folder)
        line.plug()
        exercise("serial", pace, line.address)
        unplug_and_replug(line)
        line.unplug()
    our_server()
    return 1 if failures else 0


sys.exit(main())
