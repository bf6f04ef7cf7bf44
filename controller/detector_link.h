/* The detector's thread: watches the IOC and the ring current, takes one scan at a time when asked: configure, arm,
 * watch, verify the files. A scan that fails for any reason is reported as failed, never glued or resumed. */
#ifndef CONTROLLER_DETECTOR_LINK_H
#define CONTROLLER_DETECTOR_LINK_H

#include "controller/instrument.h"
#include "drivers/epics.h"
#include "sequences/beamline.h"

struct detector_link;

struct detector_link_scan {
    int64_t scan_number, attempt;
    int n_frames;
    double frame_time_s;
};

/* `run_uid` makes the file names unique: RUN_s0001_a1_<sequence id>. Call it before other threads exist. Errors: those
 * of the Channel Access context; an IOC that does not answer is none. */
int detector_link_start(struct detector_link **ret_link, const struct beamline *settings, const char *run_uid,
                        struct instrument_context *context, struct err *err);
void detector_link_scan(struct detector_link *link, const struct detector_link_scan *scan);
/* Aborts that attempt, whether it runs, is being configured or still waits; never a later one. */
void detector_link_abort(struct detector_link *link, int64_t scan_number, int64_t attempt);

/* The process's one Channel Access context, for others that need a channel; any thread until detector_link_join. */
struct epics *detector_link_epics(struct detector_link *link);

/* The latest ring current; NaN when it is not known. Never blocks; any thread. */
double detector_link_current_ma(struct detector_link *link);

void detector_link_join(struct detector_link *link);

#endif
