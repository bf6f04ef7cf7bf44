#include "drivers/epics.h"

#include <assert.h>
#include <cadef.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

struct epics_channel {
    struct epics *epics;
    char name[100];
    chid id;
    bool has_subscription;
    bool is_number; /* a menu is followed as the number of its choice */
    struct epics_value value;
    bool is_pending;  /* a put-callback is outstanding */
    int outcome;      /* ECA_* of the last put-callback */
    bool is_fetching; /* a fetch is outstanding */
    int fetch_outcome;
    struct epics_value fetched;
    double *reals; /* [EPICS_ARRAY_MAX] of the last fetch; NULL until there was one */
    long n_reals;  /* that came; more than EPICS_ARRAY_MAX: they were not kept */
};

struct epics {
    struct ca_client_context *context;
    pthread_mutex_t mutex; /* guards everything below and every channel's slot; never held during a call of libca */
    pthread_cond_t arrived;
    uint64_t n_arrivals;
    int n_channels;
    struct epics_channel channels[EPICS_CHANNELS_MAX];
};

/* In libca, but in none of its headers: relays the servers' beacons to the clients of this machine, so that a server
 * that comes back is found at once. Returns when another process does it already. */
extern void caRepeaterThread(void *);

/* ---- callbacks, in threads of libca -------------------------------------------------------------------------- */

static void announce(struct epics *epics)
{
    epics->n_arrivals++;
    pthread_cond_broadcast(&epics->arrived);
}

static void take_text(struct epics_value *value, const char *text, size_t length)
{
    if (length >= sizeof value->text)
        length = sizeof value->text - 1;
    length = strnlen(text, length);
    memcpy(value->text, text, length);
    value->text[length] = '\0';
    value->real = NAN;
}

static int64_t stamp_ns(const epicsTimeStamp *stamp)
{
    return (int64_t)stamp->secPastEpoch * NS_PER_S + (int64_t)stamp->nsec;
}

static void on_value(struct event_handler_args args)
{
    struct epics_channel *channel = args.usr;
    struct epics *epics = channel->epics;
    if (args.status != ECA_NORMAL)
        return;
    pthread_mutex_lock(&epics->mutex);
    struct epics_value *value = &channel->value;
    if (args.type == DBR_TIME_DOUBLE) {
        const struct dbr_time_double *data = args.dbr;
        value->real = data->value;
        value->text[0] = '\0';
        value->severity = (enum epics_severity)data->severity;
        value->stamp_ns = stamp_ns(&data->stamp);
        if (data->value != 0)
            value->stamp_ns_not_zero = value->stamp_ns;
    } else if (args.type == DBR_TIME_STRING) {
        const struct dbr_time_string *data = args.dbr;
        take_text(value, data->value, sizeof data->value);
        value->severity = (enum epics_severity)data->severity;
        value->stamp_ns = stamp_ns(&data->stamp);
    } else {
        const struct dbr_time_char *data = args.dbr;
        take_text(value, (const char *)&data->value, (size_t)args.count);
        value->severity = (enum epics_severity)data->severity;
        value->stamp_ns = stamp_ns(&data->stamp);
    }
    value->is_known = true;
    value->n_arrivals++;
    value->arrival_wall_ns = clock_wall_ns();
    announce(epics);
    pthread_mutex_unlock(&epics->mutex);
}

/* Numbers as doubles, never as strings (PREC would round them); menus as the name of their choice. */
static chtype subscription_type(const struct epics_channel *channel)
{
    short type = ca_field_type(channel->id);
    if (channel->is_number)
        return DBR_TIME_DOUBLE;
    if (type == DBF_CHAR && ca_element_count(channel->id) > 1)
        return DBR_TIME_CHAR;
    return type == DBF_STRING || type == DBF_ENUM ? DBR_TIME_STRING : DBR_TIME_DOUBLE;
}

static void on_connection(struct connection_handler_args args)
{
    struct epics_channel *channel = ca_puser(args.chid);
    struct epics *epics = channel->epics;
    bool is_up = args.op == CA_OP_CONN_UP;
    pthread_mutex_lock(&epics->mutex);
    bool subscribes = is_up && !channel->has_subscription;
    channel->has_subscription = channel->has_subscription || is_up;
    channel->value.is_connected = is_up;
    channel->value.is_known = false;
    channel->value.n_connects += is_up;
    announce(epics);
    pthread_mutex_unlock(&epics->mutex);
    if (subscribes) { /* libca renews it after every later loss */
        chtype type = subscription_type(channel);
        ca_create_subscription(type, type == DBR_TIME_CHAR ? 0 : 1, args.chid, DBE_VALUE | DBE_ALARM, on_value, channel,
                               NULL);
        ca_flush_io();
    }
}

