/*
 * The simulated spectrometer: the classic Ocean Optics serial set, binary mode, over TCP. A sensor of 3648 pixels,
 * 0.03 nm each, 646 to 753 nm.
 *
 * Serves one client at a time until SIGTERM or SIGINT. Every `S` starts a new exposure, which lasts on the experiment
 * clock; the frame shows the world as it is at the end of the exposure.
 */
#ifndef SIM_SPECTROMETER_SERVER_H
#define SIM_SPECTROMETER_SERVER_H

#include "base/clock.h"
#include "base/err.h"
#include "sim/world.h"

/* `address`: "tcp:127.0.0.1:PORT"; anything but a loopback address is refused. Returns 0 when told to end.
 * Errors: ERR_ARG (address), ERR_SYSTEM (port in use, no descriptors). */
int spectrometer_server_run(struct world *world, struct clock *clock, const char *address, struct err *err);

#endif
