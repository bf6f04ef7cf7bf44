/*
 * EPICS Channel Access client: one latest-value slot per channel, filled by libca's own threads.
 *
 * Reading a slot never blocks and never fails: it says whether the channel is connected and what came last. Every put
 * has a timeout in wall time. A put-callback that has timed out stays outstanding until libca reports its end (or the
 * loss of the circuit); until then another one on the same channel is refused here, because the IOC would make the
 * whole circuit wait for it. The plain put (epics_channel_send) is always possible.
 *
 * Channels reconnect by themselves for ever; n_connects tells whether a channel was away in between. One context per
 * process (libca reads its settings from the environment, which epics_open writes): call epics_open before other
 * threads run. Afterwards any thread may use any channel. This file's source is the only includer of cadef.h.
 * Sources: EPICS R3.14 Channel Access Reference Manual; areaDetector's records.
 */
#ifndef DRIVERS_EPICS_H
#define DRIVERS_EPICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define EPICS_TEXT_MAX 256
#define EPICS_CHANNELS_MAX 96
#define EPICS_ARRAY_MAX 8192

struct epics;
struct epics_channel;

enum epics_severity { EPICS_NO_ALARM, EPICS_MINOR, EPICS_MAJOR, EPICS_INVALID, EPICS_SEVERITY_COUNT };

struct epics_value {
    bool is_connected;
    bool is_known; /* a value has come since the channel was last connected */
    enum epics_severity severity;
    double real;               /* of numbers, of waveforms the first; NAN for menus and texts */
    char text[EPICS_TEXT_MAX]; /* of menus (the choice) and texts; "" for numbers */
    uint32_t n_connects;       /* times the channel has been connected so far */
    uint64_t n_arrivals;
    int64_t arrival_wall_ns;
    int64_t stamp_ns; /* when the record was processed, by the IOC's clock, since 1990 */
    int64_t
        stamp_ns_not_zero; /* of the latest number that was not 0, so that a short pulse leaves its trace; 0: none */
};

/* `ca_address` is the list of servers, "HOST:PORT ...", asked one by one, without broadcasts. Errors: ERR_STATE (a
 * context exists), ERR_SYSTEM. */
int epics_open(struct epics **ret_epics, const char *ca_address, struct err *err);
void epics_close(struct epics *epics);

/* Begins to look for a channel and to follow it; returns at once. The same name gives the same channel. Lives as long
 * as the context. Errors: ERR_FULL, ERR_ARG. */
int epics_channel_open(struct epics_channel **ret_channel, struct epics *epics, const char *name, struct err *err);
/* The same, but a menu is followed as the number of its choice. ERR_ARG if it is open as a text already. */
int epics_channel_open_number(struct epics_channel **ret_channel, struct epics *epics, const char *name,
                              struct err *err);
const char *epics_channel_name(const struct epics_channel *channel);

void epics_channel_read(struct epics_channel *channel, struct epics_value *ret_value);

/*
 * Asks for the numbers of a channel as they are now, and waits for them; what the slot holds may be older, because
 * nothing arrives while nothing changes.
 *   ret_reals  [n_max], as many as the record holds now; *ret_value: severity and stamps that belong to them
 * Returns their count. Errors: ERR_LINK, ERR_TIMEOUT, ERR_STATE (an earlier request is outstanding), ERR_DATA (more
 * than n_max, or than EPICS_ARRAY_MAX), ERR_REFUSED (no read access, not numbers).
 */
int epics_channel_fetch(struct epics_channel *channel, double *ret_reals, int n_max, struct epics_value *ret_value,
                        double timeout_s, struct err *err);

/*
 * Waits until something arrives (a value, a connection, the end of a put-callback) on any channel after *n_seen, which
 * it brings up to date, or until `wall_ns_deadline`. Returns false at the deadline. Begin with *n_seen = 0, test your
 * condition, wait, test again: nothing is missed.
 */
bool epics_wait(struct epics *epics, uint64_t *n_seen, int64_t wall_ns_deadline);

/* All opened channels whose names begin with `prefix` connected and known. Errors: ERR_TIMEOUT (err tells how many are
 * missing, and names one). */
int epics_wait_connected(struct epics *epics, const char *prefix, double timeout_s, struct err *err);

/* Puts and waits until the record has processed. A menu is put by the name of its choice. Errors: ERR_LINK (not
 * connected, or lost meanwhile: outcome unknown), ERR_TIMEOUT (outcome unknown), ERR_REFUSED (no write access, unknown
 * choice), ERR_STATE (an earlier put-callback is outstanding), ERR_ARG (text too long). */
int epics_channel_put_real(struct epics_channel *channel, double value, double timeout_s, struct err *err);
int epics_channel_put_text(struct epics_channel *channel, const char *text, double timeout_s, struct err *err);

/* The same without waiting for the end: epics_channel_is_pending and epics_channel_outcome tell of it. */
int epics_channel_begin_text(struct epics_channel *channel, const char *text, struct err *err);
bool epics_channel_is_pending(struct epics_channel *channel);
int epics_channel_outcome(struct epics_channel *channel, struct err *err); /* of the last one: 0 or an error */

/* Plain put without callback: for an abort, while a put-callback is outstanding. Errors: ERR_LINK, ERR_REFUSED. */
int epics_channel_send_text(struct epics_channel *channel, const char *text, struct err *err);
int epics_channel_send_real(struct epics_channel *channel, double value, struct err *err);

#endif
