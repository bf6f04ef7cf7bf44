#include "drivers/thermometer.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"

struct thermometer {
    struct epics *epics;
    struct epics_channel *channel;
};

int thermometer_open(struct thermometer **ret_thermometer, struct epics *epics, const char *temperature_pv,
                     struct err *err)
{
    struct epics_channel *channel;
    int code = epics_channel_open_number(&channel, epics, temperature_pv, err);
    if (code)
        return code;
    struct thermometer *thermometer = malloc(sizeof *thermometer);
    assert(thermometer);
    *thermometer = (struct thermometer){.epics = epics, .channel = channel};
    *ret_thermometer = thermometer;
    return 0;
}

void thermometer_close(struct thermometer *thermometer) { free(thermometer); }

int thermometer_read(struct thermometer *thermometer, double timeout_s, double *ret_temperature_k,
                     int64_t *ret_stamp_ns, struct err *err)
{
    struct epics_value value;
    double kelvin;
    uint64_t n_seen = 0;
    int64_t deadline_ns = clock_wall_ns() + ns_from_s(timeout_s);
    epics_channel_read(thermometer->channel, &value);
    while (!value.is_connected && epics_wait(thermometer->epics, &n_seen, deadline_ns))
        epics_channel_read(thermometer->channel, &value);
    int n = epics_channel_fetch(thermometer->channel, &kelvin, 1, &value, timeout_s, err);
    if (n < 0)
        return n;
    const char *name = epics_channel_name(thermometer->channel);
    if (n != 1)
        return err_set(err, ERR_DATA, "%s holds %d values, expected one", name, n);
    if (value.severity >= EPICS_INVALID)
        return err_set(err, ERR_STATE, "%s has the severity INVALID", name);
    *ret_temperature_k = kelvin;
    *ret_stamp_ns = value.stamp_ns;
    return 0;
}
