/*
 * The simulated spectrometer: the classic Ocean Optics serial set over TCP or on a serial line. A sensor of 3648
 * pixels, 0.03 nm each, 646 to 753 nm.
 *
 * Serves until SIGTERM or SIGINT. Every `S` starts a new exposure, which lasts on the experiment clock; the scan shows
 * the world as it is at the end of the exposure. Settings stay through connections, as those of an instrument behind a
 * serial server do. Commands are parsed here by themselves; scans are packed with drivers/ocean (tests/
 * wire_spectrometer.py packs them by itself).
 *
 * On a serial line the instrument starts at 9600 baud. What is said at another rate than its own is noise, both ways.
 * `K` takes three steps: ACK; deaf for 50 ms, while its receiver is set anew; the same command at the new rate, ACKed
 * there. Any other command then, or none within a second (a guess: the manuals do not say), and it falls back to the
 * rate of before. Bytes come as fast as the pseudo-terminal lets them.
 *
 * Binary mode, and ASCII mode but for scans (NAK): there each byte is echoed, and each value is text with a line end.
 */
#ifndef SIM_SPECTROMETER_SERVER_H
#define SIM_SPECTROMETER_SERVER_H

#include "base/clock.h"
#include "base/err.h"
#include "drivers/ocean.h"
#include "sim/world.h"

/* `address`: "tcp:127.0.0.1:PORT" or "serial:PATH:BAUD" (sim/wire.h); anything but a loopback address is refused.
 * `table`: by which codes it calls its baud rates. Returns 0 when told to end.
 * Errors: ERR_ARG (address), ERR_SYSTEM (port in use, no descriptors). */
int spectrometer_server_run(struct world *world, struct clock *clock, const char *address, enum ocean_baud_table table,
                            struct err *err);

#endif
