"""
Goal: `isobar doctor` says of every instrument what is wrong with it and what to check, before a run and beside one, and
moves nothing.
Method: a simulated beamline, and one thing wrong at a time: nothing listens, silence, garbage, another device, another
unit, a PV that is not there, a folder that is not visible. A relay between the doctor and each controller keeps what
was sent: only questions may be among it.
"""
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

from rehearsal import Rehearsal

BUILD = sys.argv[1]
WITH_ME = ["setpriv", "--pdeathsig", "TERM"]  # a test that is killed leaves no simulator behind
failures = 0


def check(is_right, sentence):
    global failures
    failures += not is_right
    print(("ok   " if is_right else "FAIL ") + sentence, flush=True)


def program(name):
    return os.path.join(BUILD, "bin", name)


class Beamline:
    """isobar-sim in a folder of its own."""

    def __init__(self, membrane, spectrometer="ocean"):
        self.holder = tempfile.TemporaryDirectory(prefix="isobar-doctor-")
        self.folder = self.holder.name
        os.mkdir(self.folder + "/raw")
        self.process = subprocess.Popen([*WITH_ME, program("isobar-sim"), "beamline", "--dir", self.folder, "--seed", "5", "--speed-max",
                                         "1", "--membrane", membrane, "--spectrometer", spectrometer],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"
        with open(self.folder + "/beamline.lua") as stream:
            self.text = stream.read()
        with open(self.folder + "/servers") as stream:
            self.ports = {line.split()[0]: int(line.split()[2]) for line in stream}
        for port in self.ports.values():  # its children listen a little later than it is ready
            end = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert time.monotonic() < end, f"nothing listens at {port}"
                    time.sleep(0.02)

    def doctor(self, changes=()):
        text = self.text
        for before, after in changes:
            assert before in text, before
            text = text.replace(before, after)
        with open(self.folder + "/changed.lua", "w") as stream:
            stream.write(text)
        start = time.monotonic()
        run = subprocess.run([program("isobar"), "doctor", "--beamline", self.folder + "/changed.lua", "--db",
                              self.folder + "/night.db", "--json"], capture_output=True, text=True, timeout=60)
        lines = {line["part"]: line for line in json.loads(run.stdout)["lines"]} if run.stdout.startswith("{") else {}
        check(time.monotonic() - start < 30, f"said within {time.monotonic() - start:.1f} s")
        check(not os.path.exists(self.folder + "/night.db"), "no database came of it")
        return run, lines

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.holder.cleanup()


class Peer:
    """A listener on loopback that answers as `answer` says; or a relay to a port that keeps what goes there."""

    def __init__(self, answer=None, relay=None):
        self.answer, self.relay, self.sent = answer, relay, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        there = socket.create_connection(("127.0.0.1", self.relay)) if self.relay else None
        if there:
            threading.Thread(target=self.bring_back, args=(there, client), daemon=True).start()
        try:
            while data := client.recv(4096):
                self.sent += data
                if there:
                    there.sendall(data)
                elif self.answer:
                    client.sendall(self.answer(data))
        except OSError:
            pass

    def bring_back(self, there, client):
        try:
            while data := there.recv(4096):
                client.sendall(data)
            client.close()
        except OSError:
            pass


def refused_modbus(request):  # exception 2 to whatever is asked
    return request[:5] + bytes([3, request[6], request[7] | 0x80, 2])


def expect(lines, part, verdict, seen, advice, what):
    line = lines.get(part, {})
    is_right = line.get("verdict") == verdict and re.search(seen, line.get("seen", "")) and advice in line.get("check", "")
    check(is_right, f"{what}: {part} {line.get('verdict')}: {line.get('seen')}; check {line.get('check')}")


def before_a_run():
    line = Beamline("bronkhorst")
    membrane, spectrometer = ("tcp:127.0.0.1:%d" % line.ports[name] for name in ("membrane", "spectrometer"))

    relay = Peer(relay=line.ports["membrane"])
    run, lines = line.doctor([(membrane, f"tcp:127.0.0.1:{relay.port}")])
    check(run.returncode == 0 and {found["verdict"] for found in lines.values()} == {"good"},
          f"all is well: {len(lines)} lines, all good")
    requests, functions = relay.sent, set()
    while requests:  # Modbus TCP: transaction, protocol, length, unit, function
        functions.add(requests[7])
        requests = requests[6 + int.from_bytes(requests[4:6], "big"):]
    check(functions == {3}, f"the controller was only read: function codes {functions}")

    mute, noise = Peer(), Peer(lambda data: os.urandom(64) if len(data) < 1000 else b"")
    stranger, other = Peer(lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n"), Peer(refused_modbus)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()[1]

    def both(port):
        return [(membrane, f"tcp:127.0.0.1:{port}"), (spectrometer, f"tcp:127.0.0.1:{port}")]

    run, lines = line.doctor(both(nobody))
    check(run.returncode == 1, f"exit status 1 when something is bad ({run.returncode})")
    expect(lines, "membrane", "bad", "Connection refused", "power, cable, and the address", "nothing listens")
    expect(lines, "spectrometer", "bad", "refused the connection", "power, cable, and the address", "nothing listens")
    run, lines = line.doctor(both(mute.port))
    expect(lines, "membrane", "bad", "no answer", "unit_id, baud rate, parity and terminator", "silence")
    expect(lines, "spectrometer", "bad", "no answer|silen|nothing", "its serial server (9600 at power-up)", "silence")
    run, lines = line.doctor(both(noise.port))
    expect(lines, "membrane", "bad", "membrane controller", "", "garbage")
    expect(lines, "spectrometer", "bad", "spectrometer", "", "garbage")
    run, lines = line.doctor(both(stranger.port))
    expect(lines, "membrane", "bad", "membrane controller", "", "another device (a web server)")
    expect(lines, "spectrometer", "bad", "spectrometer", "whether it is the device", "another device (a web server)")
    run, lines = line.doctor([(membrane, f"tcp:127.0.0.1:{other.port}")])
    expect(lines, "membrane", "bad", "membrane controller", "driver and unit_id", "another Modbus device")

    run, lines = line.doctor([("ISB:RING:Current", "ISB:RING:Curent"), ("ISB:cam1:", "ISB:cam9:")])
    expect(lines, "ring", "bad", "PV ISB:RING:Curent does not answer within 3 s", "PV names", "a PV that is not there")
    expect(lines, "detector", "bad", r"46 of 46 EPICS channels not connected.*ISB:cam9:", "PV names", "a wrong prefix")
    run, lines = line.doctor([(line.folder + "/raw", "/nowhere/raw")])
    expect(lines, "files", "bad", "file_path /nowhere/raw is not visible here: No such file", "the mount", "no such folder")
    run, lines = line.doctor([(line.folder + "/raw", line.folder + "/beamline.lua")])
    expect(lines, "files", "bad", "is no folder", "the mount", "a file for a folder")
    run, lines = line.doctor([("current_ma_min = 20", "current_ma_min = 500")])
    expect(lines, "ring", "doubt", r"\d mA, needed 500.0 mA", "beam", "no beam")
    line.end()


def what_an_ioc_shows():
    line = Beamline("bronkhorst", "epics")
    run, lines = line.doctor()
    check(run.returncode == 0 and {found["verdict"] for found in lines.values()} == {"good"}, "all is well by EPICS")
    expect(lines, "spectrometer", "good", r"epics-waveforms at ISB:SPEC:Counts: \d+ pixels .* of 65535 counts", "", "two waveforms")
    expect(lines, "thermometer", "good", r"ISB:CELL:Temperature: 29\d\.\d\d \+- 0.3 K, processed \d\.\d s ago", "", "a thermometer")
    expect(lines, "ruby", "good", r"at 29\d\.\d\d \+- 0.3 K", "", "a thermometer")
    run, lines = line.doctor([("ISB:SPEC:Busy", "ISB:SPEC:Bussy"), ("ISB:CELL:Temperature", "ISB:CELL:Temprature")])
    expect(lines, "spectrometer", "bad", "ISB:SPEC:Bussy does not answer", "PV names", "a PV that is not there")
    expect(lines, "thermometer", "bad", "ISB:CELL:Temprature", "PV names", "a PV that is not there")
    run, lines = line.doctor([("ISB:CELL:Temperature", "ISB:SPEC:Wavelength")])
    expect(lines, "thermometer", "bad", "expected at most 1", "which record the PV", "a waveform for a thermometer")
    for fault, seen, advice in (("off", "severity INVALID", "alarms of the record"), ("wrong", "absurd: 2", "kelvin")):
        subprocess.run([program("isobar-sim"), "fault", "--dir", line.folder, "thermometer", fault], check=True)
        time.sleep(1.5)  # its record follows
        run, lines = line.doctor()
        expect(lines, "thermometer", "bad", seen, advice, "a thermometer that is " + fault)
        expect(lines, "ruby", "good", r"at 296\.00 \+- 2 K", "", "and the ruby at the stated temperature")
    line.end()


def a_pace_in_another_unit():
    line = Beamline("pace")
    membrane = "tcp:127.0.0.1:%d" % line.ports["membrane"]
    relay = Peer(relay=line.ports["membrane"])
    run, lines = line.doctor([(membrane, f"tcp:127.0.0.1:{relay.port}")])
    expect(lines, "membrane", "good", r"pace at .* set point .* bar, full scale .* supply", "", "a PACE")
    commands = [command for command in re.split(rb"[\r\n]+", relay.sent) if command]
    check(commands and all(command.endswith(b"?") for command in commands), f"it was only asked: {len(commands)} questions")
    with socket.create_connection(("127.0.0.1", line.ports["membrane"])) as panel:
        panel.sendall(b":UNIT:PRES MBAR\r\n:UNIT:PRES?\r\n")
        check(b"MBAR" in panel.recv(100), "its unit is set to mbar at the panel")
    run, lines = line.doctor()
    expect(lines, "membrane", "bad", 'works in "MBAR", expected "BAR"', "at the controller itself: unit", "another unit")
    run, lines = line.doctor([("\"pace\"", "\"bronkhorst\"")])
    expect(lines, "membrane", "bad", "no answer", "unit_id", "a PACE that is taken for an EL-PRESS")
    line.end()


def beside_a_run():
    night = Rehearsal(BUILD, "wire_doctor", "sequences/deflate.lua")
    night.wait_line(r"load to 1.50 GPa: ramp")
    db = os.path.join(night.directory, "night.db")
    time.sleep(1)

    def doctor(*options):
        return subprocess.run([program("isobar"), "doctor", "--db", db, *options], capture_output=True, text=True, timeout=60)

    told = doctor().stdout
    check(len(told.splitlines()) == 10 and all(line.startswith("good") for line in told.splitlines()),
          "beside a run:\n" + told)
    lines = {line["part"]: line for line in json.loads(doctor("--json").stdout)["lines"]}
    expect(lines, "membrane", "good", r"\d bar, set point \d+\.\d\d bar, full scale 200 bar, \d+ s ago", "", "beside a run")
    expect(lines, "database", "good", "quick_check: ok", "", "beside a run")
    expect(lines, "thermometer", "good", r"reading was taken at 29\d\.\d\d \+- 0.3 K", "", "beside a run")
    subprocess.run([program("isobar-sim"), "fault", "--dir", night.directory, "thermometer", "off"], check=True)
    night.wait_line(r"thermometer of the cell not read")
    lines = {line["part"]: line for line in json.loads(doctor("--json").stdout)["lines"]}
    expect(lines, "thermometer", "doubt", r"reading was taken at 29\d\.\d\d \+- 2 K", "the log says why", "a thermometer that is lost")
    subprocess.run([program("isobar-sim"), "fault", "--dir", night.directory, "off"], check=True)
    night.wait_line(r"hold: no link to the membrane controller")
    lines = {line["part"]: line for line in json.loads(doctor("--json").stdout)["lines"]}
    expect(lines, "membrane", "bad", "membrane controller", "", "a controller that has gone")
    subprocess.run([program("isobar-sim"), "fault", "--dir", night.directory, "none"], check=True)
    night.wait_line(r"the reasons for holding are gone: going on")
    night.process.terminate()
    night.end()
    events = sqlite3.connect(db).execute("SELECT count(*) FROM event WHERE kind = 'command' AND value > 0").fetchone()[0]
    check(events == 0, "the doctor left no command in the record")


before_a_run()
what_an_ioc_shows()
a_pace_in_another_unit()
beside_a_run()
print(f"{'FAIL' if failures else 'ok'}: {failures} failures")
sys.exit(1 if failures else 0)
