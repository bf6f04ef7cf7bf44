#!/usr/bin/python3
"""Goal: our Modbus agrees with somebody else's, on both ends of the wire.

Method: pymodbus serves as the device to our driver (build/release/tests/test_membrane drive), and as the client of our
simulated controller (test_membrane serve). Floats are packed here with struct, never with our codec.
"""
import asyncio
import logging
import math
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types

# Debian's pymodbus imports these for serial lines, which are not used here, but only recommends their packages.
for name in ("serial", "serial_asyncio"):
    sys.modules[name] = types.SimpleNamespace(create_serial_connection=None)

from pymodbus.client import ModbusTcpClient
from pymodbus.datastore import ModbusServerContext, ModbusSlaveContext, ModbusSparseDataBlock
from pymodbus.server.async_io import ModbusTcpServer

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
PEER = sys.argv[1] + "/tests/test_membrane"
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


def device(port):
    """A pymodbus server that looks like an EL-PRESS; returns its registers, which may be changed while it runs."""
    registers = {}
    for address, words in (
        (0x0022, [20000]), (0x0024, [0]), (0x0034, [2]), (0x0C25, [0]), (0x8168, float_words(200)),
        (0xA1B0, float_words(0)), (0x81F8, text_words("bar", 4)), (0xA100, float_words(47.625)),
        (0xA118, float_words(48.5)), (0xF258, [0]),
    ):
        registers.update({address + i: word for i, word in enumerate(words)})
    block = ModbusSparseDataBlock(registers)
    context = ModbusServerContext(slaves={1: ModbusSlaveContext(hr=block, zero_mode=True)}, single=False)

    async def serve():
        await ModbusTcpServer(context, address=("127.0.0.1", port)).serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    wait_for_port(port)
    return block


def our_driver():
    port = free_port()
    block = device(port)
    driver = subprocess.Popen([PEER, "drive", "bronkhorst", "tcp:127.0.0.1:%d" % port], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True)

    def ask(line=None):
        if line:
            driver.stdin.write(line + "\n")
            driver.stdin.flush()
        return driver.stdout.readline().strip()

    check("our driver accepts pymodbus as the device", (seen := ask()) == "OK", seen)
    check("our driver reads every value of it", (seen := ask("read")) == "47.625 48.5 200 6 0 2 nan 1 OK", seen)
    check("our driver writes a set point", (seen := ask("setpoint 12.345")) == "OK", seen)
    check("12.345 arrives as 4145 851f", (seen := block.getValues(0xA118, 2)) == [0x4145, 0x851F], seen)
    check("our driver writes a slew", (seen := ask("slew 12")) == "OK", seen)
    check("12 bar/min of 200 bar arrive as 10000", (seen := block.getValues(0x0022, 1)) == [10000], seen)
    check("a set point above full scale is refused", (seen := ask("setpoint 201")).startswith("ERR_LIMIT"), seen)
    block.setValues(0xA100, float_words(math.nan))
    check("not a number is refused", (seen := ask("read")).startswith("ERR_DATA"), seen)
    block.setValues(0xA100, float_words(3.5))
    check("and the next reading is good again", (seen := ask("read")).startswith("3.5 "), seen)
    block.setValues(0x81F8, text_words("psi", 4))
    check("another unit is refused", 'works in "psi"' in (seen := ask("read")), seen)
    driver.stdin.close()
    check("the driver ends by itself", driver.wait(10) == 0)


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


our_driver()
our_server()
sys.exit(1 if failures else 0)
