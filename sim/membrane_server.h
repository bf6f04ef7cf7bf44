/*
 * The simulated membrane controller: an EL-PRESS of 200 bar on Modbus TCP, unit 1, in front of the world.
 *
 * Serves several clients, one request at a time, until SIGTERM or SIGINT. Measured pressure is the world's plus 2 mbar
 * of noise; set point and slope go to the world. A request that is not for whole parameters of the map is answered by
 * exception 2, a value out of range by 3, another function by 1, another unit by 11, as a gateway does.
 */
#ifndef SIM_MEMBRANE_SERVER_H
#define SIM_MEMBRANE_SERVER_H

#include "base/clock.h"
#include "base/err.h"
#include "sim/world.h"

/* `address`: "tcp:127.0.0.1:PORT"; anything but a loopback address is refused. Returns 0 when told to end.
 * Errors: ERR_ARG (address), ERR_SYSTEM (port in use, no descriptors). */
int membrane_server_run(struct world *world, struct clock *clock, const char *address, struct err *err);

#endif
