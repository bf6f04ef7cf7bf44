"""
Goal: bad input gets a clear sentence and changes nothing.
Method: the built programs, as an operator would call them, with one thing wrong at a time. Checked: the exit status, the
sentence, and that no database, result or other file came of it.
"""
import os
import sqlite3
import subprocess
import sys
import tempfile
import time

CELL = 'cell { culet_um = 600, medium = "neon", pressure_gpa_max = 8, membrane_bar_max = 130 }\n'
START = CELL + 'preloaded { at = "0.1 GPa" }\n'
BEAMLINE = """
beamline { name = "test", ca_address = "127.0.0.1:1" }
membrane { driver = "bronkhorst", address = "tcp:127.0.0.1:1", membrane_bar_max = 150, slew_bar_per_min_max = 8 }
spectrometer { driver = "ocean-optics", address = "tcp:127.0.0.1:1", exposure = "0.5 s" }
ruby { lambda0_nm = 694.25 }
detector { driver = "adeiger", prefix = "X:", file_path = "/tmp", photon_energy = "20 keV", distance = "5 m",
           beam_center_x_px = 1, beam_center_y_px = 1 }
ring { current_pv = "R", current_ma_min = 20 }
"""

PASSPORT = """
cell { name = "DAC 7", culet_um = 600, medium = "neon", pressure_gpa_max = 8, membrane_bar_max = 130 }
cell_passport {
  run = "r", measured = "2026-01-01T04:00:00Z", clock = "real", scale = "ruby2020", lambda0_nm = 694.25,
  temperature_k_zero = 296, n_branches = 1,
}
cell_branch { step_index = 1, direction = 0, pressure_gpa = 1.5 }
"""

failures = 0


def check(is_passed, text):
    global failures
    failures += not is_passed
    print("ok  " if is_passed else "FAIL", text)


