/*
 * The simulated EIGER2 behind its parameters: arms, exposes, writes files, disarms, as ADEiger does with a real one.
 *
 *      idle --Acquire=1--> arming --> armed, exposing --> processing files --> idle ("Ready")
 *        ^                   |              |                   ^  |
 *        |                 fail           Acquire=0 ------------'  '--> aborted ("Acquisition aborted")
 *        '---- Error <-------'
 *
 * On Acquire=0 the parameters say Aborted at once, while the series is still being disarmed and its files closed; an
 * Acquire=1 in that window is swallowed by the end of the old series (Acquire falls to 0) and yet starts a new one.
 * That is what the real driver does, and clients must wait for "Acquisition aborted".
 *
 * Times are experiment time. Frame k of a trigger starts at the trigger + k AcquirePeriod; its photons come from the
 * world's internal time at its middle, with a flux proportional to the ring current. While it exposes, the detector
 * asks the clock for the pace it sustains, so that frames stay within about 1 s of experiment time behind the clock.
 *
 * Never: simulates external triggers' pulses (an external series waits until it is stopped), or LZ4-only compression.
 */
#ifndef SIM_DETECTOR_H
#define SIM_DETECTOR_H

#include "base/clock.h"
#include "base/err.h"
#include "sim/parameter.h"
#include "sim/world.h"

struct detector;

struct detector_settings {
    int width, height;        /* pixels */
    double photons_per_pixel; /* mean per frame at ring_current_ma_nominal */
    double amplitude;         /* of the dynamic speckle (sim/speckle.h) */
    double ring_current_ma_nominal;
};

/* Starts the threads of the detector. table, world and clock must outlive it. Errors: ERR_ARG (settings).
 * End it with detector_stop, which aborts a running series and closes its files. */
int detector_start(struct detector **ret_detector, struct parameter_table *table, struct world *world,
                   struct clock *clock, const struct detector_settings *settings, struct err *err);
void detector_stop(struct detector *detector);

/* A client's write, as it arrives from the port thread: takes the time the detector's interface takes, clamps, and
 * couples (AcquirePeriod and AcquireTime, PhotonEnergy and ThresholdEnergy). Errors: ERR_ARG (not a choice the detector
 * has; the parameter keeps its value). */
int detector_write(struct detector *detector, enum parameter parameter, double number, const char *text);

#endif
