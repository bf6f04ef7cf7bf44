#include "controller/access_link.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_S 5.0
#define CLOSE_S 3.0
#define WAIT_NS (20 * NS_PER_MS)

enum channel { OPTICS, OPTICS_READBACK, LASER, LASER_READBACK, CHANNEL_COUNT };

struct access_link {
    struct instrument_context *context;
    struct instrument *instrument;
    struct epics *epics;
    struct epics_channel *channels[CHANNEL_COUNT];
    uint64_t n_seen;
    bool has_posted;     /* since the link was found */
    struct event posted; /* the last EVENT_ACCESS */
    pthread_mutex_t mutex;
    enum access_move move; /* NONE: nothing waits */
};

static const char *const optics_words[ACCESS_OPTICS_COUNT] = {"", "Out", "In", "Moving"};
static const char *const laser_words[ACCESS_LASER_COUNT] = {"", "Closed", "Open"};

/* Index of the word that a readback says; 0 when it is none of them. */
static int read_word(struct epics_channel *channel, const char *const *words, int n_words,
                     struct epics_value *ret_value)
{
    epics_channel_read(channel, ret_value);
    if (!ret_value->is_known || ret_value->severity >= EPICS_INVALID)
        return 0;
    int i = n_words - 1;
    while (i > 0 && strcmp(ret_value->text, words[i]) != 0)
        i--;
    return i;
}

static int check_channels(struct access_link *link, struct err *err)
{
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct epics_value value;
        epics_channel_read(link->channels[i], &value);
        if (!value.is_known)
            return err_set(err, ERR_LINK, "%s does not answer; is its IOC running?",
                           epics_channel_name(link->channels[i]));
    }
    return 0;
}

/* A move asked for before a loss is out of date, but for the one that is always right. */
static void forget_move(struct access_link *link)
{
    pthread_mutex_lock(&link->mutex);
    if (link->move != ACCESS_MOVE_LASER_CLOSE)
        link->move = ACCESS_MOVE_NONE;
    pthread_mutex_unlock(&link->mutex);
}

static int link_open(void *self, struct err *err)
{
    struct access_link *link = self;
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(CONNECT_S);
    int code = check_channels(link, err);
    while (code && !link->context->is_ended && epics_wait(link->epics, &link->n_seen, deadline_ns))
        code = check_channels(link, err);
    link->has_posted = false;
    forget_move(link);
    return code;
}

static void link_close(void *self) { (void)self; } /* Channel Access reconnects by itself */

static int send_move(struct access_link *link, struct err *err)
{
    static const struct {
        enum channel channel;
        const char *word;
    } puts[ACCESS_MOVE_COUNT] = {[ACCESS_MOVE_LASER_CLOSE] = {LASER, "Closed"},
                                 [ACCESS_MOVE_OPTICS_OUT] = {OPTICS, "Out"},
                                 [ACCESS_MOVE_OPTICS_IN] = {OPTICS, "In"},
                                 [ACCESS_MOVE_LASER_OPEN] = {LASER, "Open"}};
    pthread_mutex_lock(&link->mutex);
    enum access_move move = link->move;
    link->move = ACCESS_MOVE_NONE;
    pthread_mutex_unlock(&link->mutex);
    if (move == ACCESS_MOVE_NONE)
        return 0;
    return epics_channel_send_text(link->channels[puts[move].channel], puts[move].word, err);
}

static void post_readback(struct access_link *link)
{
    struct epics_value optics, laser;
    struct event event = inbox_event(EVENT_ACCESS, NULL);
    event.integer[0] = read_word(link->channels[OPTICS_READBACK], optics_words, ACCESS_OPTICS_COUNT, &optics);
    event.integer[1] = read_word(link->channels[LASER_READBACK], laser_words, ACCESS_LASER_COUNT, &laser);
    snprintf(event.text, sizeof event.text, "optics '%.40s'%s, laser shutter '%.40s'%s", optics.text,
             optics.severity >= EPICS_INVALID ? " (invalid)" : "", laser.text,
             laser.severity >= EPICS_INVALID ? " (invalid)" : "");
    if (link->has_posted && memcmp(&event, &link->posted, sizeof event) == 0)
        return;
    link->has_posted = inbox_post(link->context->inbox, &event); /* a full inbox: again in the next round */
    link->posted = event;
}

static int link_work(void *self, struct err *err)
{
    struct access_link *link = self;
    int code = send_move(link, err);
    if (code == 0)
        code = check_channels(link, err);
    if (code == 0) {
        post_readback(link);
        epics_wait(link->epics, &link->n_seen, clock_wall_ns() + WAIT_NS);
    }
    return code;
}

static bool is_laser_closed(struct access_link *link)
{
    struct epics_value value;
    return read_word(link->channels[LASER_READBACK], laser_words, ACCESS_LASER_COUNT, &value) == ACCESS_LASER_CLOSED;
}

int access_link_start(struct access_link **ret_link, const struct beamline_ruby *settings, struct epics *epics,
                      struct instrument_context *context, struct err *err)
{
    static const struct instrument_class class = {.lost = EVENT_ACCESS_LOST,
                                                  .found = EVENT_ACCESS_FOUND,
                                                  .open = link_open,
                                                  .work = link_work,
                                                  .close = link_close};
    const char *const names[CHANNEL_COUNT] = {settings->optics_pv, settings->optics_readback_pv, settings->laser_pv,
                                              settings->laser_readback_pv};
    struct access_link *link = calloc(1, sizeof *link);
    assert(link);
    link->context = context;
    link->epics = epics;
    int code = 0;
    for (int i = 0; i < CHANNEL_COUNT && code == 0; i++)
        code = epics_channel_open(&link->channels[i], epics, names[i], err);
    if (code) {
        free(link);
        return code;
    }
    pthread_mutex_init(&link->mutex, NULL);
    instrument_start(&link->instrument, &class, link, context);
    *ret_link = link;
    return 0;
}

void access_link_move(struct access_link *link, enum access_move move)
{
    pthread_mutex_lock(&link->mutex);
    link->move = move;
    pthread_mutex_unlock(&link->mutex);
}

void access_link_join(struct access_link *link)
{
    struct err err = {0};
    if (!link)
        return;
    instrument_join(link->instrument);
    int code = send_move(link, &err);
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(CLOSE_S);
    while (!is_laser_closed(link) && code == 0 && epics_wait(link->epics, &link->n_seen, deadline_ns))
        continue;
    if (!is_laser_closed(link))
        fprintf(stderr, "isobard: the laser shutter is not confirmed closed at the end; close it by hand%s%s\n",
                code ? ": " : "", code ? err.message : "");
    pthread_mutex_destroy(&link->mutex);
    free(link);
}
