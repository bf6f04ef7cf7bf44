/*
 * The harness every instrument's thread runs in: opens the device, works, and when the link fails closes it, posts the
 * loss once with the driver's sentence, and tries again with capped back-off. It never exits before it is told to and
 * never decides anything.
 */
#ifndef CONTROLLER_INSTRUMENT_H
#define CONTROLLER_INSTRUMENT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "controller/inbox.h"

struct instrument_class {
    enum event_kind lost, found;
    /* Opens the device. */
    int (*open)(void *self, struct err *err);
    /* What can be lived with, but is not as it was asked for, of the device that was opened: told with its finding; ""
     * when there is nothing. May be NULL. */
    const char *(*note)(void *self);
    /* One round of work, including the wait for the next one (at most 100 ms of wall time); negative: link lost. */
    int (*work)(void *self, struct err *err);
    void (*close)(void *self);
};

struct instrument;

/* What the threads share. */
struct instrument_context {
    struct clock *clock;
    struct inbox *inbox;
    _Atomic double cadence_s;  /* between ruby readings */
    _Atomic bool is_ruby_dark; /* ruby access is not given: a spectrum would show nothing */
    _Atomic bool is_ended;
};

/* *ret_instrument is set before the thread runs. */
void instrument_start(struct instrument **ret_instrument, const struct instrument_class *class, void *self,
                      struct instrument_context *context);

/* After context->is_ended: waits for the thread. */
void instrument_join(struct instrument *instrument);

#endif
