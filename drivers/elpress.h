/*
 * Registers of a Bronkhorst EL-PRESS pressure controller on Modbus, and its slope. Pure; shared by the driver and by
 * the simulated controller. The whole map is one table, one line per parameter. Floats: high word first.
 *
 * Source: Bronkhorst, "Modbus slave interface", 9.17.035, and "Operational instructions for digital instruments",
 * 9.17.023.
 */
#ifndef DRIVERS_ELPRESS_H
#define DRIVERS_ELPRESS_H

#include "drivers/registers.h"

/* name, wire address, registers, type, writable, least, greatest (unsigned integers only) */
#define ELPRESS_LIST(X)                                                                                                \
    X(WINK, 0x0000, 1, REGISTERS_U16, true, 14592, 14592)                                                              \
    X(INIT_RESET, 0x000a, 1, REGISTERS_U8, true, 64, 82)                                                               \
    X(VALVE_OUTPUT, 0x001f, 1, REGISTERS_U16, true, 0, 32767)                                                          \
    X(MEASURE, 0x0020, 1, REGISTERS_U16, false, 0, 65535)                                                              \
    X(SETPOINT, 0x0021, 1, REGISTERS_U16, true, 0, 32000)                                                              \
    X(SLOPE, 0x0022, 1, REGISTERS_U16, true, 0, 30000)                                                                 \
    X(CONTROL_MODE, 0x0024, 1, REGISTERS_U8, true, 0, 255)                                                             \
    X(ALARM_INFO, 0x0034, 1, REGISTERS_U8, false, 0, 255)                                                              \
    X(ALARM_MAX, 0x0c21, 1, REGISTERS_U16, true, 0, 32000)                                                             \
    X(ALARM_MIN, 0x0c22, 1, REGISTERS_U16, true, 0, 32000)                                                             \
    X(ALARM_MODE, 0x0c23, 1, REGISTERS_U8, true, 0, 3)                                                                 \
    X(ALARM_SETPOINT_MODE, 0x0c25, 1, REGISTERS_U8, true, 0, 1)                                                        \
    X(ALARM_SETPOINT, 0x0c26, 1, REGISTERS_U16, true, 0, 32000)                                                        \
    X(ALARM_DELAY, 0x0c27, 1, REGISTERS_U8, true, 0, 255)                                                              \
    X(ALARM_RESET_ENABLE, 0x0c29, 1, REGISTERS_U8, true, 0, 15)                                                        \
    X(CAPACITY, 0x8168, 2, REGISTERS_F32, false, 0, 0)                                                                 \
    X(CAPACITY_UNIT, 0x81f8, 4, REGISTERS_STRING, false, 0, 0)                                                         \
    X(FMEASURE, 0xa100, 2, REGISTERS_F32, false, 0, 0)                                                                 \
    X(FSETPOINT, 0xa118, 2, REGISTERS_F32, true, 0, 0)                                                                 \
    X(CAPACITY_ZERO, 0xa1b0, 2, REGISTERS_F32, false, 0, 0)                                                            \
    X(MODEL, 0xf110, 7, REGISTERS_STRING, false, 0, 0)                                                                 \
    X(SERIAL, 0xf118, 10, REGISTERS_STRING, false, 0, 0)                                                               \
    X(IO_STATUS, 0xf258, 1, REGISTERS_U8, true, 0, 255)

enum elpress_parameter {
#define X(name, address, n_registers, type, is_writable, least, greatest) ELPRESS_##name,
    ELPRESS_LIST(X)
#undef X
        ELPRESS_PARAMETER_COUNT
};

/* The table, indexed by enum elpress_parameter, ascending in address. */
extern const struct registers_entry elpress_registers[ELPRESS_PARAMETER_COUNT];

/* Values of CONTROL_MODE that matter here. */
#define ELPRESS_MODE_DIGITAL 0      /* follows the set point of the bus */
#define ELPRESS_MODE_VALVE_CLOSED 3 /* regulates nothing, valves shut */

#define ELPRESS_IO_ANALOG 0x40 /* of IO_STATUS: after a power cut it follows the analog input */

#define ELPRESS_SLOPE_S 0.1 /* unit of SLOPE: time for a set point step of the full capacity */

/* The SLOPE that comes next below a rate: never faster than asked, except that the device knows no rate below
 * capacity / 3000 s (greatest SLOPE). Both arguments positive. */
int elpress_slope_from_rate(double rate_bar_per_min, double capacity_bar);
/* Its inverse; slope 0 (the device steps at once) gives INFINITY. */
double elpress_rate_from_slope(int slope, double capacity_bar);

#endif
