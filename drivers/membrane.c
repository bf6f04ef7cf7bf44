#include "drivers/membrane.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/membrane_class.h"

#define OVERRANGE 1.3107       /* of full scale: where the raw scale of an EL-PRESS ends, and beyond any other's */
#define SETPOINT_STEPS 32000.0 /* of full scale: what a device may round to */

struct membrane {
    const struct membrane_class *class;
    void *device; /* NULL while the link is down */
    struct membrane_settings settings;
    char address[128];
    double capacity_bar; /* 0: not known yet */
    double supply_bar;   /* as last read; NaN: not known */
    double known_bar;    /* set point as last read or written; NaN: not known */
};

static const struct membrane_class *const classes[] = {&membrane_elpress_class, &membrane_alicat_class,
                                                       &membrane_pace_class};

/* A device that failed, or that we do not trust, is left alone. */
static int leave(struct membrane *membrane, int code)
{
    if (membrane->device)
        membrane->class->close(membrane->device);
    membrane->device = NULL;
    return code;
}

static int identity_check(const struct membrane *membrane, const struct membrane_identity *identity, struct err *err)
{
    const struct membrane_settings *settings = &membrane->settings;
    double capacity_bar = identity->capacity_bar;
    if (!(capacity_bar >= 1 && capacity_bar <= MEMBRANE_CAPACITY_BAR_MAX))
        return err_set(
            err, ERR_DATA,
            "membrane controller: full scale reads %g bar, expected 1 to %g; not driven; check the model and "
            "its unit",
            capacity_bar, MEMBRANE_CAPACITY_BAR_MAX);
    if (membrane->capacity_bar > 0 && membrane->capacity_bar != capacity_bar)
        return err_set(err, ERR_DATA,
                       "membrane controller: full scale changed from %g to %g bar; not driven; is it another device?",
                       membrane->capacity_bar, capacity_bar);
    if (!(settings->membrane_bar_max <= capacity_bar))
        return err_set(
            err, ERR_STATE,
            "membrane controller: full scale %g bar does not reach membrane_bar_max %g bar; not driven; lower "
            "membrane_bar_max in the beamline file, or connect the controller that was meant",
            capacity_bar, settings->membrane_bar_max);
    if (settings->slew_bar_per_min_max > 0 && !(identity->slew_bar_per_min_min <= settings->slew_bar_per_min_max))
        return err_set(
            err, ERR_STATE,
            "membrane controller: its slowest slew is %g bar/min, above slew_bar_per_min_max %g; not driven; "
            "raise slew_bar_per_min_max in the beamline file if the cell stands it, or use a controller of "
            "smaller range",
            identity->slew_bar_per_min_min, settings->slew_bar_per_min_max);
    return 0;
}

/* A link that stands and a device that was checked on it. */
static int link_open(struct membrane *membrane, struct err *err)
{
    if (membrane->device)
        return 0;
    struct membrane_identity identity;
    int code = membrane->class->open(&membrane->device, &membrane->settings, &identity, err);
    if (code)
        return code;
    if ((code = identity_check(membrane, &identity, err)))
        return leave(membrane, code);
    membrane->capacity_bar = identity.capacity_bar;
    return 0;
}

static bool is_within(double value, double min, double max) { return value >= min && value <= max; }

/* What no such device can have measured is refused: NaN, infinities, values out of all range. */
static int reading_check(const struct membrane *membrane, const struct membrane_reading *reading, struct err *err)
{
    double capacity_bar = membrane->capacity_bar, over_bar = OVERRANGE * capacity_bar;
    if (reading->capacity_bar != capacity_bar)
        return err_set(err, ERR_DATA,
                       "membrane controller: full scale changed from %g to %g bar; link closed; is it another device?",
                       capacity_bar, reading->capacity_bar);
    const struct {
        const char *name;
        double value, min, max;
    } values[] = {{"measured pressure", reading->membrane_bar, capacity_bar - over_bar, over_bar},
                  {"set point", reading->membrane_bar_setpoint, 0, capacity_bar},
                  {"supply", isnan(reading->supply_bar) ? 0 : reading->supply_bar, -MEMBRANE_CAPACITY_BAR_MAX,
                   MEMBRANE_CAPACITY_BAR_MAX}};
    for (int i = 0; i < 3; i++)
        if (!is_within(values[i].value, values[i].min, values[i].max))
            return err_set(err, ERR_DATA,
                           "membrane controller: %s reads %g bar, expected %g to %g; reading refused; check the sensor "
                           "and the model",
                           values[i].name, values[i].value, values[i].min, values[i].max);
    if (!(reading->slew_bar_per_min >= 0))
        return err_set(
            err, ERR_DATA,
            "membrane controller: slew reads %g bar/min, expected 0 or more; reading refused; check the model",
            reading->slew_bar_per_min);
    return 0;
}