def main():
    programs = os.path.join(sys.argv[1], "bin")
    holder = tempfile.TemporaryDirectory(prefix="isobar-refusal-")
    folder = holder.name

    def write(name, content):
        path = os.path.join(folder, name)
        with open(path, "wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
        return path

    def refused(what, words, *command, status=2):
        before = {name: open(os.path.join(folder, name), "rb").read()
                  for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))}
        start = time.monotonic()
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        after = {name: open(os.path.join(folder, name), "rb").read()
                 for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))
                 and not name.endswith(".lock")}
        said = (run.stderr + run.stdout).strip()
        missing = [word for word in words if word not in said]
        check(run.returncode == status and not missing, f"{what}: {said.splitlines()[-1] if said else 'nothing said'}"
              + (f" (expected {missing}, status {run.returncode})" if missing or run.returncode != status else ""))
        check(after == {k: v for k, v in before.items() if not k.endswith(".lock")}, f"{what}: nothing was changed")
        check(time.monotonic() - start < 20, f"{what}: said within 20 s")

    isobar, isobard = os.path.join(programs, "isobar"), os.path.join(programs, "isobard")
    sequences = {
        "a wrong unit": (START + 'load { to = "3.3 bar" }', ["GPa", ".lua:3"]),
        "no unit": (START + "load { to = 3.3 }", ["GPa", ".lua:3"]),
        "an unknown key": (START + 'load { to = "3.3 GPa", rat = "2 bar/min" }', ["rat", "rate", ".lua:3"]),
        "an unknown step": (START + 'lod { to = "3.3 GPa" }', ["lod", "load"]),
        "a target above the cell's limit": (START + 'load { to = "9 GPa" }', ["9", "8", ".lua:3"]),
        "an endless loop": (START + "while true do end", ["loop"]),
        "a memory bomb": (START + 'local s = "x" while true do s = s .. s end', ["memory"]),
        "a hand at the files": (START + 'io.open("/etc/passwd")', ["io"]),
        "Lua that does not parse": (START + "load {", [".lua"]),
        "an empty file": ("", ["cell"]),
    }
    good = write("good.lua", START + 'load { to = "1.5 GPa" }\n')
    beamline = write("beamline.lua", BEAMLINE)
    db = os.path.join(folder, "night.db")

    def daemon(sequence=good, line=beamline, path=db):
        return (isobard, "--sequence", sequence, "--beamline", line, "--db", path, "--results", folder + "/results")

    for i, (what, (text, words)) in enumerate(sequences.items()):
        path = write(f"bad{i}.lua", text)
        refused(f"check with {what}", words, isobar, "check", path)
        refused(f"isobard with {what}", words, *daemon(sequence=path))
    refused("a sequence that is not there", ["absent.lua"], isobar, "check", folder + "/absent.lua")

    beamlines = {
        "an unknown key in the beamline file": (BEAMLINE.replace("exposure =", "exposur ="), ["exposur", "exposure"]),
        "optics that nothing would move": (
            BEAMLINE.replace("ruby {", 'ruby { optics_pv = "X",'), ["optics_pv", "always", "between_scans"]),
        "an unknown driver": (BEAMLINE.replace("bronkhorst", "bronkhurst"), ["bronkhurst"]),
        "a fast clock and a real membrane": (
            BEAMLINE.replace('name = "test"', 'name = "test", clock = "clock"').replace("tcp:127.0.0.1:1", "tcp:192.0.2.1:1", 1),
            ["192.0.2.1", "loopback"]),
        "a fast clock and a real detector": (
            BEAMLINE.replace('name = "test", ca_address = "127.0.0.1:1"',
                             'name = "test", clock = "clock", ca_address = "192.0.2.1:5064"'), ["192.0.2.1", "loopback"]),
        "a clock that is not there": (BEAMLINE.replace('name = "test"', 'name = "test", clock = "/nowhere/clock"'),
                                      ["/nowhere/clock", "simulator"]),
    }
    for i, (what, (text, words)) in enumerate(beamlines.items()):
        path = write(f"line{i}.lua", text)
        refused(f"isobard with {what}", words, *daemon(line=path))

    # A beamline that nothing answers on: a run that began would leave a database.
    passports = {
        "another cell's passport": (PASSPORT.replace("600", "500"), ["another cell", "culet_um is 500", "600"]),
        "a passport of another medium": (PASSPORT.replace("neon", "argon"), ["another cell", "argon", "neon"]),
        "a passport with a lower limit": (PASSPORT.replace("max = 8", "max = 6"), ["8 GPa", "6 GPa", "not raised"]),
        "a passport of another lambda0": (PASSPORT.replace("694.25", "694.31"), ["two rulers", "694.310", "694.250"]),
        "a passport on another scale": (PASSPORT.replace("ruby2020", "mao1986"), ["two rulers", "mao1986"]),
        "a simulated cell's passport": (PASSPORT.replace('"real"', '"simulated"'), ["simulated", "real cell"]),
        "a passport from the future": (PASSPORT.replace("2026-01", "2096-01"), ["2096-01", "future"]),
        "a passport cut between branches": (PASSPORT.split("cell_branch")[0], ["cut", "n_branches = 1", "holds 0"]),
        "a passport cut in a table": (PASSPORT.split("lambda0")[0], ["expected", "<eof>"]),
        "a sequence as passport": (START, ["preloaded"]),
    }
    for i, (what, (text, words)) in enumerate(passports.items()):
        path = write(f"cell{i}.lua", text)
        words = words + [os.path.basename(path)]
        refused(f"isobard with {what}", words, *daemon(), "--cell", path)
        refused(f"check with {what}", words, isobar, "check", good, "--beamline", beamline, "--cell", path)
        refused(f"run with {what}", words, isobar, "run", good, "--beamline", beamline, "--db", db, "--cell", path,
                "--results", folder + "/results")
    refused("a rehearsal with another cell's passport", ["another cell"], isobar, "rehearse", good, "--dir",
            folder + "/r", "--cell", folder + "/cell0.lua")
    refused("a run with a passport that is not there", ["absent.lua"], *daemon(), "--cell", folder + "/absent.lua")
    check(not os.path.exists(folder + "/r") and not os.path.exists(folder + "/results"),
          "no refused passport left a folder")
    known = subprocess.run([isobar, "check", good, "--beamline", beamline, "--cell", write("cell.lua", PASSPORT)],
                           capture_output=True, text=True)
    check(known.returncode == 0 and "loaded anew since" in known.stdout and "+- for this run" in known.stdout,
          "check with a passport of its own says what is known of the cell")
    low = write("low.lua", PASSPORT.replace('"neon"', '"neon", hydrostatic_gpa_max = 1'))
    known = subprocess.run([isobar, "check", good, "--cell", low], capture_output=True, text=True)
    check(known.returncode == 0 and "1.5 GPa is above 1 GPa" in known.stdout and "without --beamline" in known.stdout,
          "a target above the passport's hydrostatic limit is said")

    foreign = os.path.join(folder, "foreign.db")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE bread (flour TEXT)")
    connection.commit()
    connection.close()
    refused("isobard on a database not ours", ["foreign.db"], *daemon(path=foreign))
    refused("isobard on a text file as database", ["good.lua"], *daemon(path=good))
    refused("replay of a database not ours", ["foreign.db"], isobar, "replay", "--db", foreign)
    refused("status without a daemon", ["no daemon"], isobar, "status", "--db", db)
    refused("a ruby spectrum that is none", ["good.lua"], isobar, "ruby", good, status=1)
    refused("an unknown ruby scale", ["mao1986"], isobar, "ruby", good, "--scale", "ruby1066")
    refused("rescaling a database not ours", ["foreign.db"], isobar, "ruby", "--rescale", "mao1978",
            "--db", foreign)
    refused("a laser that is no number", ["--laser-nm", "1100"], isobar, "ruby", good, "--laser-nm", "green")
    refused("a scale of another gauge", ["samarium", "--scales"], isobar, "ruby", good, "--scale", "samarium_datchi2007")
    refused("an unknown ruby access", ["sometimes", "between_scans"], isobar, "rehearse", good, "--ruby-access", "sometimes")
    refused("a seed that is no number", ["SEED"], "env", "SEED=abc", isobar, "rehearse", good, "--dir", folder + "/r")
    print(f"{'FAIL' if failures else 'ok'}: {failures} failures")
    sys.exit(1 if failures else 0)


main()
