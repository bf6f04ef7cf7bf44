/*
 * A thermometer at the cell, as its PV says. Never writes, never judges: controller/temperature does.
 *
 * It is asked, not listened to: a temperature that does not change does not arrive, and a thermometer that hangs does
 * not either. The time stamp of the answer tells the two apart.
 */
#ifndef DRIVERS_THERMOMETER_H
#define DRIVERS_THERMOMETER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "drivers/epics.h"

struct thermometer;

/* `temperature_pv` in K. Errors: those of epics_channel_open. Free with thermometer_close, before the context. */
int thermometer_open(struct thermometer **ret_thermometer, struct epics *epics, const char *temperature_pv,
                     struct err *err);
void thermometer_close(struct thermometer *thermometer); /* NULL is fine */

/* What it says now, within `timeout_s` of wall time; a channel that is not connected is waited for, too. The stamp is
 * of the record's last processing, by the IOC's clock. Errors: those of epics_channel_fetch; ERR_STATE (severity
 * INVALID); ERR_DATA (not one number). */
int thermometer_read(struct thermometer *thermometer, double timeout_s, double *ret_temperature_k,
                     int64_t *ret_stamp_ns, struct err *err);

#endif