int membrane_open(struct membrane **ret_membrane, const struct membrane_settings *settings, struct err *err)
{
    struct membrane fresh = {.settings = *settings, .supply_bar = NAN, .known_bar = NAN};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i]->driver, settings->driver) == 0)
            fresh.class = classes[i];
    if (!fresh.class)
        return err_set(err, ERR_ARG, "membrane controller driver \"%s\" refused: expected bronkhorst, alicat or pace",
                       settings->driver);
    if (strlen(settings->address) >= sizeof fresh.address)
        return err_set(err, ERR_ARG, "membrane controller address \"%s\" refused: too long", settings->address);
    struct membrane *membrane = malloc(sizeof *membrane);
    assert(membrane);
    *membrane = fresh;
    snprintf(membrane->address, sizeof membrane->address, "%s", settings->address);
    membrane->settings.address = membrane->address;
    membrane->settings.driver = membrane->class->driver;
    if (membrane->settings.answer_ms == 0)
        membrane->settings.answer_ms = MEMBRANE_ANSWER_MS;
    int code = link_open(membrane, err);
    if (code)
        free(membrane);
    else
        *ret_membrane = membrane;
    return code;
}

int membrane_read(struct membrane *membrane, struct membrane_reading *ret_reading, struct err *err)
{
    struct membrane_reading reading;
    int code = link_open(membrane, err);
    if (code)
        return code;
    if ((code = membrane->class->read(membrane->device, &reading, err)) ||
        (code = reading_check(membrane, &reading, err)))
        return leave(membrane, code);
    membrane->supply_bar = reading.supply_bar;
    membrane->known_bar = reading.membrane_bar_setpoint;
    *ret_reading = reading;
    return 0;
}

static double setpoint_tolerance_bar(const struct membrane *membrane)
{
    return membrane->capacity_bar / SETPOINT_STEPS;
}

/* Between a reading and a write somebody else may have been at the device: that must be seen, not written over. */
static int foreign_check(struct membrane *membrane, struct err *err)
{
    double held_bar;
    int code = membrane->class->read_setpoint(membrane->device, &held_bar, err);
    if (code)
        return leave(membrane, code);
    if (isnan(membrane->known_bar) || fabs(held_bar - membrane->known_bar) <= 2 * setpoint_tolerance_bar(membrane))
        return 0;
    return err_set(err, ERR_STATE,
                   "membrane controller: its set point was changed from %g to %g bar by somebody else; nothing was "
                   "written",
                   membrane->known_bar, held_bar);
}

int membrane_write_setpoint(struct membrane *membrane, double membrane_bar, struct err *err)
{
    int code = link_open(membrane, err);
    if (code)
        return code;
    if (!(membrane_bar >= 0 && membrane_bar <= membrane->capacity_bar))
        return err_set(err, ERR_LIMIT,
                       "membrane set point %g bar refused: expected 0 to full scale %g bar; nothing was written",
                       membrane_bar, membrane->capacity_bar);
    if (membrane_bar > membrane->supply_bar) /* false when the supply is not known */
        return err_set(err, ERR_LIMIT,
                       "membrane set point %g bar refused: above the supply %g bar; nothing was written; check the "
                       "bottle and its regulator",
                       membrane_bar, membrane->supply_bar);
    double held_bar;
    if ((code = foreign_check(membrane, err)))
        return code;
    membrane->known_bar = NAN;
    if ((code = membrane->class->write_setpoint(membrane->device, membrane_bar, &held_bar, err)))
        return leave(membrane, code);
    if (!(fabs(held_bar - membrane_bar) <= setpoint_tolerance_bar(membrane))) {
        code = err_set(err, ERR_REFUSED,
                       "membrane set point %g bar was written, but the controller holds %g bar; check who else writes "
                       "to it",
                       membrane_bar, held_bar);
        return leave(membrane, code);
    }
    membrane->known_bar = held_bar;
    return 0;
}

int membrane_write_slew(struct membrane *membrane, double slew_bar_per_min, struct err *err)
{
    if (!(slew_bar_per_min > 0 && slew_bar_per_min < INFINITY))
        return err_set(err, ERR_LIMIT, "membrane slew %g bar/min refused: expected more than 0; nothing was written",
                       slew_bar_per_min);
    int code = link_open(membrane, err);
    if (code == 0 && (code = membrane->class->write_slew(membrane->device, slew_bar_per_min, err)))
        return leave(membrane, code);
    return code;
}

int membrane_shut(struct membrane *membrane, struct err *err)
{
    struct membrane_reading reading;
    int code = link_open(membrane, err);
    if (code)
        return code;
    if ((code = membrane->class->shut(membrane->device, err)))
        return leave(membrane, code);
    if ((code = membrane_read(membrane, &reading, err)))
        return err_prefix(err, "valves shut, set point not laid");
    membrane->known_bar = NAN;
    double membrane_bar = fmin(fmax(reading.membrane_bar, 0), membrane->capacity_bar);
    if ((code = membrane->class->lay_setpoint(membrane->device, membrane_bar, err)))
        return leave(membrane, code);
    return 0;
}

void membrane_close(struct membrane *membrane)
{
    if (!membrane)
        return;
    leave(membrane, 0);
    free(membrane);
}
