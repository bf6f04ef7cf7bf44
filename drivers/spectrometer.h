/*
 * The spectrometer that sees the ruby, whichever it is:
 *
 *   driver             instrument                                  wire
 *   "ocean-optics"     Ocean Optics' classic set (drivers/ocean.h)  RS-232, or TCP through a serial server
 *   "epics-waveforms"  any that an IOC shows as two waveforms       Channel Access
 *
 * One handle, one connection, one thread. Every wait is bounded in wall time. After any failure the connection is
 * closed, so that no late, torn or repeated spectrum is taken for a current one; the next call connects and checks
 * again from the start. Nothing is retried here.
 *
 * On RS-232 the rate of the address is the one that is wanted: the instrument is looked for there and at 9600 baud,
 * where it is after power-up, and is told to change if need be. When it does not, it is used at 9600 baud, and
 * spectrometer_terms says so. Behind a serial server the rate is a matter of the server, and is left alone.
 */
#ifndef DRIVERS_SPECTROMETER_H
#define DRIVERS_SPECTROMETER_H

#include "base/err.h"
#include "drivers/epics.h"

#define SPECTRUM_MAX 4096

struct spectrum {
    int n;
    double wavelength_nm[SPECTRUM_MAX]; /* ascending */
    double counts[SPECTRUM_MAX];
    double exposure_s;        /* as it was */
    double counts_saturation; /* greatest count the wire can carry; the sensor may clip before */
};

/* What the beamline file says of it. The texts must live as long as the handle. */
struct spectrometer_settings {
    const char *driver;
    double wavelength_nm_min, wavelength_nm_max; /* the pixels of interest */
    int answer_ms; /* longest wait for one answer; for a spectrum, twice that beyond the exposure; 0: 1000 */
    /* ocean-optics */
    const char *address; /* "tcp:HOST:PORT" or "serial:PATH:BAUD" */
    /* epics-waveforms */
    struct epics *epics;
    const char *wavelength_pv, *counts_pv; /* waveforms of one length: nm, ascending; counts */
    const char *exposure_pv;               /* s, told and read back */
    const char *acquire_pv;                /* told 1: take one spectrum */
    const char *busy_pv;                   /* not 0 while one is being taken */
    double counts_saturation;              /* which the wire does not tell */
};

struct spectrometer;

/* Connects, and sets the instrument up for single spectra of the window. Free with spectrometer_close.
 * Errors: ERR_ARG (settings), ERR_LINK, ERR_TIMEOUT, ERR_PROTOCOL (not such a spectrometer), ERR_REFUSED (it said no),
 * ERR_DATA (a calibration that is not usable, window not on its sensor), ERR_STATE (somebody else uses it). */
int spectrometer_open(struct spectrometer **ret_spectrometer, const struct spectrometer_settings *settings,
                      struct err *err);

/* Connects again if the link is down; a spectrum is compared with the one before the loss, too. Errors: as above. */
int spectrometer_connect(struct spectrometer *spectrometer, struct err *err);

/* Takes one new spectrum, whose light is later than the call; waits for the exposure (of experiment time, which never
 * runs slower than wall time) and a margin. The exposure may be up to 2 ms longer than asked for: ret_spectrum tells.
 * Errors: as above; ERR_ARG (exposure not within 0.001 to 65 s), ERR_DATA (checksum; wavelengths that do not ascend;
 * counts that are none, or more than it can count; the spectrum of before once more). */
int spectrometer_acquire(struct spectrometer *spectrometer, double exposure_s, struct spectrum *ret_spectrum,
                         struct err *err);

#define SPECTROMETER_NOTE_MAX 200

/* On what terms it was found. */
struct spectrometer_terms {
    int baud_found, baud;             /* where it answered, and where it is spoken to since; 0: not on RS-232 */
    char note[SPECTROMETER_NOTE_MAX]; /* what is not as it was asked for but can be lived with, as a sentence; "" when
                                         there is nothing */
};

/* Of the connection that stands, or stood last; valid until the next one. */
const struct spectrometer_terms *spectrometer_terms(const struct spectrometer *spectrometer);

void spectrometer_close(struct spectrometer *spectrometer); /* NULL is fine */

#endif
