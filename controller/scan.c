#include "controller/scan.h"

#include <assert.h>

#include "base/clock.h"

#define RETRY_S 10.0
#define OVERHEAD_S 600.0 /* arming, closing files, verifying: generous, the detector's own thread fails sooner */

void scan_begin(struct scan *scan, int64_t scan_number_last, int32_t n_scans, int32_t n_frames, double frame_time_s,
                int64_t now_ns)
{
    *scan = (struct scan){
        .state = n_scans > 0 ? SCAN_WAIT : SCAN_DONE,
        .scan_number = scan_number_last + (n_scans > 0),
        .attempt = 1,
        .attempt_last = SCAN_ATTEMPTS_MAX,
        .n_left = n_scans,
        .n_frames = n_frames,
        .frame_time_s = frame_time_s,
        .not_before_ns = now_ns,
    };
}

static void fail(struct scan *scan, int64_t now_ns, bool is_its_own_fault)
{
    scan->attempt_last += !is_its_own_fault; /* beam losses and holds do not use up the attempts */
    scan->state = scan->attempt >= scan->attempt_last ? SCAN_EXHAUSTED : SCAN_WAIT;
    scan->attempt++;
    scan->not_before_ns = now_ns + ns_from_s(RETRY_S);
}

enum scan_wish scan_observe(struct scan *scan, const struct event *event)
{
    if (scan->state != SCAN_RUN || event->integer[0] != scan->scan_number || event->integer[1] != scan->attempt)
        return SCAN_WISH_NONE;
    if (event->kind == EVENT_SCAN_FAILED)
        fail(scan, event->now_ns, true);
    if (event->kind != EVENT_SCAN_COMPLETE)
        return SCAN_WISH_NONE;
    assert(scan->n_left > 0);
    scan->n_left--;
    scan->state = scan->n_left > 0 ? SCAN_WAIT : SCAN_DONE;
    if (scan->n_left > 0) {
        scan->scan_number++;
        scan->attempt = 1;
        scan->attempt_last = SCAN_ATTEMPTS_MAX;
        scan->not_before_ns = event->now_ns;
    }
    return SCAN_WISH_ANALYSE;
}

enum scan_wish scan_step(struct scan *scan, int64_t now_ns, bool is_held, int64_t durable_number)
{
    switch (scan->state) {
    case SCAN_WAIT:
        if (is_held || now_ns < scan->not_before_ns)
            return SCAN_WISH_NONE;
        scan->state = SCAN_JOURNAL;
        return SCAN_WISH_JOURNAL;
    case SCAN_JOURNAL:
        if (durable_number < scan->intent_number)
            return SCAN_WISH_NONE;
        if (is_held) {
            scan->state = SCAN_WAIT;
            return SCAN_WISH_NONE;
        }
        scan->state = SCAN_RUN;
        scan->deadline_ns = now_ns + ns_from_s(1.5 * scan->n_frames * scan->frame_time_s + OVERHEAD_S);
        return SCAN_WISH_START;
    case SCAN_RUN:
        if (!is_held && now_ns <= scan->deadline_ns)
            return SCAN_WISH_NONE;
        fail(scan, now_ns, !is_held); /* beam lost, or no end in sight: what was taken is not used */
        return SCAN_WISH_ABORT;
    case SCAN_IDLE:
    case SCAN_DONE:
    case SCAN_EXHAUSTED:
    case SCAN_STATE_COUNT:
        break;
    }
    return SCAN_WISH_NONE;
}

void scan_resume(struct scan *scan, int64_t now_ns)
{
    if (scan->state != SCAN_EXHAUSTED)
        return;
    scan->state = SCAN_WAIT;
    scan->attempt_last = scan->attempt + SCAN_ATTEMPTS_MAX - 1; /* numbers are never used twice */
    scan->not_before_ns = now_ns;
}
