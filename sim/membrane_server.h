/*
 * The simulated membrane controllers that speak Modbus, in front of the world, unit 1: an EL-PRESS of 200 bar
 * ("bronkhorst"), or an Alicat PCD of 200 bar ("alicat"). By TCP with several clients, or RTU on a pseudo-terminal
 * (sim/wire.h). It frames its answers itself; of the driver it shares the register maps only.
 *
 * Measured pressure is the world's plus 2 mbar of noise; set point and slope go to the world. A request that is not for
 * whole entries of the map is answered by exception 2, a value out of range by 3, another function by 1. Another unit
 * is answered by 11, as a gateway does, and on a serial line not at all. The EL-PRESS keeps what is written to its
 * settings.
 */
#ifndef SIM_MEMBRANE_SERVER_H
#define SIM_MEMBRANE_SERVER_H

#include "base/err.h"
#include "sim/world.h"

/* Until told to end. Errors: as wire_run, and ERR_ARG (model). */
int membrane_server_run(struct world *world, const char *model, const char *address, struct err *err);

#endif
