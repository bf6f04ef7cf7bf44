#include "controller/detector_link.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/eiger.h"
#include "drivers/epics.h"
#include "drivers/ring.h"

#define WAIT_MS 2
#define CONNECT_S 5.0
#define READY_S 30.0
#define CONFIGURE_PACE 20.0 /* Channel Access answers in milliseconds of wall time */
#define FREE_PACE 1e6
#define PROGRESS_EVERY_S 5.0
#define DEADLINE_MARGIN_S 120.0
#define FILE_S 10.0 /* what is left to analyse at a scan's end is its last file */
#define FRAMES_PER_FILE_MIN 100
#define MASTER_SUFFIX_MAX 24     /* _<sequence id>_master.h5 */
#define FRAMES_PER_FILE_MAX 1000 /* the detector's own default */

struct detector_link {
    struct beamline_detector settings;
    char ca_address[64];
    char run_uid[64];
    struct instrument_context *context;
    struct instrument *instrument;
    struct epics *epics;
    struct eiger *eiger;
    struct ring *ring;
    pthread_mutex_t mutex;
    struct detector_link_scan wanted;             /* scan_number 0: none */
    int64_t aborted_scan_number, aborted_attempt; /* this one and all before it */
};

static struct event scan_event(enum event_kind kind, const struct detector_link_scan *scan, const char *text)
{
    struct event event = inbox_event(kind, text);
    event.integer[0] = scan->scan_number;
    event.integer[1] = scan->attempt;
    return event;
}

static int link_open(void *self, struct err *err)
{
    struct detector_link *link = self;
    int code = epics_wait_connected(link->epics, link->settings.prefix, CONNECT_S, err);
    return code ? code : eiger_abort(link->eiger, err); /* a series of before the loss is nobody's any more */
}

/* Channel Access reconnects by itself: nothing is closed. A scan asked for before the loss is out of date. */
static void link_close(void *self)
{
    struct detector_link *link = self;
    pthread_mutex_lock(&link->mutex);
    struct detector_link_scan wanted = link->wanted;
    link->wanted.scan_number = 0;
    pthread_mutex_unlock(&link->mutex);
    if (wanted.scan_number) {
        struct event event =
            scan_event(EVENT_SCAN_FAILED, &wanted, "the link to the detector was lost before it began");
        inbox_post(link->context->inbox, &event);
    }
}

static bool is_aborted(struct detector_link *link, const struct detector_link_scan *scan)
{
    pthread_mutex_lock(&link->mutex);
    bool is_asked = scan->scan_number < link->aborted_scan_number ||
                    (scan->scan_number == link->aborted_scan_number && scan->attempt <= link->aborted_attempt);
    pthread_mutex_unlock(&link->mutex);
    return is_asked || link->context->is_ended;
}

/* Frames become visible to the analysis file by file, and each file costs the detector and its IOC a little. */
static int32_t frames_per_file(double frame_time_s)
{
    return (int32_t)fmin(fmax(FILE_S / frame_time_s, FRAMES_PER_FILE_MIN), FRAMES_PER_FILE_MAX);
}

static int configure(struct detector_link *link, const struct detector_link_scan *scan, struct err *err)
{
    struct eiger_scan settings = {
        .n_frames = scan->n_frames,
        .frame_time_s = scan->frame_time_s,
        .photon_energy_ev = link->settings.photon_energy_ev,
        .beam_center_x_px = link->settings.beam_center_x_px,
        .beam_center_y_px = link->settings.beam_center_y_px,
        .distance_m = link->settings.distance_m,
        .n_frames_per_file = frames_per_file(scan->frame_time_s),
    };
    snprintf(settings.file_path, sizeof settings.file_path, "%s", link->settings.file_path);
    snprintf(settings.name, sizeof settings.name, "%s_s%04lld_a%lld", link->run_uid, (long long)scan->scan_number,
             (long long)scan->attempt);
    if (strlen(settings.file_path) + strlen(settings.name) + MASTER_SUFFIX_MAX >= EVENT_TEXT_MAX)
        return err_set(err, ERR_ARG,
                       "%s/%s and its suffix is longer than the %d letters a file name may have here; shorten "
                       "file_path in the beamline file",
                       settings.file_path, settings.name, EVENT_TEXT_MAX - 1);
    int code = eiger_wait_ready(link->eiger, READY_S, err);
    return code ? code : eiger_configure(link->eiger, &settings, err);
}

/* Follows the series to its end; the deadline is experiment time. */
static int follow(struct detector_link *link, const struct detector_link_scan *scan, struct err *err)
{
    struct clock *clock = link->context->clock;
    double length_s = scan->n_frames * scan->frame_time_s;
    int64_t deadline_ns = clock_now_ns(clock) + ns_from_s(1.2 * length_s + DEADLINE_MARGIN_S), progress_due_ns = 0;
    struct eiger_progress progress = {0};
    while (!progress.is_done) {
        int64_t now_ns = clock_now_ns(clock);
        clock_sleep_until(clock, now_ns + NS_PER_S, WAIT_MS);
        eiger_poll(link->eiger, &progress);
        if (!progress.is_connected)
            return err_set(err, ERR_LINK,
                           "the link to the detector was lost after %d of %d frames; what was taken is not "
                           "used",
                           progress.n_images, scan->n_frames);
        if (is_aborted(link, scan)) {
            eiger_abort(link->eiger, NULL);
            return err_set(err, ERR_STATE, "aborted; what was taken is not used");
        }
        if (now_ns > deadline_ns) {
            eiger_abort(link->eiger, NULL);
            return err_set(err, ERR_TIMEOUT,
                           "no end after %.0f s, expected %.0f s: %d of %d frames, detector says '%s'; "
                           "the series was aborted",
                           1.2 * length_s + DEADLINE_MARGIN_S, length_s, progress.n_images, scan->n_frames,
                           progress.status_message);
        }
        if (now_ns >= progress_due_ns) {
            progress_due_ns = now_ns + ns_from_s(PROGRESS_EVERY_S);
            struct event event = scan_event(EVENT_SCAN_PROGRESS, scan, NULL);
            event.value[0] = progress.n_images;
            inbox_post(link->context->inbox, &event);
        }
    }
    return 0;
}

