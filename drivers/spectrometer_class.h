/*
 * What a kind of spectrometer provides to drivers/spectrometer. A device is an open connection: any failure ends it
 * (drivers/spectrometer closes it). Spectra come as they were read; drivers/spectrometer judges them.
 */
#ifndef DRIVERS_SPECTROMETER_CLASS_H
#define DRIVERS_SPECTROMETER_CLASS_H

#include "drivers/spectrometer.h"

#define SPECTROMETER_PIXELS_MIN 16 /* in the window: fewer cannot hold the doublet */

struct spectrometer_class {
    const char *driver;
    /* ret_terms is all zero before. */
    int (*open)(void **ret_device, const struct spectrometer_settings *settings, struct spectrometer_terms *ret_terms,
                struct err *err);
    /* The spectrum of a signal that was asked for now, cut to the window: how an earlier one is told from it is the
     * class's own matter. */
    int (*acquire)(void *device, double exposure_s, struct spectrum *ret_spectrum, struct err *err);
    void (*close)(void *device);
};

extern const struct spectrometer_class spectrometer_ocean_class;
extern const struct spectrometer_class spectrometer_epics_class;

#endif
