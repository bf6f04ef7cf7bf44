/*
 * The EPICS IOC of the simulated detector, the ring current, the ruby's stand, a spectrograph and the
 * cell's thermometer: real records and a real Channel Access server, in this process.
 *
 * Device support on EPICS base: every parameter of sim/parameter.h has its records; inputs are scanned by I/O Intr when
 * the detector changes them; a put to an output is queued to one port thread, which passes it to the detector and then
 * completes the record, so that a put-callback takes as long as the detector does. Acquire is a bo whose forward link
 * (SetAcquireBusy, a calcout) sets AcquireBusy, an asynchronous bo that completes when the series is over: that is what
 * a put-callback to Acquire waits for. Structure and traps follow ADCore and ADEiger.
 *
 * The server listens on the loopback interface only. An IOC can run once in the life of a process: EPICS base cannot be
 * taken down again. After ioc_run the caller should end the process.
 */
#ifndef SIM_IOC_H
#define SIM_IOC_H

#include "base/clock.h"
#include "base/err.h"
#include "sim/world.h"

struct ioc_settings {
    char prefix[32];                /* of the detector's records */
    char ring_pv[64];               /* name of the ring current */
    char ruby_prefix[32];           /* of the records of the ruby's stand (sim/ruby_stand.h) */
    char spectrum_prefix[32];       /* of the spectrograph's records (sim/spectrograph.h) */
    char temperature_pv[64];        /* name of the cell's temperature, K */
    int port;                       /* Channel Access, TCP and UDP */
    int width, height;              /* image, pixels */
    double photons_per_pixel;       /* mean per frame at ring_current_ma_nominal */
    double amplitude;               /* of the dynamic speckle (sim/speckle.h) */
    double ring_current_ma_nominal; /* the ring's current right after top-up */
};

/* "ISB:cam1:", "ISB:RING:Current", "ISB:RUBY:", "ISB:SPEC:", "ISB:CELL:Temperature", 256 x 256 pixels, 0.02 photons,
 * amplitude 0.3 (contrast 0.079), 200 mA; no port. */
void ioc_settings_default(struct ioc_settings *ret_settings);

/* Serves until SIGTERM or SIGINT, then ends a running series and returns 0. Call it before other threads exist: it
 * blocks the two signals for all threads it starts. Errors: ERR_ARG, ERR_SYSTEM (the server does not start; is the port
 * free?). */
int ioc_run(struct world *world, struct clock *clock, const struct ioc_settings *settings, struct err *err);

#endif
