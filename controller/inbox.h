/*
 * The inbox: where everything that happens waits for the control thread. Bounded, any number of writers, one reader.
 * A writer never waits: an event that finds it full is counted and dropped, and the count is a fault that is shown.
 */
#ifndef CONTROLLER_INBOX_H
#define CONTROLLER_INBOX_H

#include <stdbool.h>

#include "base/clock.h"
#include "controller/event.h"

struct inbox;

struct inbox *inbox_new(const struct clock *clock);
void inbox_free(struct inbox *inbox);

/* Posts an event; its arrival is stamped here. False when full. */
bool inbox_post(struct inbox *inbox, const struct event *event);

/* An event of `kind` with a text (may be NULL), ready to be filled further and posted. */
struct event inbox_event(enum event_kind kind, const char *text);

/* Takes the oldest event; waits up to `wall_ms_max`. False when there is none. */
bool inbox_take(struct inbox *inbox, struct event *ret_event, int wall_ms_max);

/* Events dropped so far. */
int64_t inbox_dropped(struct inbox *inbox);

#endif
