#include "drivers/ring.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct ring {
    struct epics_channel *current;
};

int ring_open(struct ring **ret_ring, struct epics *epics, const char *current_pv, struct err *err)
{
    struct epics_channel *current;
    int code = epics_channel_open(&current, epics, current_pv, err);
    if (code)
        return code;
    struct ring *ring = malloc(sizeof *ring);
    assert(ring);
    ring->current = current;
    *ret_ring = ring;
    return 0;
}

void ring_close(struct ring *ring) { free(ring); }

void ring_read(struct ring *ring, double *ret_current_ma, bool *ret_is_valid)
{
    struct epics_value value;
    epics_channel_read(ring->current, &value);
    *ret_is_valid = value.is_known && value.severity < EPICS_INVALID && isfinite(value.real);
    if (*ret_is_valid)
        *ret_current_ma = value.real;
}
