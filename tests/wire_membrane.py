#!/usr/bin/python3
"""Goal: our Modbus agrees with somebody else's, on both ends of the wire.

Method: pymodbus serves as the device to our driver (build/release/tests/test_membrane drive), as an EL-PRESS and as an
Alicat, by TCP and RTU on a pseudo-terminal, and is the client of our simulated controllers (test_membrane serve). Floats
are packed here with struct, never with our codec.
"""
import asyncio
import logging
import math
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types

# Debian's pymodbus imports these for serial lines, which are not used here, but only recommends their packages.
for name in ("serial", "serial_asyncio"):
    sys.modules[name] = types.SimpleNamespace(create_serial_connection=None)

import instrument
from pymodbus.client import ModbusTcpClient
from pymodbus.datastore import ModbusServerContext, ModbusSlaveContext, ModbusSparseDataBlock
from pymodbus.factory import ServerDecoder
from pymodbus.framer.rtu_framer import ModbusRtuFramer
from pymodbus.server.async_io import ModbusTcpServer

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
PEER = instrument.PEER
failures = 0


def check(what, is_good, seen=""):
    global failures
    failures += not is_good
    print("ok  " if is_good else "FAIL", what, "" if is_good else repr(seen), flush=True)


def float_words(value):
    return list(struct.unpack(">HH", struct.pack(">f", value)))


def words_float(words):
    return struct.unpack(">f", struct.pack(">HH", *words))[0]


def text_words(text, n):
    return list(struct.unpack(">%dH" % n, text.ljust(2 * n).encode()))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port, deadline_s=10):
    end = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


ELPRESS = (
    (0x0022, [20000]), (0x0024, [0]), (0x0034, [2]), (0x0C25, [0]), (0x8168, float_words(200)),
    (0xA1B0, float_words(0)), (0x81F8, text_words("bar", 4)), (0xA100, float_words(47.625)),
    (0xA118, float_words(48.5)), (0xF258, [0]),
)


def swapped(words):
    return [word for i in range(0, len(words), 2) for word in (words[i + 1], words[i])]


def alicat(order):
    """Command, set point, signature, then gas, status, set point, valve drive and pressure in one block."""
    return ((999, [0, 0]), (1009, order(float_words(48.5))), (1087, order(float_words(1.234567))),
            (1346, [8, 0, 0] + order(float_words(48.5)) + order(float_words(33.0)) + order(float_words(47.625))))


def datastore(parts):
    registers = {}
    for address, words in parts:
        registers.update({address + i: word for i, word in enumerate(words)})
    block = ModbusSparseDataBlock(registers)
    return block, ModbusServerContext(slaves={1: ModbusSlaveContext(hr=block, zero_mode=True)}, single=False)


def serve_tcp(parts):
    """A pymodbus server; returns its registers, which may be changed while it runs, and its address."""
    port = free_port()
    block, context = datastore(parts)

    async def serve():
        await ModbusTcpServer(context, address=("127.0.0.1", port)).serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    wait_for_port(port)
    return block, "tcp:127.0.0.1:%d" % port


class ModbusLine(instrument.Line):
    """pymodbus's RTU framing on a pseudo-terminal that can be unplugged. late_s: the next answer comes that late."""

    def __init__(self, parts, folder):
        self.block, self.context = datastore(parts)
        super().__init__(folder, "ttyMODBUS", 19200)
        self.late_s = 0
        self.n_writes = 0

    def serve(self):
        framer = ModbusRtuFramer(ServerDecoder())

        def execute(request):
            self.n_writes += request.function_code in (6, 16)
            answer = request.execute(self.context[request.unit_id])
            answer.transaction_id, answer.unit_id = request.transaction_id, request.unit_id
            late_s, self.late_s = self.late_s, 0
            time.sleep(late_s)  # the subject of the test, not a wait for something
            os.write(self.master, framer.buildPacket(answer))

        while self.stop not in select.select([self.master, self.stop], [], [])[0]:
            frame = os.read(self.master, 300)
            while select.select([self.master], [], [], 0.005)[0]:  # a frame of RTU ends with silence
                frame += os.read(self.master, 300)
            framer.processIncomingPacket(frame, execute, [1], single=False)


