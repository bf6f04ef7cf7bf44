/*
 * The gas membrane's pressure controller, whichever it is:
 *
 *   driver        instrument                       wire                                     map or commands
 *   "bronkhorst"  Bronkhorst EL-PRESS              Modbus TCP, or RTU on a serial line 8E1  drivers/elpress.h
 *   "alicat"      Alicat PC and PCD                Modbus TCP, or RTU on a serial line 8N1  drivers/alicat.h
 *   "pace"        Druck PACE5000 and PACE6000      SCPI by TCP (port 5025) or serial 8N1    drivers/pace.h
 *
 * One handle, one connection, one thread. Every call is a few request and answer pairs, each bounded by `answer_ms` of
 * wall time. After any failure the connection is closed, because a late answer must never be taken for a current one;
 * the next call connects and checks the device again from the start. Nothing is retried here, no set point is sent
 * twice, and nothing is written that the caller did not ask for. The driver never vents, never opens valves, never
 * takes control that a person has given to the front panel, and never clears an alarm.
 */
#ifndef DRIVERS_MEMBRANE_H
#define DRIVERS_MEMBRANE_H

#include <stdbool.h>

#include "base/err.h"

struct membrane;

/* What the beamline file says of it, and what the cell needs of it. */
struct membrane_settings {
    const char *driver;
    const char *address;         /* "tcp:HOST:PORT" or "serial:PATH:BAUD" */
    int unit_id;                 /* Modbus only */
    double full_scale_bar;       /* of a device that cannot be asked (alicat) */
    double membrane_bar_max;     /* the device must reach it; 0: not asked for */
    double slew_bar_per_min_max; /* the device's slowest slew must not be above it; 0: not asked for */
    int answer_ms;               /* longest wait for one answer; 0: 1000 (0.5 s loses one answer in 200) */
};

struct membrane_reading {
    double membrane_bar;          /* measured */
    double membrane_bar_setpoint; /* as the device holds it */
    double capacity_bar;          /* full scale */
    double slew_bar_per_min;      /* as programmed; INFINITY: it steps at once */
    double supply_bar;            /* gas before the valves; NaN: the device has no gauge for it */
    bool is_following;            /* it regulates to the set point that was sent; false: closed, or somebody else's */
    int control_mode;             /* as the device says it (bronkhorst, pace: output; alicat: status bits 8 up) */
    unsigned alarm;               /* the device's own alarm bits */
};

/* Connects and checks what it finds: that it is this kind of device, that it works in bar, that its full scale reaches
 * `membrane_bar_max`, that its slowest slew is slow enough, and that it would not move by itself (alarm set point,
 * analog input, front panel). Free with membrane_close.
 * Errors: ERR_ARG (settings), ERR_LINK, ERR_TIMEOUT, ERR_PROTOCOL, ERR_REFUSED (the device said no), ERR_DATA (not a
 * device we can drive, or a value it cannot have), ERR_STATE (a setting that a person has to change: the sentence says
 * which). */
int membrane_open(struct membrane **ret_membrane, const struct membrane_settings *settings, struct err *err);

/* Reads all of it, the unit and the full scale included. Errors: as above; ERR_DATA for a value that is not finite or
 * beyond what the device can measure. */
int membrane_read(struct membrane *membrane, struct membrane_reading *ret_reading, struct err *err);

/* Writes the set point, once, and reads it back. Errors: as above; ERR_LIMIT (not a number, negative, above full scale,
 * above the supply: nothing was written, the connection stands), ERR_STATE (the device does not follow the bus, would
 * jump, or holds another set point than was last read or written: nothing was written), ERR_REFUSED (the device holds
 * another value). */
int membrane_write_setpoint(struct membrane *membrane, double membrane_bar, struct err *err);

/* Programs the device's own slew limit at the nearest rate not above `slew_bar_per_min`, but never slower than its
 * slowest (EL-PRESS: full scale in 3000 s, 4 bar/min of 200 bar): the next reading tells what it is. An Alicat's ramp
 * cannot be reached by Modbus: there it steps at once, and its readings say so. Errors: as above. */
int membrane_write_slew(struct membrane *membrane, double slew_bar_per_min, struct err *err);

/* Shuts the valves, so that the gas stays where it is; then the set point is put to what was measured, so that nothing
 * jumps when a person opens them again. Errors: as above. */
int membrane_shut(struct membrane *membrane, struct err *err);

void membrane_close(struct membrane *membrane); /* NULL is fine */

#endif