static void on_put(struct event_handler_args args)
{
    struct epics_channel *channel = args.usr;
    pthread_mutex_lock(&channel->epics->mutex);
    channel->is_pending = false;
    channel->outcome = args.status;
    announce(channel->epics);
    pthread_mutex_unlock(&channel->epics->mutex);
}

static void on_fetched(struct event_handler_args args)
{
    struct epics_channel *channel = args.usr;
    pthread_mutex_lock(&channel->epics->mutex);
    channel->is_fetching = false;
    channel->fetch_outcome = args.status;
    if (args.status == ECA_NORMAL) {
        const struct dbr_time_double *data = args.dbr;
        channel->n_reals = args.count;
        if (args.count <= EPICS_ARRAY_MAX)
            memcpy(channel->reals, &data->value, (size_t)args.count * sizeof channel->reals[0]);
        channel->fetched = (struct epics_value){.is_connected = true,
                                                .is_known = true,
                                                .severity = (enum epics_severity)data->severity,
                                                .real = args.count > 0 ? data->value : NAN,
                                                .arrival_wall_ns = clock_wall_ns(),
                                                .stamp_ns = stamp_ns(&data->stamp)};
    }
    announce(channel->epics);
    pthread_mutex_unlock(&channel->epics->mutex);
}

/* Lost circuits show in the slots; without a handler libca would print. */
static void on_exception(struct exception_handler_args args) { (void)args; }

