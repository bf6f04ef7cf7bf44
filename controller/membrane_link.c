#include "controller/membrane_link.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "drivers/membrane.h"

#define READS_PER_CADENCE 5.0
#define WAIT_MS_MAX 50
#define SETPOINT_STEPS_FOREIGN 16000.0 /* of full scale: more than a device rounds a set point */
#define SLEW_FOREIGN 1.01              /* of the slew held before */
#define SUPPLY_BAR_LEAST 0.001         /* 0 stands for a supply that is not known */

struct membrane_link {
    struct beamline_membrane settings;
    struct instrument_context *context;
    struct store *store;
    struct instrument *instrument;
    struct membrane *membrane;
    int64_t read_ns; /* when it was last read */
    pthread_mutex_t mutex;
    double setpoint_bar; /* NaN: nothing to write */
    double slew_bar_per_min;
    double slew_bar_per_min_last; /* programmed again after a loss: the device may have been replaced */
    bool is_shut_wanted;
    /* What the device held when it was last read or written; NaN: not known, whatever is found is not judged. */
    double held_bar_setpoint;
    double held_slew_bar_per_min;
    double sent_bar_setpoint; /* of a write that failed: it may hold this, too */
};

static double take(struct membrane_link *link, double *wanted)
{
    pthread_mutex_lock(&link->mutex);
    double value = *wanted;
    *wanted = NAN;
    pthread_mutex_unlock(&link->mutex);
    return value;
}

static void put(struct membrane_link *link, double *wanted, double value)
{
    pthread_mutex_lock(&link->mutex);
    *wanted = value;
    pthread_mutex_unlock(&link->mutex);
}

static bool take_shut(struct membrane_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool is_wanted = link->is_shut_wanted;
    pthread_mutex_unlock(&link->mutex);
    return is_wanted;
}

static int link_open(void *self, struct err *err)
{
    struct membrane_link *link = self;
    take(link, &link->setpoint_bar); /* asked for before the loss: out of date */
    if (!isnan(link->slew_bar_per_min_last))
        put(link, &link->slew_bar_per_min, link->slew_bar_per_min_last);
    const struct membrane_settings settings = {
        .driver = link->settings.driver,
        .address = link->settings.address,
        .unit_id = link->settings.unit_id,
        .full_scale_bar = link->settings.full_scale_bar,
        .membrane_bar_max = link->settings.membrane_bar_max,
        .slew_bar_per_min_max = link->settings.slew_bar_per_min_max,
    };
    return membrane_open(&link->membrane, &settings, err);
}

static void link_close(void *self)
{
    struct membrane_link *link = self;
    membrane_close(link->membrane);
    link->membrane = NULL;
}

static int write_setpoint(struct membrane_link *link, double setpoint_bar, struct err *err)
{
    link->sent_bar_setpoint = setpoint_bar;
    int code = membrane_write_setpoint(link->membrane, setpoint_bar, err);
    if (code == 0)
        link->held_bar_setpoint = setpoint_bar;
    if (code != ERR_STATE && code != ERR_LIMIT)
        return code;
    link->sent_bar_setpoint = NAN; /* nothing was written: a reading, at once, says why */
    link->read_ns = 0;
    return 0;
}

/* Wanted until it is done: over a loss of the link as well. */
static int shut(struct membrane_link *link, struct err *err)
{
    take(link, &link->setpoint_bar);
    link->held_bar_setpoint = NAN;
    int code = membrane_shut(link->membrane, err);
    pthread_mutex_lock(&link->mutex);
    link->is_shut_wanted = code != 0;
    pthread_mutex_unlock(&link->mutex);
    return code;
}

static int write_wanted(struct membrane_link *link, struct err *err)
{
    int code = take_shut(link) ? shut(link, err) : 0;
    if (code)
        return code;
    double slew_bar_per_min = take(link, &link->slew_bar_per_min);
    if (!isnan(slew_bar_per_min)) {
        link->held_slew_bar_per_min = NAN;
        code = membrane_write_slew(link->membrane, slew_bar_per_min, err);
    }
    double setpoint_bar = code ? NAN : take(link, &link->setpoint_bar);
    if (!isnan(setpoint_bar))
        code = write_setpoint(link, setpoint_bar, err);
    return code;
}

