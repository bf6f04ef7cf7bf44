/* The storage ring's current, as its PV says. Never blocks, never writes. */
#ifndef DRIVERS_RING_H
#define DRIVERS_RING_H

#include <stdbool.h>

#include "base/err.h"
#include "drivers/epics.h"

struct ring;

/* `current_pv` in mA. Errors: those of epics_channel_open. Free with ring_close, before the context. */
int ring_open(struct ring **ret_ring, struct epics *epics, const char *current_pv, struct err *err);
void ring_close(struct ring *ring);

/* The latest current. It is valid while the channel is connected and its alarm severity is not INVALID; otherwise the
 * current is not touched. A current that does not change may arrive once only: age is no sign of invalidity. */
void ring_read(struct ring *ring, double *ret_current_ma, bool *ret_is_valid);

#endif