def our_elpress(name, block, address):
    driver = instrument.Driver("bronkhorst", address)
    ask = driver.ask
    check(name + ": our driver accepts pymodbus as the device", driver.first == "OK", driver.first)
    check(name + ": reads every value of it", (seen := ask("read")) == "47.625 48.5 200 6 0 2 nan 1 OK", seen)
    check(name + ": writes a set point", (seen := ask("setpoint 12.345")) == "OK", seen)
    check(name + ": 12.345 arrives as 4145 851f", (seen := block.getValues(0xA118, 2)) == [0x4145, 0x851F], seen)
    check(name + ": writes a slew", (seen := ask("slew 12")) == "OK", seen)
    check(name + ": 12 bar/min of 200 bar arrive as 10000", (seen := block.getValues(0x0022, 1)) == [10000], seen)
    check(name + ": a set point above full scale is refused", (seen := ask("setpoint 201")).startswith("ERR_LIMIT"), seen)
    block.setValues(0xA100, float_words(math.nan))
    check(name + ": not a number is refused", (seen := ask("read")).startswith("ERR_DATA"), seen)
    block.setValues(0xA100, float_words(3.5))
    check(name + ": and the next reading is good again", (seen := ask("read")).startswith("3.5 "), seen)
    block.setValues(0x81F8, text_words("psi", 4))
    check(name + ": another unit is refused", 'works in "psi"' in (seen := ask("read")), seen)
    block.setValues(0x81F8, text_words("bar", 4))
    check(name + ": valves shut", (seen := ask("shut")) == "OK", seen)
    check(name + ": by control mode 3", (seen := block.getValues(0x0024, 1)) == [3], seen)
    check(name + ": set point where the membrane stands", words_float(block.getValues(0xA118, 2)) == 3.5)
    check(name + ": and no set point then", "control mode 3" in (seen := ask("setpoint 5")), seen)
    check(name + ": the driver ends by itself", driver.end() == 0)


def our_alicat(name, block, address, order):
    driver = instrument.Driver("alicat", address)
    ask = driver.ask
    check(name + ": our driver accepts pymodbus as the device", driver.first == "OK", driver.first)
    check(name + ": reads every value of it", (seen := ask("read")) == "47.625 48.5 200 inf 0 0 nan 1 OK", seen)
    check(name + ": writes a set point", (seen := ask("setpoint 12.345")) == "OK", seen)
    check(name + ": 12.345 arrives as 4145 851f in the device's order",
          (seen := block.getValues(1009, 2)) == order([0x4145, 0x851F]), seen)
    block.setValues(1353, order(float_words(math.inf)))
    check(name + ": infinity is refused", (seen := ask("read")).startswith("ERR_DATA"), seen)
    block.setValues(1353, order(float_words(3.5)))
    for bit, word in ((6, "over range"), (8, "does not follow"), (10, "does not follow")):
        block.setValues(1347, order([0, 1 << bit]))
        check(name + ": no set point with status bit %d" % bit, word in (seen := ask("setpoint 5")), seen)
    block.setValues(1347, order([0, 0]))
    held = block.getValues(1087, 2)
    block.setValues(1087, [0, 0])
    check(name + ": a foreign signature is refused", "expected 1.234567" in (seen := ask("read")), seen)
    block.setValues(1087, held)
    check(name + ": and then it is read again", (seen := ask("read")).startswith("3.5 "), seen)
    ask("shut")
    check(name + ": valves held closed by command 6, 1", (seen := block.getValues(999, 2)) == [6, 1], seen)
    check(name + ": the driver ends by itself", driver.end() == 0)


def our_line(folder):
    line = ModbusLine(ELPRESS, folder)
    line.plug()
    driver = instrument.Driver("bronkhorst", line.address)
    line.late_s = 1.1
    check("RTU: a late answer is an error", (seen := driver.ask("read")).startswith("ERR_TIMEOUT"), seen)
    wrong = [seen for _ in range(5) if not (seen := driver.ask("read")).startswith("47.625 48.5 200 6 0 2 ")]
    check("RTU: and is never taken for a current one", not wrong, wrong)
    line.late_s = 1.1
    before = line.n_writes
    check("RTU: a set point whose answer is late is an error", (seen := driver.ask("setpoint 20")).startswith("ERR_"), seen)
    check("RTU: then it is read as it is", driver.ask("read").startswith("47.625 "))
    check("RTU: and was sent at most once", line.n_writes - before <= 1, line.n_writes)
    line.unplug()
    start = time.monotonic()
    check("RTU: unplugged, the link is lost", (seen := driver.ask("read")).startswith("ERR_LINK"), seen)
    check("RTU: and at once", time.monotonic() - start < 0.5)
    check("RTU: no set point without a line", (seen := driver.ask("setpoint 1")).startswith("ERR_LINK"), seen)
    line.plug()
    check("RTU: plugged in again, read without help", (seen := driver.ask("read")).endswith("OK"), seen)
    other = instrument.Driver("bronkhorst", line.address)
    check("RTU: a second program on the line is refused", "in use by another program" in other.first, other.first)
    other.end()
    driver.end()
    line.unplug()