static int print_nothing(const char *format, va_list arguments)
{
    (void)format, (void)arguments;
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void attach(struct epics *epics)
{
    if (ca_current_context() == epics->context)
        return;
    int status = ca_attach_context(epics->context);
    assert(status == ECA_NORMAL);
}

static void *relay_main(void *context)
{
    caRepeaterThread(context);
    for (;;) /* EPICS's watchdog goes on looking at this thread: it must not end */
        pause();
    return NULL;
}

static void set_environment(const char *ca_address)
{
    setenv("EPICS_CA_AUTO_ADDR_LIST", "NO", 1);
    setenv("EPICS_CA_ADDR_LIST", ca_address, 1);
    setenv("EPICS_CA_MAX_ARRAY_BYTES", "200000", 1); /* twice a spectrum; heeded by libraries before 7 */
    setenv("EPICS_CA_CONN_TMO", "5", 1);             /* s; a silent server is declared lost after about twice that */
    setenv("EPICS_CA_MAX_SEARCH_PERIOD", "60", 1);   /* s; the least libca accepts */
}

int epics_open(struct epics **ret_epics, const char *ca_address, struct err *err)
{
    if (ca_current_context())
        return err_set(err, ERR_STATE, "a Channel Access context exists already");
    set_environment(ca_address);
    pthread_t relay;
    if (pthread_create(&relay, NULL, relay_main, NULL) == 0)
        pthread_detach(relay); /* ends with the process */
    struct epics *epics = calloc(1, sizeof *epics);
    assert(epics);
    pthread_mutex_init(&epics->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&epics->arrived, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (ca_context_create(ca_enable_preemptive_callback) != ECA_NORMAL) {
        free(epics);
        return err_set(err, ERR_SYSTEM, "Channel Access does not start");
    }
    epics->context = ca_current_context();
    ca_replace_printf_handler(print_nothing);
    ca_add_exception_event(on_exception, NULL);
    *ret_epics = epics;
    return 0;
}

void epics_close(struct epics *epics)
{
    if (!epics)
        return;
    attach(epics);
    for (int i = 0; i < epics->n_channels; i++)
        ca_clear_channel(epics->channels[i].id);
    ca_context_destroy(); /* waits for callbacks that are running */
    for (int i = 0; i < epics->n_channels; i++)
        free(epics->channels[i].reals);
    pthread_cond_destroy(&epics->arrived);
    pthread_mutex_destroy(&epics->mutex);
    free(epics);
}

static int channel_open(struct epics_channel **ret_channel, struct epics *epics, const char *name, bool is_number,
                        struct err *err)
{
    attach(epics);
    for (int i = 0; i < epics->n_channels; i++)
        if (strcmp(epics->channels[i].name, name) == 0) {
            if (epics->channels[i].is_number != is_number)
                return err_set(err, ERR_ARG, "channel %s refused: it is asked for twice, as text and as number", name);
            *ret_channel = &epics->channels[i];
            return 0;
        }
    if (epics->n_channels == EPICS_CHANNELS_MAX)
        return err_set(err, ERR_FULL, "channel %s refused: %d are open", name, EPICS_CHANNELS_MAX);
    struct epics_channel *channel = &epics->channels[epics->n_channels];
    if (!name[0] || strlen(name) >= sizeof channel->name)
        return err_set(err, ERR_ARG, "channel name \"%s\" refused: 1 to 99 letters", name);
    *channel = (struct epics_channel){.epics = epics, .is_number = is_number, .value.real = NAN, .outcome = ECA_NORMAL};
    snprintf(channel->name, sizeof channel->name, "%s", name);
    int status = ca_create_channel(name, on_connection, channel, CA_PRIORITY_DEFAULT, &channel->id);
    if (status != ECA_NORMAL)
        return err_set(err, ERR_ARG, "channel %s refused: %s", name, ca_message(status));
    ca_flush_io();
    pthread_mutex_lock(&epics->mutex);
    epics->n_channels++;
    pthread_mutex_unlock(&epics->mutex);
    *ret_channel = channel;
    return 0;
}

int epics_channel_open(struct epics_channel **ret_channel, struct epics *epics, const char *name, struct err *err)
{
    return channel_open(ret_channel, epics, name, false, err);
}

int epics_channel_open_number(struct epics_channel **ret_channel, struct epics *epics, const char *name,
                              struct err *err)
{
    return channel_open(ret_channel, epics, name, true, err);
}

const char *epics_channel_name(const struct epics_channel *channel) { return channel->name; }

/* ---- reading and waiting ------------------------------------------------------------------------------------- */

void epics_channel_read(struct epics_channel *channel, struct epics_value *ret_value)
{
    pthread_mutex_lock(&channel->epics->mutex);
    *ret_value = channel->value;
    pthread_mutex_unlock(&channel->epics->mutex);
}

bool epics_wait(struct epics *epics, uint64_t *n_seen, int64_t wall_ns_deadline)
{
    int64_t left_ns = wall_ns_deadline - clock_wall_ns();
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t until_ns = until.tv_nsec + (left_ns > 0 ? left_ns : 0);
    until.tv_sec += until_ns / NS_PER_S;
    until.tv_nsec = until_ns % NS_PER_S;
    pthread_mutex_lock(&epics->mutex);
    int code = 0;
    while (epics->n_arrivals == *n_seen && code == 0)
        code = pthread_cond_timedwait(&epics->arrived, &epics->mutex, &until);
    bool has_news = epics->n_arrivals != *n_seen;
    *n_seen = epics->n_arrivals;
    pthread_mutex_unlock(&epics->mutex);
    return has_news;
}

/* Sends the request. */
static int fetch_begin(struct epics_channel *channel, struct err *err)
{
    struct epics_value value;
    attach(channel->epics);
    epics_channel_read(channel, &value);
    if (!value.is_connected)
        return err_set(err, ERR_LINK, "%s is not connected; is the IOC running?", channel->name);
    if (!channel->reals) {
        channel->reals = calloc(EPICS_ARRAY_MAX, sizeof channel->reals[0]);
        assert(channel->reals);
    }
    pthread_mutex_lock(&channel->epics->mutex);
    bool was_fetching = channel->is_fetching;
    channel->is_fetching = true;
    pthread_mutex_unlock(&channel->epics->mutex);
    if (was_fetching)
        return err_set(err, ERR_STATE, "%s has not answered the last request yet", channel->name);
    int status = ca_array_get_callback(DBR_TIME_DOUBLE, 0, channel->id, on_fetched, channel); /* 0: what is there */
    ca_flush_io();
    if (status == ECA_NORMAL)
        return 0;
    pthread_mutex_lock(&channel->epics->mutex);
    channel->is_fetching = false;
    pthread_mutex_unlock(&channel->epics->mutex);
    return err_set(err, status == ECA_DISCONN ? ERR_LINK : ERR_REFUSED, "%s cannot be read: %s", channel->name,
                   ca_message(status));
}

int epics_channel_fetch(struct epics_channel *channel, double *ret_reals, int n_max, struct epics_value *ret_value,
                        double timeout_s, struct err *err)
{
    uint64_t n_seen = 0;
    int64_t deadline = clock_wall_ns() + ns_from_s(timeout_s);
    int code = fetch_begin(channel, err);
    if (code)
        return code;
    for (;;) {
        bool is_late = !epics_wait(channel->epics, &n_seen, deadline);
        pthread_mutex_lock(&channel->epics->mutex);
        bool is_over = !channel->is_fetching;
        int status = channel->fetch_outcome;
        long n = channel->n_reals;
        if (is_over && status == ECA_NORMAL && n <= n_max && n <= EPICS_ARRAY_MAX) {
            memcpy(ret_reals, channel->reals, (size_t)n * sizeof ret_reals[0]);
            *ret_value = channel->fetched;
        }
        pthread_mutex_unlock(&channel->epics->mutex);
        if (is_over && status == ECA_DISCONN)
            return err_set(err, ERR_LINK, "%s: connection lost while it was read", channel->name);
        if (is_over && status != ECA_NORMAL)
            return err_set(err, ERR_REFUSED, "%s cannot be read: %s", channel->name, ca_message(status));
        if (is_over)
            return n <= n_max && n <= EPICS_ARRAY_MAX
                       ? (int)n
                       : err_set(err, ERR_DATA, "%s has %ld values, expected at most %d", channel->name, n,
                                 n_max < EPICS_ARRAY_MAX ? n_max : EPICS_ARRAY_MAX);
        if (is_late)
            return err_set(err, ERR_TIMEOUT, "%s was not told within %g s", channel->name, timeout_s);
    }
}

int epics_wait_connected(struct epics *epics, const char *prefix, double timeout_s, struct err *err)
{
    int64_t deadline = clock_wall_ns() + ns_from_s(timeout_s);
    uint64_t n_seen = 0;
    for (;;) {
        int n_missing = 0, n_channels = 0;
        const char *missing = "";
        pthread_mutex_lock(&epics->mutex);
        for (int i = 0; i < epics->n_channels; i++) {
            const struct epics_channel *channel = &epics->channels[i];
            bool is_meant = strncmp(channel->name, prefix, strlen(prefix)) == 0;
            n_channels += is_meant;
            if (is_meant && !channel->value.is_known)
                missing = n_missing++ ? missing : channel->name;
        }
        pthread_mutex_unlock(&epics->mutex);
        if (n_missing == 0)
            return 0;
        if (!epics_wait(epics, &n_seen, deadline))
            return err_set(err, ERR_TIMEOUT,
                           "%d of %d EPICS channels not connected within %g s, among them %s; is the IOC running, and "
                           "is ca_address %s right?",
                           n_missing, n_channels, timeout_s, missing, getenv("EPICS_CA_ADDR_LIST"));
    }
}

/* ---- puts ---------------------------------------------------------------------------------------------------- */

struct payload {
    chtype type;
    unsigned long count;
    const void *data;
    double real;
    char text[EPICS_TEXT_MAX];
};

/* A text as the channel wants it: 256 CHAR records take an array, all others a string of 40. */
static int payload_text(struct payload *payload, struct epics_channel *channel, const char *text, struct err *err)
{
    bool is_array = ca_field_type(channel->id) == DBF_CHAR;
    size_t length = strlen(text), length_max = is_array ? ca_element_count(channel->id) : MAX_STRING_SIZE;
    if (length >= length_max || length >= sizeof payload->text)
        return err_set(err, ERR_ARG, "%s: text of %zu letters refused, at most %zu", channel->name, length,
                       length_max - 1);
    memset(payload->text, 0, sizeof payload->text);
    memcpy(payload->text, text, length);
    payload->type = is_array ? DBR_CHAR : DBR_STRING;
    payload->count = is_array ? length + 1 : 1;
    payload->data = payload->text;
    return 0;
}

static int check_channel(struct epics_channel *channel, struct err *err)
{
    struct epics_value value;
    attach(channel->epics);
    epics_channel_read(channel, &value);
    if (!value.is_connected)
        return err_set(err, ERR_LINK, "%s is not connected; is the IOC running?", channel->name);
    if (!ca_write_access(channel->id))
        return err_set(err, ERR_REFUSED, "%s may not be written by this computer; ask who runs the IOC", channel->name);
    return 0;
}

static int outcome_code(const struct epics_channel *channel, int status, struct err *err)
{
    if (status == ECA_NORMAL)
        return 0;
    if (status == ECA_DISCONN || status == ECA_DISCONNCHID)
        return err_set(err, ERR_LINK, "%s: connection lost during a put; its outcome is unknown", channel->name);
    return err_set(err, ERR_REFUSED, "%s: put refused: %s", channel->name, ca_message(status));
}

static int begin(struct epics_channel *channel, const struct payload *payload, struct err *err)
{
    pthread_mutex_lock(&channel->epics->mutex);
    bool was_pending = channel->is_pending;
    channel->is_pending = true;
    pthread_mutex_unlock(&channel->epics->mutex);
    if (was_pending)
        return err_set(err, ERR_STATE, "%s: an earlier put has not ended yet", channel->name);
    int status = ca_array_put_callback(payload->type, payload->count, channel->id, payload->data, on_put, channel);
    if (status != ECA_NORMAL) {
        pthread_mutex_lock(&channel->epics->mutex);
        channel->is_pending = false;
        channel->outcome = status;
        pthread_mutex_unlock(&channel->epics->mutex);
        return outcome_code(channel, status, err);
    }
    ca_flush_io();
    return 0;
}

static int put(struct epics_channel *channel, const struct payload *payload, double timeout_s, struct err *err)
{
    uint64_t n_seen = 0;
    int64_t deadline = clock_wall_ns() + ns_from_s(timeout_s);
    int code = begin(channel, payload, err);
    if (code)
        return code;
    while (epics_channel_is_pending(channel))
        if (!epics_wait(channel->epics, &n_seen, deadline))
            return err_set(err, ERR_TIMEOUT, "%s: put not done within %g s; its outcome is unknown", channel->name,
                           timeout_s);
    return epics_channel_outcome(channel, err);
}

int epics_channel_put_real(struct epics_channel *channel, double value, double timeout_s, struct err *err)
{
    struct payload payload = {.type = DBR_DOUBLE, .count = 1, .real = value};
    payload.data = &payload.real;
    int code = check_channel(channel, err);
    return code ? code : put(channel, &payload, timeout_s, err);
}

int epics_channel_put_text(struct epics_channel *channel, const char *text, double timeout_s, struct err *err)
{
    struct payload payload;
    int code = check_channel(channel, err);
    if (code == 0)
        code = payload_text(&payload, channel, text, err);
    return code ? code : put(channel, &payload, timeout_s, err);
}

int epics_channel_begin_text(struct epics_channel *channel, const char *text, struct err *err)
{
    struct payload payload;
    int code = check_channel(channel, err);
    if (code == 0)
        code = payload_text(&payload, channel, text, err);
    return code ? code : begin(channel, &payload, err);
}

bool epics_channel_is_pending(struct epics_channel *channel)
{
    pthread_mutex_lock(&channel->epics->mutex);
    bool is_pending = channel->is_pending;
    pthread_mutex_unlock(&channel->epics->mutex);
    return is_pending;
}

int epics_channel_outcome(struct epics_channel *channel, struct err *err)
{
    pthread_mutex_lock(&channel->epics->mutex);
    int status = channel->outcome;
    pthread_mutex_unlock(&channel->epics->mutex);
    return outcome_code(channel, status, err);
}

int epics_channel_send_text(struct epics_channel *channel, const char *text, struct err *err)
{
    struct payload payload;
    int code = check_channel(channel, err);
    if (code == 0)
        code = payload_text(&payload, channel, text, err);
    if (code)
        return code;
    int status = ca_array_put(payload.type, payload.count, channel->id, payload.data);
    ca_flush_io();
    return outcome_code(channel, status, err);
}

int epics_channel_send_real(struct epics_channel *channel, double value, struct err *err)
{
    int code = check_channel(channel, err);
    if (code)
        return code;
    int status = ca_array_put(DBR_DOUBLE, 1, channel->id, &value);
    ca_flush_io();
    return outcome_code(channel, status, err);
}