/* What is not as it was left, and was not our doing: bits of enum event_membrane, and a sentence when there are any. */
static int64_t find_foreign(struct membrane_link *link, const struct membrane_reading *reading, char *ret_text,
                            size_t size)
{
    double tolerance_bar = reading->capacity_bar / SETPOINT_STEPS_FOREIGN;
    double setpoint_bar = reading->membrane_bar_setpoint, held_bar = link->held_bar_setpoint;
    bool is_setpoint_foreign = fabs(setpoint_bar - held_bar) > tolerance_bar &&
                               !(fabs(setpoint_bar - link->sent_bar_setpoint) <= tolerance_bar);
    bool is_slew_foreign = reading->slew_bar_per_min > SLEW_FOREIGN * link->held_slew_bar_per_min;
    if (!reading->is_following)
        snprintf(ret_text, size, "it says that it does not regulate to the set point sent: control mode %d, alarm %u",
                 reading->control_mode, reading->alarm);
    else if (is_slew_foreign)
        snprintf(ret_text, size, "its slew was changed from %g to %g bar/min", link->held_slew_bar_per_min,
                 reading->slew_bar_per_min);
    else if (is_setpoint_foreign)
        snprintf(ret_text, size, "its set point was changed from %.3f to %.3f bar", held_bar, setpoint_bar);
    if (is_slew_foreign) /* before anything moves at it, unless the core asks for another */
        put(link, &link->slew_bar_per_min, link->slew_bar_per_min_last);
    link->held_bar_setpoint = setpoint_bar;
    link->held_slew_bar_per_min = reading->slew_bar_per_min;
    link->sent_bar_setpoint = NAN;
    return (is_setpoint_foreign ? MEMBRANE_SETPOINT_CHANGED : 0) | (is_slew_foreign ? MEMBRANE_SLEW_CHANGED : 0) |
           (reading->is_following ? 0 : MEMBRANE_NOT_FOLLOWING);
}

static int read_once(struct membrane_link *link, struct err *err)
{
    struct membrane_reading reading;
    int code = membrane_read(link->membrane, &reading, err);
    if (code)
        return code;
    char text[EVENT_TEXT_MAX] = "";
    int64_t foreign = find_foreign(link, &reading, text, sizeof text);
    struct event event = inbox_event(EVENT_MEMBRANE, text);
    event.integer[0] = foreign;
    event.value[0] = reading.membrane_bar;
    event.value[1] = reading.membrane_bar_setpoint;
    event.value[2] = reading.capacity_bar;
    event.value[3] = isnan(reading.supply_bar) ? 0.0 : fmax(reading.supply_bar, SUPPLY_BAR_LEAST);
    inbox_post(link->context->inbox, &event);
    const struct store_value row[] = {store_integer(clock_now_ns(link->context->clock)),
                                      store_real(reading.membrane_bar), store_real(reading.membrane_bar_setpoint)};
    store_put(link->store, STORE_MEMBRANE, row, 3, 0, NULL);
    return 0;
}

static int link_work(void *self, struct err *err)
{
    struct membrane_link *link = self;
    int64_t due_ns = link->read_ns + ns_from_s(link->context->cadence_s / READS_PER_CADENCE);
    clock_sleep_until(link->context->clock, due_ns, WAIT_MS_MAX);
    int64_t now_ns = clock_now_ns(link->context->clock);
    int code = write_wanted(link, err);
    if (code == 0 && now_ns >= due_ns) {
        link->read_ns = now_ns;
        code = read_once(link, err);
    }
    return code;
}

struct membrane_link *membrane_link_start(const struct beamline_membrane *settings, struct instrument_context *context,
                                          struct store *store)
{
    static const struct instrument_class class = {.lost = EVENT_MEMBRANE_LOST,
                                                  .found = EVENT_MEMBRANE_FOUND,
                                                  .open = link_open,
                                                  .work = link_work,
                                                  .close = link_close};
    struct membrane_link *link = calloc(1, sizeof *link);
    assert(link);
    *link = (struct membrane_link){.settings = *settings,
                                   .context = context,
                                   .store = store,
                                   .setpoint_bar = NAN,
                                   .slew_bar_per_min = NAN,
                                   .slew_bar_per_min_last = NAN,
                                   .held_bar_setpoint = NAN,
                                   .held_slew_bar_per_min = NAN,
                                   .sent_bar_setpoint = NAN};
    pthread_mutex_init(&link->mutex, NULL);
    instrument_start(&link->instrument, &class, link, context);
    return link;
}

void membrane_link_setpoint(struct membrane_link *link, double membrane_bar_setpoint)
{
    put(link, &link->setpoint_bar, membrane_bar_setpoint);
}

void membrane_link_slew(struct membrane_link *link, double slew_bar_per_min)
{
    put(link, &link->slew_bar_per_min_last, slew_bar_per_min);
    put(link, &link->slew_bar_per_min, slew_bar_per_min);
}

void membrane_link_shut(struct membrane_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->is_shut_wanted = true;
    pthread_mutex_unlock(&link->mutex);
}

void membrane_link_join(struct membrane_link *link)
{
    instrument_join(link->instrument);
    pthread_mutex_destroy(&link->mutex);
    free(link);
}
