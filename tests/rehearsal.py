"""A rehearsal under test: starts it, follows its lines, finds its processes. Not a test itself."""
import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time


class Rehearsal:
    def __init__(self, build, name, sequence="sequences/first_light.lua", options=()):
        self.directory = os.path.join(build, "tests", name)
        self.lines = []
        self.failures = 0
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", os.path.join(build, "bin", "isobar"), "rehearse", sequence, "--dir", self.directory, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        atexit.register(self._leave_nothing)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip())
                self.changed.notify_all()
            print("    |", line.rstrip(), flush=True)
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def _leave_nothing(self):
        """A test that fails in the middle must not leave a daemon behind: its end would remove the next one's socket."""
        for _ in range(2):  # asked twice it ends at once
            if self.process.poll() is None:
                self.process.terminate()
                time.sleep(0.5)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the simulator and the daemon end with their parent

    def wait_line(self, pattern, after=0, wall_s=300):
        """Index just behind the first line that matches, from line `after` on."""
        deadline = time.monotonic() + wall_s
        with self.changed:
            while True:
                for i in range(after, len(self.lines)):
                    if self.lines[i] is None:
                        raise AssertionError(f"the rehearsal ended before a line like '{pattern}'")
                    if re.search(pattern, self.lines[i]):
                        return i + 1
                after = max(after, len(self.lines))
                if not self.changed.wait(timeout=max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no line like '{pattern}' within {wall_s} s")

    def server_pid(self, name):
        with open(os.path.join(self.directory, "servers")) as servers:
            for line in servers:
                words = line.split()
                if words[0] == name:
                    return int(words[1])
        raise AssertionError(f"no server named {name}")

    def child_pid(self, name):
        """The process of that name that belongs to this rehearsal."""
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    words = stream.read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(name.encode()) and any(self.directory.encode() in word for word in words[1:]):
                return int(entry)
        return None

    def end(self, wall_s=600):
        try:
            return self.process.wait(timeout=wall_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            raise AssertionError(f"no end within {wall_s} s")

    def check(self, is_passed, text):
        print("ok  " if is_passed else "FAIL", text, flush=True)
        self.failures += not is_passed

    def exit(self):
        if self.process.poll() is None:
            self.process.terminate()
        sys.exit(1 if self.failures else 0)
