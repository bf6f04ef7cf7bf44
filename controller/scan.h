/*
 * The scans of one isobar: pure. Repeats only whole scans, as numbered attempts; never glues.
 *
 *   IDLE --> WAIT --> JOURNAL --> RUN --> (next scan) WAIT ... --> DONE
 *              ^                   |
 *              +---- failed -------+     after SCAN_ATTEMPTS_MAX attempts: EXHAUSTED (an operator's resume starts anew)
 *
 * Transitions (function): IDLE -> WAIT [scan_begin], WAIT -> JOURNAL [scan_step] when nothing holds,
 * JOURNAL -> RUN [scan_step] when durable, RUN -> WAIT, DONE or EXHAUSTED [scan_observe, scan_step on a deadline].
 */
#ifndef CONTROLLER_SCAN_H
#define CONTROLLER_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/event.h"

#define SCAN_ATTEMPTS_MAX 5

enum scan_state { SCAN_IDLE, SCAN_WAIT, SCAN_JOURNAL, SCAN_RUN, SCAN_DONE, SCAN_EXHAUSTED, SCAN_STATE_COUNT };

struct scan {
    enum scan_state state;
    int64_t scan_number;  /* of the run: 1, 2, 3, ... */
    int64_t attempt;      /* of this scan: 1, 2, ... */
    int64_t attempt_last; /* after which a person is asked */
    int32_t n_left;       /* scans of this isobar not yet complete, this one included */
    int32_t n_frames;
    double frame_time_s;
    int64_t not_before_ns;
    int64_t deadline_ns;
    int64_t intent_number;
};

enum scan_wish { SCAN_WISH_NONE, SCAN_WISH_JOURNAL, SCAN_WISH_START, SCAN_WISH_ABORT, SCAN_WISH_ANALYSE };

/* `scan_number_last`: the run's last scan number before this isobar. */
void scan_begin(struct scan *scan, int64_t scan_number_last, int32_t n_scans, int32_t n_frames, double frame_time_s,
                int64_t now_ns);

/* An event about a scan; returns SCAN_WISH_ANALYSE when that scan is complete. Events of other attempts are ignored. */
enum scan_wish scan_observe(struct scan *scan, const struct event *event);

/* What to do now. After SCAN_WISH_JOURNAL the caller sets intent_number; `durable_number` is the journal's. */
enum scan_wish scan_step(struct scan *scan, int64_t now_ns, bool is_held, int64_t durable_number);

/* After an operator's resume: EXHAUSTED starts anew. */
void scan_resume(struct scan *scan, int64_t now_ns);

#endif
