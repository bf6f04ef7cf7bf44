/*
 * What a kind of membrane controller provides to drivers/membrane. A device is an open connection: any failure ends it
 * (drivers/membrane closes it). Values come as they were read; drivers/membrane judges them.
 */
#ifndef DRIVERS_MEMBRANE_CLASS_H
#define DRIVERS_MEMBRANE_CLASS_H

#include "drivers/membrane.h"

#define MEMBRANE_ANSWER_MS 1000
#define MEMBRANE_CAPACITY_BAR_MAX 1000.0 /* no membrane line is built for more */

struct membrane_identity {
    double capacity_bar;
    double slew_bar_per_min_min; /* the slowest it can be programmed to; 0: any, or no slew at all */
};

struct membrane_class {
    const char *driver;
    /* Connects, and refuses a device that is another, works in another unit, or would act on its own. */
    int (*open)(void **ret_device, const struct membrane_settings *settings, struct membrane_identity *ret_identity,
                struct err *err);
    /* Begins with a signature that differs in form from what follows it: an answer that belongs to an earlier request
     * is noticed before a value is believed. */
    int (*read)(void *device, struct membrane_reading *ret_reading, struct err *err);
    int (*read_setpoint)(void *device, double *ret_held_bar, struct err *err);
    /* Refuses when the device would not follow, or would jump; writes once; `ret_held_bar` is read back. */
    int (*write_setpoint)(void *device, double membrane_bar, double *ret_held_bar, struct err *err);
    int (*write_slew)(void *device, double slew_bar_per_min, struct err *err);
    /* Valves shut and confirmed. */
    int (*shut)(void *device, struct err *err);
    /* Of a device whose valves are shut: it moves nothing. */
    int (*lay_setpoint)(void *device, double membrane_bar, struct err *err);
    void (*close)(void *device);
};

extern const struct membrane_class membrane_elpress_class;
extern const struct membrane_class membrane_alicat_class;
extern const struct membrane_class membrane_pace_class;

#endif
