#include "controller/inbox.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INBOX_MAX 1024

struct inbox {
    const struct clock *clock;
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    int first, n;
    int64_t n_dropped;
    struct event events[INBOX_MAX];
};

struct inbox *inbox_new(const struct clock *clock)
{
    struct inbox *inbox = calloc(1, sizeof *inbox);
    assert(inbox);
    inbox->clock = clock;
    pthread_mutex_init(&inbox->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&inbox->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    return inbox;
}

void inbox_free(struct inbox *inbox)
{
    if (!inbox)
        return;
    pthread_cond_destroy(&inbox->filled);
    pthread_mutex_destroy(&inbox->mutex);
    free(inbox);
}

struct event inbox_event(enum event_kind kind, const char *text)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    if (text)
        strncpy(event.text, text, sizeof event.text - 1);
    return event;
}

bool inbox_post(struct inbox *inbox, const struct event *event)
{
    pthread_mutex_lock(&inbox->mutex);
    bool has_room = inbox->n < INBOX_MAX;
    if (has_room) {
        struct event *slot = &inbox->events[(inbox->first + inbox->n++) % INBOX_MAX];
        *slot = *event;
        slot->t_ns = clock_now_ns(inbox->clock);
        pthread_cond_signal(&inbox->filled);
    } else {
        inbox->n_dropped++;
    }
    pthread_mutex_unlock(&inbox->mutex);
    return has_room;
}

bool inbox_take(struct inbox *inbox, struct event *ret_event, int wall_ms_max)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += wall_ms_max * NS_PER_MS;
    end.tv_sec += end.tv_nsec / NS_PER_S;
    end.tv_nsec %= NS_PER_S;
    pthread_mutex_lock(&inbox->mutex);
    int code = 0;
    while (inbox->n == 0 && wall_ms_max > 0 && code == 0)
        code = pthread_cond_timedwait(&inbox->filled, &inbox->mutex, &end);
    bool has_event = inbox->n > 0;
    if (has_event) {
        *ret_event = inbox->events[inbox->first];
        inbox->first = (inbox->first + 1) % INBOX_MAX;
        inbox->n--;
    }
    pthread_mutex_unlock(&inbox->mutex);
    return has_event;
}

int64_t inbox_dropped(struct inbox *inbox)
{
    pthread_mutex_lock(&inbox->mutex);
    int64_t n_dropped = inbox->n_dropped;
    pthread_mutex_unlock(&inbox->mutex);
    return n_dropped;
}
