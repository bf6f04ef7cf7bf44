/*
 * The simulated PACE5000: 210 bar, SCPI by TCP or on a pseudo-terminal (sim/wire.h), in front of the world. Its parser
 * is its own; it shares no code with the driver. Headers are taken in short and long form, answered as they were asked.
 *
 * It has a front panel in so far as its unit, slew mode and output can be set by any client. Measured pressure is the
 * world's plus 1 mbar of noise; supply, set point and slew are the world's.
 */
#ifndef SIM_PACE_SERVER_H
#define SIM_PACE_SERVER_H

#include "base/err.h"
#include "sim/world.h"

/* Until told to end. Errors: as wire_run. */
int pace_server_run(struct world *world, const char *address, struct err *err);

#endif