def our_driver():
    our_elpress("EL-PRESS by TCP", *serve_tcp(ELPRESS))
    for order in (list, swapped):
        our_alicat("Alicat by TCP, %s" % order.__name__, *serve_tcp(alicat(order)), order)
    with tempfile.TemporaryDirectory(prefix="isobar_", dir="/tmp") as folder:
        line = ModbusLine(ELPRESS, folder)
        line.plug()
        our_elpress("EL-PRESS by RTU", line.block, line.address)
        line.unplug()
        line = ModbusLine(alicat(list), folder)
        line.plug()
        our_alicat("Alicat by RTU", line.block, line.address, list)
        line.unplug()
        our_line(folder)


def our_server():
    port = free_port()
    server = subprocess.Popen([PEER, "serve", "bronkhorst", "tcp:127.0.0.1:%d" % port])
    try:
        wait_for_port(port)
        client, other = ModbusTcpClient("127.0.0.1", port), ModbusTcpClient("127.0.0.1", port)
        client.connect()
        other.connect()

        def read(address, n, unit=1):
            return client.read_holding_registers(address, n, slave=unit)

        seen = words_float(read(0xA100, 2).registers)
        check("pymodbus reads the measured pressure", abs(seen - 31.5) < 0.02, seen)
        check("and the full scale", (seen := words_float(read(0x8168, 2).registers)) == 200, seen)
        seen = struct.pack(">4H", *read(0x81F8, 4).registers).decode()
        check("and the unit", seen.strip() == "bar", seen)
        seen = other.read_input_registers(0x0020, 1, slave=1).registers[0]
        check("a second client reads the 16-bit value by function 4", abs(seen / 32000 * 200 - 31.5) < 0.02, seen)
        check("a set point is taken", not client.write_registers(0xA118, float_words(40.25), slave=1).isError())
        check("and read back", (seen := words_float(read(0xA118, 2).registers)) == 40.25, seen)
        check("the 16-bit set point follows", (seen := read(0x0021, 1).registers) == [6440], seen)
        check("function 6 sets the slope", not client.write_register(0x0022, 15000, slave=1).isError())
        check("slope read back", (seen := read(0x0022, 1).registers) == [15000], seen)
        for what, answer, code in (
            ("unknown address", read(0x7777, 1), 2),
            ("half a float", read(0xA100, 1), 2),
            ("write to a read-only value", client.write_registers(0xA100, float_words(1), slave=1), 2),
            ("set point above full scale", client.write_registers(0xA118, float_words(200.5), slave=1), 3),
            ("set point not a number", client.write_registers(0xA118, float_words(math.nan), slave=1), 3),
            ("slope above 30000", client.write_register(0x0022, 30001, slave=1), 3),
            ("coils", client.read_coils(0, 1, slave=1), 1),
            ("another unit", read(0xA100, 2, unit=9), 11),
        ):
            check("%s: exception %d" % (what, code), answer.isError() and answer.exception_code == code, str(answer))
        check("nothing of that was applied", (seen := words_float(read(0xA118, 2).registers)) == 40.25, seen)
        client.close()
        other.close()
    finally:
        server.send_signal(signal.SIGTERM)
    check("SIGTERM ends the server", server.wait(10) == 0)


def our_alicat_server():
    port = free_port()
    server = subprocess.Popen([PEER, "serve", "alicat", "tcp:127.0.0.1:%d" % port])
    try:
        wait_for_port(port)
        client = ModbusTcpClient("127.0.0.1", port)
        client.connect()
        block = client.read_holding_registers(1346, 9, slave=1).registers
        check("simulated Alicat: pressure in the block", abs(words_float(block[7:9]) - 31.5) < 0.02, block)
        signature = client.read_holding_registers(1087, 2, slave=1).registers
        check("simulated Alicat: signature", abs(words_float(signature) - 1.234567) < 1e-6, signature)
        check("simulated Alicat: a set point is taken", not client.write_registers(1009, float_words(40.25), slave=1).isError())
        check("simulated Alicat: and held", words_float(client.read_holding_registers(1349, 2, slave=1).registers) == 40.25)
        for pair, result in (([6, 1], 0), ([6, 9], 32770), ([99, 0], 32769)):
            client.write_registers(999, [0, 0], slave=1)
            client.write_registers(999, pair, slave=1)
            seen = client.read_holding_registers(1000, 1, slave=1).registers
            check("simulated Alicat: command %s answers %d" % (pair, result), seen == [result], seen)
        status = client.read_holding_registers(1347, 2, slave=1).registers
        check("simulated Alicat: valves held are shown", status == [0, 0x100], status)
        client.close()
    finally:
        server.send_signal(signal.SIGTERM)
    check("SIGTERM ends the Alicat", server.wait(10) == 0)


our_driver()
our_server()
our_alicat_server()
sys.exit(1 if failures else 0)
