/*
 * An Eiger2 behind areaDetector's ADEiger, by Channel Access: one scan is
 *
 *     eiger_wait_ready -> eiger_configure -> eiger_start -> eiger_poll ... is_done -> eiger_finish
 *                                                 '-> eiger_abort -> (from the beginning)
 *
 * Bounded blocking calls for one instrument thread; all timeouts are wall time. States are judged by level, never by
 * edge, because the status records of an IOC arrive in no particular order and late. A put-callback that completes says
 * nothing about success: success is DetectorState Idle, a SequenceId that has changed, NumImagesCounter equal to the
 * request, and the files. An IOC that went away between configure and finish has lost its settings: the scan has
 * failed (ERR_LINK), and the caller begins again with eiger_wait_ready.
 *
 * Never: resumes or repeats a scan, opens a data file, deletes anything. The files' directory must be visible under the
 * same name here and on the IOC's host.
 * Sources: ADEiger and ADCore databases and eigerDetector.cpp; DECTRIS SIMPLON API 1.8.
 */
#ifndef DRIVERS_EIGER_H
#define DRIVERS_EIGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "drivers/epics.h"

#define EIGER_PATH_MAX 512

struct eiger;

struct eiger_scan {
    char file_path[200]; /* existing directory, on the IOC's host and here */
    char name[100];      /* unique: files are <name>_<sequence id>_master.h5 and so on; must not exist yet */
    int32_t n_frames;
    int32_t n_frames_per_file; /* > 0; progress is told file by file */
    double frame_time_s;
    double count_time_s; /* 0: frame time - 0.1 ms */
    double photon_energy_ev;
    double beam_center_x_px, beam_center_y_px;
    double distance_m;
};

struct eiger_progress {
    bool is_connected; /* every channel, without interruption since eiger_configure */
    bool is_acquiring;
    bool is_done;        /* the series has ended, well or badly: call eiger_finish */
    int32_t n_images;    /* in files the IOC has fetched */
    int32_t sequence_id; /* 0 until armed */
    char detector_state[40];
    char status_message[EPICS_TEXT_MAX];
    char master_path[EIGER_PATH_MAX]; /* "" until armed */
};

/* Opens the channels; does not wait for them. `prefix` as "ISB:cam1:". Errors: those of epics_channel_open. */
int eiger_open(struct eiger **ret_eiger, struct epics *epics, const char *prefix, struct err *err);
void eiger_close(struct eiger *eiger);

/* Waits until the detector can take a scan: Acquire and AcquireBusy Done, no series being wound up, high voltage READY.
 * Errors: ERR_LINK (channels missing), ERR_TIMEOUT (err tells the state it is stuck in). */
int eiger_wait_ready(struct eiger *eiger, double timeout_s, struct err *err);

/* Writes all settings in the order the detector needs, reads all back and compares; nothing is taken over silently
 * changed. Errors: ERR_ARG (scan out of its domain), ERR_REFUSED (a setting was clamped or not taken, the directory
 * does not exist, or files of that name exist), ERR_LINK, ERR_TIMEOUT. */
int eiger_configure(struct eiger *eiger, const struct eiger_scan *scan, struct err *err);

/* Starts the configured scan and waits until it is armed (up to 120 s). Errors: ERR_STATE (not configured),
 * ERR_REFUSED (err has the detector's own message), ERR_LINK, ERR_TIMEOUT (then call eiger_abort). */
int eiger_start(struct eiger *eiger, struct err *err);

/* How the scan stands; never blocks, never fails. */
void eiger_poll(struct eiger *eiger, struct eiger_progress *ret_progress);

/* After is_done: verifies the scan, waiting up to 10 s for late states and files. Errors: ERR_STATE (not done),
 * ERR_LINK, ERR_DATA (aborted, ended in error, images or files missing: err tells). */
int eiger_finish(struct eiger *eiger, char ret_master_path[EIGER_PATH_MAX], struct err *err);

/* Stops a running series and waits up to 30 s until it is wound up; nothing to do is success. Errors: ERR_LINK,
 * ERR_TIMEOUT. */
int eiger_abort(struct eiger *eiger, struct err *err);

#endif
