/*
 * Registers of an Alicat PC or PCD pressure controller on Modbus. Pure. The whole map is one table, one line per
 * quantity.
 *
 * Source: Alicat, "Standard Devices" manual of January 2023, pages 34 and 35; registers are printed there by numbers
 * that are one more than these addresses. Floats are IEEE 754, high word first in every firmware known; SIGNATURE
 * always reads 1.234567 (firmware 10v19 and later), and tells. The map holds neither unit, nor full scale, nor ramp,
 * nor the communication watchdog: the beamline file states the full scale, and that the watchdog is off.
 */
#ifndef DRIVERS_ALICAT_H
#define DRIVERS_ALICAT_H

#include "drivers/registers.h"

/* name, wire address, registers, type, writable, least, greatest (unsigned integers only) */
#define ALICAT_LIST(X)                                                                                                 \
    X(COMMAND_ID, 999, 1, REGISTERS_U16, true, 0, 65535)                                                               \
    X(COMMAND_ARGUMENT, 1000, 1, REGISTERS_U16, true, 0, 65535)                                                        \
    X(SETPOINT, 1009, 2, REGISTERS_F32, true, 0, 0)                                                                    \
    X(SIGNATURE, 1087, 2, REGISTERS_F32, false, 0, 0)                                                                  \
    X(GAS, 1346, 1, REGISTERS_U16, false, 0, 65535)                                                                    \
    X(STATUS, 1347, 2, REGISTERS_U32, false, 0, 0)                                                                     \
    X(SETPOINT_HELD, 1349, 2, REGISTERS_F32, false, 0, 0)                                                              \
    X(VALVE_DRIVE, 1351, 2, REGISTERS_F32, false, 0, 0)                                                                \
    X(PRESSURE, 1353, 2, REGISTERS_F32, false, 0, 0)

enum alicat_parameter {
#define X(name, address, n_registers, type, is_writable, least, greatest) ALICAT_##name,
    ALICAT_LIST(X)
#undef X
        ALICAT_PARAMETER_COUNT
};

/* The table, indexed by enum alicat_parameter, ascending in address. */
extern const struct registers_entry alicat_registers[ALICAT_PARAMETER_COUNT];

#define ALICAT_SIGNATURE_VALUE 1.234567f

/* Bits of STATUS. Bits 10 to 12 mean exhausting, above the limit or aborted, depending on the firmware: whichever it
 * is, the device does not follow its set point. */
#define ALICAT_STATUS_OVER_RANGE 0x0040u
#define ALICAT_STATUS_HELD 0x0100u /* valves held, loop open */
#define ALICAT_STATUS_ASTRAY 0x1f00u

/* Of the pair COMMAND_ID, COMMAND_ARGUMENT, on which the device acts when it changes; the argument then reads the
 * result. */
#define ALICAT_COMMAND_VALVE 6
#define ALICAT_VALVE_REGULATE 0
#define ALICAT_VALVE_CLOSED 1
#define ALICAT_RESULT_OK 0
#define ALICAT_RESULT_BAD_ID 32769
#define ALICAT_RESULT_BAD_ARGUMENT 32770

/* Finds the order in which SIGNATURE reads 1.234567. False when it does in neither. */
bool alicat_find_order(const uint16_t signature[2], enum registers_order *ret_order);

#endif
