#include "controller/replay.h"

#include <stdlib.h>
#include <string.h>

#include "controller/core.h"
#include "db/store.h"

struct replay {
    struct store_reader *reader;
    struct store_rows *events, *decisions;
    bool has_decision; /* the next recorded decision, not yet compared */
    struct core core;
    struct core_settings settings;
    struct replay_report report;
};

static int read_settings(struct replay *replay, struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(&rows, replay->reader, "SELECT core_settings FROM run", NULL, 0, err);
    if (code)
        return code;
    code = store_rows_next(rows, err);
    size_t n_bytes = 0;
    const void *bytes = code == 1 ? store_rows_blob(rows, 0, &n_bytes) : NULL;
    if (code == 0)
        code = err_set(err, ERR_DATA, "no run is recorded in this database");
    else if (code == 1 && n_bytes != sizeof replay->settings)
        code = err_set(err, ERR_DATA,
                       "this run was recorded by another version of the core (settings of %zu bytes, expected %zu); "
                       "replay it with the version named in its run row",
                       n_bytes, sizeof replay->settings);
    if (code == 1) {
        memcpy(&replay->settings, bytes, n_bytes);
        code = 0;
    }
    store_rows_close(rows);
    return code;
}

static int next_decision(struct replay *replay, struct err *err)
{
    int code = store_rows_next(replay->decisions, err);
    replay->has_decision = code == 1;
    return code < 0 ? code : 0;
}

static int differ(const struct event *event, const char *then, const char *now, struct err *err)
{
    return err_set(err, ERR_DATA, "event %lld (%s, pass %lld): recorded decision '%s', replayed decision '%s'",
                   (long long)event->seq, event_kind_name(event->kind), (long long)event->pass, then, now);
}

static int compare(struct replay *replay, const struct event *event, const struct core_actions *actions,
                   struct err *err)
{
    for (int i = 0; i < actions->n; i++) {
        const struct action *action = &actions->list[i];
        size_t n_bytes = 0;
        bool is_here = replay->has_decision && store_rows_integer(replay->decisions, 0) == event->seq;
        if (!is_here)
            return differ(event, "none", action_kind_name(action->kind), err);
        const void *bytes = store_rows_blob(replay->decisions, 2, &n_bytes);
        if (n_bytes != sizeof *action || memcmp(bytes, action, n_bytes) != 0)
            return differ(event, store_rows_text(replay->decisions, 1), action_kind_name(action->kind), err);
        replay->report.n_decisions++;
        int code = next_decision(replay, err);
        if (code)
            return code;
    }
    if (replay->has_decision && store_rows_integer(replay->decisions, 0) == event->seq)
        return differ(event, store_rows_text(replay->decisions, 1), "none", err);
    return 0;
}

static int replay_events(struct replay *replay, struct err *err)
{
    int code = next_decision(replay, err);
    while (code == 0 && (code = store_rows_next(replay->events, err)) == 1) {
        struct event event;
        struct core_actions actions;
        size_t n_bytes;
        const void *bytes = store_rows_blob(replay->events, 0, &n_bytes);
        if (n_bytes != sizeof event)
            return err_set(err, ERR_DATA, "an event of %zu bytes, expected %zu: recorded by another version", n_bytes,
                           sizeof event);
        memcpy(&event, bytes, sizeof event);
        core_step(&replay->core, &event, &actions);
        replay->report.n_events++;
        replay->report.n_passes = event.pass;
        code = compare(replay, &event, &actions, err);
    }
    return code;
}

int replay_run(const char *db_path, struct replay_report *ret_report, struct err *err)
{
    struct replay *replay = calloc(1, sizeof *replay);
    if (!replay)
        return err_set(err, ERR_SYSTEM, "no memory for a replay");
    int code = store_reader_open(&replay->reader, db_path, err);
    if (code == 0)
        code = read_settings(replay, err);
    if (code == 0)
        code = store_rows_open(&replay->events, replay->reader, "SELECT payload FROM event ORDER BY seq", NULL, 0, err);
    if (code == 0)
        code =
            store_rows_open(&replay->decisions, replay->reader,
                            "SELECT event_seq, kind, payload FROM decision ORDER BY event_seq, ordinal", NULL, 0, err);
    if (code == 0) {
        core_init(&replay->core, &replay->settings);
        code = replay_events(replay, err);
    }
    if (code == 0)
        *ret_report = replay->report;
    if (replay->events)
        store_rows_close(replay->events);
    if (replay->decisions)
        store_rows_close(replay->decisions);
    if (replay->reader)
        store_reader_close(replay->reader);
    free(replay);
    return code;
}
