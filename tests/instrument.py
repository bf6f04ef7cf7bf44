"""
What wire tests with an instrument of their own have in common: the line it hangs on, and our driver at the other end.
"""
import os
import pty
import subprocess
import sys
import threading
import tty

PEER = sys.argv[1] + "/tests/test_membrane"


class Line:
    """A serial line that can be unplugged: a pseudo-terminal behind a link of constant name. serve() is the instrument:
    it reads self.master until self.stop is readable."""

    def __init__(self, folder, name, baud):
        self.path = os.path.join(folder, name)
        self.address = "serial:%s:%d" % (self.path, baud)

    def plug(self):
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        os.symlink(os.ttyname(self.slave), self.path)
        self.stop, self.told = os.pipe()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def unplug(self):
        os.close(self.told)
        self.thread.join()
        os.unlink(self.path)
        for fd in (self.master, self.slave, self.stop):
            os.close(fd)


class Driver:
    """Our driver in a process of its own, told what to do line by line."""

    def __init__(self, driver, address, program=PEER):
        self.process = subprocess.Popen([program, "drive", driver, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.first = self.ask()

    def ask(self, line=None):
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        return self.process.wait(10)
