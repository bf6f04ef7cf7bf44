#include "drivers/elpress.h"

#include <assert.h>
#include <math.h>

const struct registers_entry elpress_registers[ELPRESS_PARAMETER_COUNT] = {
#define X(name, address, n_registers, type, is_writable, least, greatest)                                              \
    [ELPRESS_##name] = {#name, address, n_registers, type, is_writable, least, greatest},
    ELPRESS_LIST(X)
#undef X
};

int elpress_slope_from_rate(double rate_bar_per_min, double capacity_bar)
{
    assert(rate_bar_per_min > 0 && capacity_bar > 0);
    double slope = capacity_bar / (rate_bar_per_min / 60) / ELPRESS_SLOPE_S;
    double slope_max = elpress_registers[ELPRESS_SLOPE].greatest;
    if (!(slope < slope_max))
        return (int)slope_max;
    int slope_next = (int)ceil(slope * (1 - 1e-12)); /* a rate the device can do exactly must not be rounded past it */
    return slope_next > 1 ? slope_next : 1;
}

double elpress_rate_from_slope(int slope, double capacity_bar)
{
    return slope > 0 ? capacity_bar / (slope * ELPRESS_SLOPE_S) * 60 : INFINITY;
}
