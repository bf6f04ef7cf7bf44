#include "tests/nights/fault.h"

#include <assert.h>

static const struct fault_kind faults[FAULT_COUNT] = {
#define X(name, lasts_s, begin, end, reasons, where, outcome, excuses, text)                                           \
    {#name, text, lasts_s, EVENT_##begin, EVENT_##end, reasons, where, outcome, excuses},
    FAULT_LIST(X)
#undef X
};

static const struct moment_kind moments[MOMENT_COUNT] = {
#define X(name, place, phase, state, direction, is_scanning, lasts_s_min)                                              \
    {#name, place, phase, state, direction, is_scanning, lasts_s_min},
    MOMENT_LIST(X)
#undef X
};

const struct fault_kind *fault_kind(enum fault fault)
{
    assert(fault >= 0 && fault < FAULT_COUNT);
    return &faults[fault];
}

const struct moment_kind *moment_kind(enum moment moment)
{
    assert(moment >= 0 && moment < MOMENT_COUNT);
    return &moments[moment];
}
