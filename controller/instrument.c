#include "controller/instrument.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define BACK_OFF_MS_FIRST 100
#define BACK_OFF_MS_MAX 2000

struct instrument {
    const struct instrument_class *class;
    void *self;
    struct instrument_context *context;
    pthread_t thread;
};

/* In slices, so that the end is noticed. */
static void back_off(struct instrument_context *context, int wall_ms)
{
    const struct timespec slice = {.tv_nsec = 20 * NS_PER_MS};
    for (int waited = 0; waited < wall_ms && !context->is_ended; waited += 20)
        nanosleep(&slice, NULL);
}

static void post(struct instrument *instrument, enum event_kind kind, int code, const char *text)
{
    struct event event = inbox_event(kind, text);
    event.integer[0] = code;
    while (!inbox_post(instrument->context->inbox, &event) && !instrument->context->is_ended)
        back_off(instrument->context, 20); /* the state of a link must not get lost in a full inbox */
}

static void *run(void *argument)
{
    struct instrument *instrument = argument;
    const struct instrument_class *class = instrument->class;
    int wall_ms = BACK_OFF_MS_FIRST;
    bool is_loss_told = false;
    while (!instrument->context->is_ended) {
        struct err err = {0};
        int code = class->open(instrument->self, &err);
        if (code == 0) {
            is_loss_told = false;
            wall_ms = BACK_OFF_MS_FIRST;
            post(instrument, class->found, 0, class->note ? class->note(instrument->self) : NULL);
            while (code >= 0 && !instrument->context->is_ended)
                code = class->work(instrument->self, &err);
            class->close(instrument->self);
        }
        if (instrument->context->is_ended)
            break;
        if (!is_loss_told)
            post(instrument, class->lost, err.code, err.message);
        is_loss_told = true;
        back_off(instrument->context, wall_ms);
        wall_ms = 2 * wall_ms < BACK_OFF_MS_MAX ? 2 * wall_ms : BACK_OFF_MS_MAX;
    }
    return NULL;
}

void instrument_start(struct instrument **ret_instrument, const struct instrument_class *class, void *self,
                      struct instrument_context *context)
{
    struct instrument *instrument = calloc(1, sizeof *instrument);
    assert(instrument);
    instrument->class = class;
    instrument->self = self;
    instrument->context = context;
    *ret_instrument = instrument;
    int code = pthread_create(&instrument->thread, NULL, run, instrument);
    assert(code == 0);
}

void instrument_join(struct instrument *instrument)
{
    pthread_join(instrument->thread, NULL);
    free(instrument);
}