static int take_scan(struct detector_link *link, const struct detector_link_scan *scan, struct err *err)
{
    char master_path[EIGER_PATH_MAX];
    clock_request_pace(link->context->clock, "detector link", CONFIGURE_PACE);
    int code = is_aborted(link, scan) ? 0 : configure(link, scan, err);
    if (code == 0 && is_aborted(link, scan))
        code = err_set(err, ERR_STATE, "aborted before it began");
    if (code == 0)
        code = eiger_start(link->eiger, err);
    clock_request_pace(link->context->clock, "detector link", FREE_PACE);
    if (code == 0) {
        struct eiger_progress progress;
        eiger_poll(link->eiger, &progress);
        struct event started = scan_event(EVENT_SCAN_STARTED, scan, progress.master_path);
        inbox_post(link->context->inbox, &started);
        code = follow(link, scan, err);
    }
    clock_request_pace(link->context->clock, "detector link", CONFIGURE_PACE); /* files come late by the wall */
    if (code == 0)
        code = eiger_finish(link->eiger, master_path, err);
    clock_request_pace(link->context->clock, "detector link", FREE_PACE);
    struct event event =
        code ? scan_event(EVENT_SCAN_FAILED, scan, err->message) : scan_event(EVENT_SCAN_COMPLETE, scan, master_path);
    inbox_post(link->context->inbox, &event);
    return code;
}

static int link_work(void *self, struct err *err)
{
    struct detector_link *link = self;
    int64_t now_ns = clock_now_ns(link->context->clock);
    clock_sleep_until(link->context->clock, now_ns + NS_PER_S, WAIT_MS);
    pthread_mutex_lock(&link->mutex);
    struct detector_link_scan scan = link->wanted;
    link->wanted.scan_number = 0;
    pthread_mutex_unlock(&link->mutex);
    if (scan.scan_number) {
        struct err scan_err = {0};
        take_scan(link, &scan, &scan_err); /* its failure is the scan's, not the link's */
    }
    struct eiger_progress progress;
    eiger_poll(link->eiger, &progress);
    return progress.is_connected ? 0
                                 : err_set(err, ERR_LINK, "the detector's IOC %s at %s does not answer; is it running?",
                                           link->settings.prefix, link->ca_address);
}

int detector_link_start(struct detector_link **ret_link, const struct beamline *settings, const char *run_uid,
                        struct instrument_context *context, struct err *err)
{
    static const struct instrument_class class = {.lost = EVENT_DETECTOR_LOST,
                                                  .found = EVENT_DETECTOR_FOUND,
                                                  .open = link_open,
                                                  .work = link_work,
                                                  .close = link_close};
    struct detector_link *link = calloc(1, sizeof *link);
    assert(link);
    link->settings = settings->detector;
    link->context = context;
    snprintf(link->ca_address, sizeof link->ca_address, "%s", settings->ca_address);
    snprintf(link->run_uid, sizeof link->run_uid, "%s", run_uid);
    pthread_mutex_init(&link->mutex, NULL);
    /* Here and not in the thread: the context reads the environment, which must not change under other threads. */
    int code = epics_open(&link->epics, link->ca_address, err);
    if (code == 0)
        code = ring_open(&link->ring, link->epics, settings->ring.current_pv, err);
    if (code == 0)
        code = eiger_open(&link->eiger, link->epics, link->settings.prefix, err);
    if (code == 0)
        instrument_start(&link->instrument, &class, link, context);
    *ret_link = link;
    return code;
}

void detector_link_scan(struct detector_link *link, const struct detector_link_scan *scan)
{
    pthread_mutex_lock(&link->mutex);
    link->wanted = *scan;
    pthread_mutex_unlock(&link->mutex);
}

void detector_link_abort(struct detector_link *link, int64_t scan_number, int64_t attempt)
{
    pthread_mutex_lock(&link->mutex);
    link->aborted_scan_number = scan_number;
    link->aborted_attempt = attempt;
    pthread_mutex_unlock(&link->mutex);
}

struct epics *detector_link_epics(struct detector_link *link) { return link->epics; }

double detector_link_current_ma(struct detector_link *link)
{
    double current_ma;
    bool is_valid;
    ring_read(link->ring, &current_ma, &is_valid);
    return is_valid ? current_ma : NAN;
}

void detector_link_join(struct detector_link *link)
{
    instrument_join(link->instrument);
    eiger_close(link->eiger);
    ring_close(link->ring);
    epics_close(link->epics);
    pthread_mutex_destroy(&link->mutex);
    free(link);
}
