/*
 * A spectrograph as an IOC shows it: two waveforms (wavelength in nm, counts), the exposure, Acquire, and Busy. The
 * same light as sim/spectrometer_server, from the same plant through sim/spectrum, on a sensor of the same size.
 *
 * Acquire told 1: Busy rises, the exposure lasts on the experiment clock, the counts are renewed, Busy falls. What can
 * be wrong with it (sim/world.h), each time as often as stated there:
 *
 *   off           Acquire does nothing
 *   stuck         the counts of the first such spectrum, for as long as it lasts
 *   garbage       in turn: counts that are none, wavelengths that descend, counts that are too few
 *   wrong         the counts of the spectrum before, once more
 *   slow          Busy lasts the stated time longer
 *   delayed       Busy falls, and the counts come the stated time later
 *   intermittent  in three of ten the counts do not come; every third of these turns their record INVALID
 */
#ifndef SIM_SPECTROGRAPH_H
#define SIM_SPECTROGRAPH_H

#include "base/clock.h"
#include "sim/parameter.h"
#include "sim/world.h"

#define SPECTROGRAPH_PIXELS 3648

struct spectrograph;

/* Starts its thread. End it with spectrograph_stop. */
struct spectrograph *spectrograph_start(struct parameter_table *table, struct world *world, struct clock *clock);
void spectrograph_stop(struct spectrograph *spectrograph);

/* A client's write, from the port thread. Returns false when the parameter is not the spectrograph's; *ret_is_refused:
 * an exposure that is not within 0.001 to 60 s. */
bool spectrograph_write(struct spectrograph *spectrograph, enum parameter parameter, double number,
                        bool *ret_is_refused);

/* The values of PARAMETER_SPECTRUM_WAVELENGTH or _COUNTS. ret_values: [n_max]. Returns their count; -1: not known. */
int spectrograph_read(struct spectrograph *spectrograph, enum parameter parameter, double *ret_values, int n_max);

#endif
