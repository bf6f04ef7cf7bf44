"""
Goal: with a PACE and its SCPI the rehearsal passes as with any other controller, although somebody else turns its set
point, its slew mode, its unit and its output in mid-ramp, and its wire fails in every way that there is a name for: each
is a hold with its sentence, no set point is sent meanwhile, and the run goes on when it is put right.
Method: one rehearsal; a second client at the controller's port; isobar-sim fault; isobar resume.
"""
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time

from rehearsal import Rehearsal

PROGRAMS = os.path.join(sys.argv[1], "bin")


class Panel:
    """What a person can do at the front panel, by a connection of its own."""

    def __init__(self, night):
        with open(os.path.join(night.directory, "servers")) as servers:
            port = next(int(line.split()[2]) for line in servers if line.startswith("membrane "))
        self.stream = socket.create_connection(("127.0.0.1", port), 5).makefile("rw", newline="")

    def tell(self, command):
        self.stream.write(command + "\r\n")
        self.stream.flush()

    def ask(self, header):
        self.tell(header + "?")
        return self.stream.readline().split(None, 1)[1].strip()


def isobar(night, command):
    answer = subprocess.run([os.path.join(PROGRAMS, "isobar"), command, "--db", os.path.join(night.directory, "night.db")],
                            capture_output=True, text=True)
    return answer.stdout


def fault(night, name):
    subprocess.run([os.path.join(PROGRAMS, "isobar-sim"), "fault", "--dir", night.directory, name], check=True)


def wait_for(what, wall_s=60):
    end = time.monotonic() + wall_s
    while not what():
        if time.monotonic() > end:
            raise AssertionError("not within %d s" % wall_s)
        time.sleep(0.02)


GOING_ON = r"the reasons for holding are gone: going on"
FOREIGN = r"warning hold: the membrane controller does not follow us"


def turn_setpoint(night, panel, at):
    """Turned in the very moment between the driver's look and its write, the knob is overruled: a person turns it again."""
    for _ in range(30):
        turned_bar = float(panel.ask(":SOUR:PRES")) - 2
        panel.tell(":SOUR:PRES %.3f" % turned_bar)
        try:
            return night.wait_line(FOREIGN + r".*its set point was changed from [\d.]+ to [\d.]+ bar", at, 1), turned_bar
        except AssertionError as error:
            if "ended" in str(error):
                raise
    raise AssertionError("a set point turned at the panel thirty times was not seen")


def main():
    night = Rehearsal(sys.argv[1], "night_membrane", "tests/night_membrane.lua", ("--membrane", "pace"))
    at = night.wait_line(r"load to 1.50 GPa: ramp")
    panel = Panel(night)
    wait_for(lambda: re.search(r"ramp\] 0\.[2-9]", isobar(night, "status")))

    at, turned_bar = turn_setpoint(night, panel, at)
    night.check(True, "a set point turned at the panel: " + night.lines[at - 1])
    time.sleep(1)  # a minute or more of the night: nothing may be sent in it
    night.check(abs(float(panel.ask(":SOUR:PRES")) - turned_bar) < 1e-3, "and it is left as it was turned")
    isobar(night, "resume")
    at = night.wait_line(GOING_ON, at, 30)

    panel.tell(":SOUR:PRES:SLEW:MODE MAX")
    at = night.wait_line(FOREIGN + r".*its slew was changed from [\d.]+ to inf bar/min", at, 30)
    wait_for(lambda: panel.ask(":SOUR:PRES:SLEW:MODE") == "LIN", 10)
    night.check(True, "slew mode MAX at the panel: held, and put back before anything moves: " + night.lines[at - 1])
    isobar(night, "resume")
    at = night.wait_line(GOING_ON, at, 30)

    panel.tell(":OUTP:STAT 0")
    at = night.wait_line(FOREIGN + r".*it says that it does not regulate to the set point sent", at, 30)
    isobar(night, "resume")  # in vain as long as the valves are shut
    time.sleep(0.5)
    night.check("HOLD: the membrane controller" in (seen := isobar(night, "status")), "output off: " + seen.strip())
    panel.tell(":OUTP:STAT 1")
    at = night.wait_line(GOING_ON, at, 30)

    panel.tell(":UNIT:PRES MBAR")
    at = night.wait_line(r'hold: .*works in "MBAR", expected "BAR"; nothing was written; set its unit to bar', at, 30)
    night.check(True, "another unit: " + night.lines[at - 1])
    panel.tell(":UNIT:PRES BAR")
    at = night.wait_line(GOING_ON, at, 30)

    for name in ("off", "garbage", "wrong", "slow", "delayed"):
        fault(night, name)
        at = night.wait_line(r"warning hold: no link to the membrane controller", at, 60)
        night.check(True, "%s: %s" % (name, night.lines[at - 1]))
        fault(night, "none")
        at = night.wait_line(GOING_ON, at, 60)
    fault(night, "intermittent")
    time.sleep(5)
    fault(night, "none")
    night.wait_line(r"isobar at 1.50 GPa", at, 240)
    code = night.end()
    night.check(code == 0, "the rehearsal passes all the same (exit status %d)" % code)
    db = sqlite3.connect(os.path.join(night.directory, "night.db"))
    wrong = db.execute("SELECT count(*) FROM membrane WHERE membrane_bar < -0.1 OR membrane_bar > 130 OR "
                       "membrane_bar_setpoint > 130").fetchone()[0]
    night.check(wrong == 0, "no impossible reading was taken (%d)" % wrong)
    night.exit()


main()
