/*
 * A spectrometer that speaks the classic Ocean Optics serial set (drivers/ocean.h), over TCP or a serial line.
 *
 * One handle, one connection, one thread. Wavelengths are computed from the coefficients that the instrument itself
 * holds, read anew on every connection. Every wait is bounded in wall time. After any failure the connection is closed,
 * so that no late or torn scan is taken for a current one; the next call connects and synchronises again.
 */
#ifndef DRIVERS_SPECTROMETER_H
#define DRIVERS_SPECTROMETER_H

#include "base/err.h"

#define SPECTRUM_MAX 4096

struct spectrum {
    int n;
    double wavelength_nm[SPECTRUM_MAX]; /* ascending */
    double counts[SPECTRUM_MAX];
    double exposure_s;        /* in steps of 1 ms */
    double counts_saturation; /* greatest count the wire can carry; the sensor may clip before */
};

struct spectrometer;

/* Connects, sets binary mode, checksums, no averaging, and the pixels from wavelength_nm_min to wavelength_nm_max.
 * Errors: ERR_ARG (address, window), ERR_LINK, ERR_TIMEOUT, ERR_PROTOCOL (not such a spectrometer), ERR_REFUSED (NAK),
 * ERR_DATA (coefficients not usable, window not on its sensor). Free with spectrometer_close. */
int spectrometer_open(struct spectrometer **ret_spectrometer, const char *address, double wavelength_nm_min,
                      double wavelength_nm_max, struct err *err);

/* Takes one new spectrum; waits for the exposure (of experiment time, which never runs slower than wall time) and a
 * margin of 2 s. Errors: as above; ERR_ARG (exposure not within 0.001 to 65 s), ERR_DATA (checksum). */
int spectrometer_acquire(struct spectrometer *spectrometer, double exposure_s, struct spectrum *ret_spectrum,
                         struct err *err);

void spectrometer_close(struct spectrometer *spectrometer); /* NULL is fine */

#endif
