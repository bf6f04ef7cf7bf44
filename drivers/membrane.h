/*
 * The gas membrane's pressure controller: Bronkhorst EL-PRESS over Modbus TCP (map in drivers/elpress.h).
 *
 * One handle, one connection, one thread. Every call is one or a few request and answer pairs, each bounded by 1 s of
 * wall time. After any failure the connection is closed, because a late answer must never be taken for a current one;
 * the next call connects and checks the device again from the start. Nothing is retried here and nothing is written
 * that the caller did not ask for. The driver never vents, never changes the control mode and never clears an alarm.
 */
#ifndef DRIVERS_MEMBRANE_H
#define DRIVERS_MEMBRANE_H

#include "base/err.h"

struct membrane;

struct membrane_reading {
    double membrane_bar;          /* measured */
    double membrane_bar_setpoint; /* as the device holds it */
    double capacity_bar;          /* full scale */
    double slew_bar_per_min;      /* set point slope as programmed; INFINITY: it steps at once */
    int control_mode;             /* 0: follows the bus; anything else: somebody else is in command */
    unsigned alarm;               /* alarm info bits; bit 0 error, 1 warning, 2 below minimum, 3 above maximum */
};

/* Connects to "tcp:HOST:PORT" and checks what it finds: unit bar, full scale between 1 and 1000 bar from zero, control
 * mode digital, alarm set point off (the device would move the cell by itself). Free with membrane_close.
 * Errors: ERR_ARG (address), ERR_LINK, ERR_TIMEOUT, ERR_PROTOCOL, ERR_REFUSED (an exception answer), ERR_DATA (not the
 * device we can drive), ERR_STATE (a setting that a person has to change: the sentence says which). */
int membrane_open(struct membrane **ret_membrane, const char *address, int unit_id, struct err *err);

/* Reads all of it, the unit and the full scale included. Errors: as above; ERR_DATA for a value that is not finite or
 * beyond what the device can measure. */
int membrane_read(struct membrane *membrane, struct membrane_reading *ret_reading, struct err *err);

/* Writes the set point and reads it back. Errors: as above; ERR_LIMIT (not a number, negative, above full scale:
 * nothing was written), ERR_STATE (the controller is not in digital mode: nothing was written), ERR_REFUSED (the device
 * holds another value). */
int membrane_write_setpoint(struct membrane *membrane, double membrane_bar, struct err *err);

/* Programs the device's own slew limit at the nearest rate not above `slew_bar_per_min`, but never slower than its
 * slowest, full scale in 3000 s (4 bar/min of 200 bar): the next reading tells what it is. Errors: as above. */
int membrane_write_slew(struct membrane *membrane, double slew_bar_per_min, struct err *err);

void membrane_close(struct membrane *membrane); /* NULL is fine */

#endif
