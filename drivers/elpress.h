/*
 * Registers of a Bronkhorst EL-PRESS pressure controller on Modbus, and the packing of their values. Pure; shared by
 * the driver and by the simulated controller. The whole map is one table, one line per parameter.
 *
 * Source: Bronkhorst, "Modbus slave interface", 9.17.035, and "Operational instructions for digital instruments",
 * 9.17.023. Addresses are those on the wire (register number less one). A byte parameter is the low byte of one
 * register; a float is IEEE 754 binary32 with bits 31 to 16 in the first register; a string has two characters per
 * register. Values are packed here, because the float helpers of libmodbus differ between its versions.
 */
#ifndef DRIVERS_ELPRESS_H
#define DRIVERS_ELPRESS_H

#include <stdbool.h>
#include <stdint.h>

/* name, wire address, registers, type, writable, least, greatest (unsigned integers only) */
#define ELPRESS_LIST(X)                                                                                                \
    X(WINK, 0x0000, 1, ELPRESS_U16, true, 14592, 14592)                                                                \
    X(INIT_RESET, 0x000a, 1, ELPRESS_U8, true, 64, 82)                                                                 \
    X(VALVE_OUTPUT, 0x001f, 1, ELPRESS_U16, true, 0, 32767)                                                            \
    X(MEASURE, 0x0020, 1, ELPRESS_U16, false, 0, 65535)                                                                \
    X(SETPOINT, 0x0021, 1, ELPRESS_U16, true, 0, 32000)                                                                \
    X(SLOPE, 0x0022, 1, ELPRESS_U16, true, 0, 30000)                                                                   \
    X(CONTROL_MODE, 0x0024, 1, ELPRESS_U8, true, 0, 255)                                                               \
    X(ALARM_INFO, 0x0034, 1, ELPRESS_U8, false, 0, 255)                                                                \
    X(ALARM_MAX, 0x0c21, 1, ELPRESS_U16, true, 0, 32000)                                                               \
    X(ALARM_MIN, 0x0c22, 1, ELPRESS_U16, true, 0, 32000)                                                               \
    X(ALARM_MODE, 0x0c23, 1, ELPRESS_U8, true, 0, 3)                                                                   \
    X(ALARM_SETPOINT_MODE, 0x0c25, 1, ELPRESS_U8, true, 0, 1)                                                          \
    X(ALARM_SETPOINT, 0x0c26, 1, ELPRESS_U16, true, 0, 32000)                                                          \
    X(ALARM_DELAY, 0x0c27, 1, ELPRESS_U8, true, 0, 255)                                                                \
    X(ALARM_RESET_ENABLE, 0x0c29, 1, ELPRESS_U8, true, 0, 15)                                                          \
    X(CAPACITY, 0x8168, 2, ELPRESS_F32, false, 0, 0)                                                                   \
    X(CAPACITY_UNIT, 0x81f8, 4, ELPRESS_STRING, false, 0, 0)                                                           \
    X(FMEASURE, 0xa100, 2, ELPRESS_F32, false, 0, 0)                                                                   \
    X(FSETPOINT, 0xa118, 2, ELPRESS_F32, true, 0, 0)                                                                   \
    X(CAPACITY_ZERO, 0xa1b0, 2, ELPRESS_F32, false, 0, 0)                                                              \
    X(MODEL, 0xf110, 7, ELPRESS_STRING, false, 0, 0)                                                                   \
    X(SERIAL, 0xf118, 10, ELPRESS_STRING, false, 0, 0)

enum elpress_type { ELPRESS_U8, ELPRESS_U16, ELPRESS_F32, ELPRESS_STRING, ELPRESS_TYPE_COUNT };

enum elpress_parameter {
#define X(name, address, n_registers, type, is_writable, least, greatest) ELPRESS_##name,
    ELPRESS_LIST(X)
#undef X
        ELPRESS_PARAMETER_COUNT
};

struct elpress_register {
    const char *name;
    uint16_t address;
    int n_registers;
    enum elpress_type type;
    bool is_writable;
    uint16_t least, greatest;
};

/* The table, indexed by enum elpress_parameter, ascending in address. */
extern const struct elpress_register elpress_registers[ELPRESS_PARAMETER_COUNT];

#define ELPRESS_REGISTERS_MAX 10 /* of one parameter */

/* Values of CONTROL_MODE that matter here. */
#define ELPRESS_MODE_DIGITAL 0      /* follows the set point of the bus */
#define ELPRESS_MODE_VALVE_CLOSED 3 /* regulates nothing, valves shut */

#define ELPRESS_SLOPE_S 0.1 /* unit of SLOPE: time for a set point step of the full capacity */

void elpress_pack_float(float value, uint16_t ret_registers[2]);
float elpress_unpack_float(const uint16_t registers[2]);
/* Pads with spaces; what does not fit is cut off. */
void elpress_pack_string(const char *text, uint16_t *ret_registers, int n_registers);
/* Trailing spaces and NULs are dropped. ret_text: [2 * n_registers + 1]. */
void elpress_unpack_string(const uint16_t *registers, int n_registers, char *ret_text);

/* The SLOPE that comes next below a rate: never faster than asked, except that the device knows no rate below
 * capacity / 3000 s (greatest SLOPE). Both arguments positive. */
int elpress_slope_from_rate(double rate_bar_per_min, double capacity_bar);
/* Its inverse; slope 0 (the device steps at once) gives INFINITY. */
double elpress_rate_from_slope(int slope, double capacity_bar);

/* First parameter of a request for `n_registers` from `address` on, when that is a run of whole parameters without a
 * gap; negative otherwise (a device answers exception 2). `ret_n_parameters` is their count. */
int elpress_find_run(int address, int n_registers, int *ret_n_parameters);

#endif
