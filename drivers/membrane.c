#include "drivers/membrane.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <modbus.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/address.h"
#include "drivers/elpress.h"

#define ANSWER_S_MAX 1           /* field reports: 0.5 s loses one answer in 200, 0.6 s none */
#define CAPACITY_BAR_MAX 1000.0  /* no membrane line is built for more */
#define MEASURE_OVERRANGE 1.3107 /* the raw scale ends at 41942 / 32000 of full scale */
#define SETPOINT_STEPS 32000.0   /* of full scale: what the device may round to */

struct membrane {
    modbus_t *modbus; /* NULL while the link is down */
    struct address address;
    int unit_id;
    double capacity_bar;
};

static void link_close(struct membrane *membrane)
{
    if (!membrane->modbus)
        return;
    modbus_close(membrane->modbus);
    modbus_free(membrane->modbus);
    membrane->modbus = NULL;
}

/* Names a failure by errno, closes the link. */
static int link_fail(struct membrane *membrane, const char *what, const char *name, struct err *err)
{
    int failure = errno;
    link_close(membrane);
    const char *place = membrane->address.place;
    int port = membrane->address.port;
    if (failure == ETIMEDOUT || failure == EINPROGRESS)
        return err_set(err, ERR_TIMEOUT,
                       "membrane controller at %s:%d: no answer within %d s (%s %s); check its power and cable", place,
                       port, ANSWER_S_MAX, what, name);
    if (failure > MODBUS_ENOBASE && failure <= EMBXGTAR)
        return err_set(err, ERR_REFUSED, "membrane controller at %s:%d refused: %s %s: %s; check unit number and model",
                       place, port, what, name, modbus_strerror(failure));
    if (failure > EMBXGTAR)
        return err_set(err, ERR_PROTOCOL,
                       "membrane controller at %s:%d: answer not understood (%s %s): %s; link closed", place, port,
                       what, name, modbus_strerror(failure));
    return err_set(err, ERR_LINK, "membrane controller at %s:%d: link lost (%s %s): %s; check its power and cable",
                   place, port, what, name, modbus_strerror(failure));
}

static int refuse(struct membrane *membrane, int code) /* after err_set: a device we do not trust is left alone */
{
    link_close(membrane);
    return code;
}

static int registers_read(struct membrane *membrane, enum elpress_parameter parameter, uint16_t *ret_registers,
                          struct err *err)
{
    const struct elpress_register *r = &elpress_registers[parameter];
    if (modbus_read_registers(membrane->modbus, r->address, r->n_registers, ret_registers) != r->n_registers)
        return link_fail(membrane, "reading", r->name, err);
    return 0;
}

static int integer_read(struct membrane *membrane, enum elpress_parameter parameter, int *ret_value, struct err *err)
{
    uint16_t word;
    int code = registers_read(membrane, parameter, &word, err);
    if (code)
        return code;
    const struct elpress_register *r = &elpress_registers[parameter];
    if (r->type == ELPRESS_U8 && word > 255) {
        err_set(err, ERR_DATA,
                "membrane controller: %s reads %u, expected a byte; this is not the register map of an EL-PRESS",
                r->name, word);
        return refuse(membrane, ERR_DATA);
    }
    *ret_value = word;
    return 0;
}

/* A float of the map within [min, max]: NaN and infinities are refused. */
static int float_read(struct membrane *membrane, enum elpress_parameter parameter, double min, double max,
                      double *ret_value, struct err *err)
{
    uint16_t words[2];
    int code = registers_read(membrane, parameter, words, err);
    if (code)
        return code;
    double value = elpress_unpack_float(words);
    if (!(value >= min && value <= max)) {
        err_set(
            err, ERR_DATA,
            "membrane controller: %s reads %g bar, expected %g to %g; reading refused; check the sensor and the model",
            elpress_registers[parameter].name, value, min, max);
        return refuse(membrane, ERR_DATA);
    }
    *ret_value = value;
    return 0;
}

static int unit_check(struct membrane *membrane, struct err *err)
{
    uint16_t words[ELPRESS_REGISTERS_MAX];
    char unit[2 * ELPRESS_REGISTERS_MAX + 1];
    int code = registers_read(membrane, ELPRESS_CAPACITY_UNIT, words, err);
    if (code)
        return code;
    elpress_unpack_string(words, elpress_registers[ELPRESS_CAPACITY_UNIT].n_registers, unit);
    if (strcmp(unit, "bar") == 0)
        return 0;
    for (char *c = unit; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    err_set(err, ERR_DATA,
            "membrane controller works in \"%s\", expected \"bar\"; nothing was written; set its capacity unit to bar",
            unit);
    return refuse(membrane, ERR_DATA);
}

static int mode_check(struct membrane *membrane, struct err *err)
{
    int mode;
    int code = integer_read(membrane, ELPRESS_CONTROL_MODE, &mode, err);
    if (code || mode == ELPRESS_MODE_DIGITAL)
        return code;
    err_set(err, ERR_STATE,
            "membrane controller is in control mode %d, expected %d (digital); nothing was written; give it back to "
            "the bus "
            "at its panel",
            mode, ELPRESS_MODE_DIGITAL);
    return refuse(membrane, ERR_STATE);
}

static int identity_check(struct membrane *membrane, struct err *err)
{
    double zero_bar;
    int alarm_mode, code;
    if ((code = unit_check(membrane, err)) ||
        (code = float_read(membrane, ELPRESS_CAPACITY, 1, CAPACITY_BAR_MAX, &membrane->capacity_bar, err)) ||
        (code = float_read(membrane, ELPRESS_CAPACITY_ZERO, 0, 0, &zero_bar, err)) ||
        (code = integer_read(membrane, ELPRESS_ALARM_SETPOINT_MODE, &alarm_mode, err)))
        return code;
    if (alarm_mode == 0)
        return 0;
    err_set(err, ERR_STATE,
            "membrane controller would move to a set point of its own on an alarm (alarm set point mode %d, expected "
            "0); switch "
            "that off",
            alarm_mode);
    return refuse(membrane, ERR_STATE);
}

/* A link that stands and a device that was checked on it. */
static int link_open(struct membrane *membrane, struct err *err)
{
    if (membrane->modbus)
        return 0;
    char service[8];
    snprintf(service, sizeof service, "%d", membrane->address.port);
    membrane->modbus = modbus_new_tcp_pi(membrane->address.place, service);
    if (!membrane->modbus)
        return err_set(err, ERR_ARG, "membrane controller address %s refused", membrane->address.place);
    /* Recovery stays off: libmodbus would repeat a request for ever on a broken link. Without a byte timeout the
     * response timeout bounds the whole answer, however slowly it drips. */
    modbus_set_error_recovery(membrane->modbus, MODBUS_ERROR_RECOVERY_NONE);
    modbus_set_response_timeout(membrane->modbus, ANSWER_S_MAX, 0);
    modbus_set_byte_timeout(membrane->modbus, 0, 0);
    modbus_set_slave(membrane->modbus, membrane->unit_id);
    if (modbus_connect(membrane->modbus) != 0)
        return link_fail(membrane, "connecting to", "it", err);
    return identity_check(membrane, err);
}

int membrane_open(struct membrane **ret_membrane, const char *address, int unit_id, struct err *err)
{
    struct membrane fresh = {.unit_id = unit_id};
    int code = address_parse(&fresh.address, address, err);
    if (code)
        return err_prefix(err, "membrane controller");
    if (fresh.address.kind != ADDRESS_TCP || unit_id < 1 || unit_id > 247)
        return err_set(err, ERR_ARG,
                       "membrane controller %s, unit %d refused: expected tcp:HOST:PORT and unit 1 to 247", address,
                       unit_id);
    if ((code = link_open(&fresh, err)) || (code = mode_check(&fresh, err)))
        return code;
    struct membrane *membrane = malloc(sizeof *membrane);
    assert(membrane);
    *membrane = fresh;
    *ret_membrane = membrane;
    return 0;
}

int membrane_read(struct membrane *membrane, struct membrane_reading *ret_reading, struct err *err)
{
    struct membrane_reading reading;
    int code, alarm, slope;
    if ((code = link_open(membrane, err)) || (code = unit_check(membrane, err)) ||
        (code = float_read(membrane, ELPRESS_CAPACITY, 1, CAPACITY_BAR_MAX, &reading.capacity_bar, err)))
        return code;
    if (reading.capacity_bar != membrane->capacity_bar) {
        err_set(err, ERR_DATA,
                "membrane controller: full scale changed from %g to %g bar; link closed; is it another device?",
                membrane->capacity_bar, reading.capacity_bar);
        return refuse(membrane, ERR_DATA);
    }
    double over_bar = MEASURE_OVERRANGE * reading.capacity_bar, under_bar = reading.capacity_bar - over_bar;
    if ((code = float_read(membrane, ELPRESS_FMEASURE, under_bar, over_bar, &reading.membrane_bar, err)) ||
        (code =
             float_read(membrane, ELPRESS_FSETPOINT, 0, reading.capacity_bar, &reading.membrane_bar_setpoint, err)) ||
        (code = integer_read(membrane, ELPRESS_SLOPE, &slope, err)) ||
        (code = integer_read(membrane, ELPRESS_CONTROL_MODE, &reading.control_mode, err)) ||
        (code = integer_read(membrane, ELPRESS_ALARM_INFO, &alarm, err)))
        return code;
    reading.slew_bar_per_min = elpress_rate_from_slope(slope, reading.capacity_bar);
    reading.alarm = (unsigned)alarm;
    *ret_reading = reading;
    return 0;
}

int membrane_write_setpoint(struct membrane *membrane, double membrane_bar, struct err *err)
{
    if (!(membrane_bar >= 0 && membrane_bar <= CAPACITY_BAR_MAX))
        return err_set(err, ERR_LIMIT,
                       "membrane set point %g bar refused: expected 0 to full scale; nothing was written",
                       membrane_bar);
    int code;
    if ((code = link_open(membrane, err)) || (code = unit_check(membrane, err)) || (code = mode_check(membrane, err)))
        return code;
    if (!(membrane_bar <= membrane->capacity_bar))
        return err_set(err, ERR_LIMIT,
                       "membrane set point %g bar refused: above full scale %g bar; nothing was written", membrane_bar,
                       membrane->capacity_bar);
    const struct elpress_register *r = &elpress_registers[ELPRESS_FSETPOINT];
    uint16_t words[2];
    elpress_pack_float((float)membrane_bar, words);
    if (modbus_write_registers(membrane->modbus, r->address, r->n_registers, words) != r->n_registers)
        return link_fail(membrane, "writing", r->name, err);
    double held_bar;
    code = float_read(membrane, ELPRESS_FSETPOINT, 0, membrane->capacity_bar, &held_bar, err);
    if (code)
        return err_prefix(err, "membrane set point %g bar was written but not confirmed", membrane_bar);
    if (!(fabs(held_bar - membrane_bar) <= membrane->capacity_bar / SETPOINT_STEPS)) {
        err_set(err, ERR_REFUSED,
                "membrane set point %g bar was written, but the controller holds %g bar; check who else writes to it",
                membrane_bar, held_bar);
        return refuse(membrane, ERR_REFUSED);
    }
    return 0;
}

int membrane_write_slew(struct membrane *membrane, double slew_bar_per_min, struct err *err)
{
    if (!(slew_bar_per_min > 0 && slew_bar_per_min < INFINITY))
        return err_set(err, ERR_LIMIT, "membrane slew %g bar/min refused: expected more than 0; nothing was written",
                       slew_bar_per_min);
    int code = link_open(membrane, err);
    if (code)
        return code;
    const struct elpress_register *r = &elpress_registers[ELPRESS_SLOPE];
    int slope = elpress_slope_from_rate(slew_bar_per_min, membrane->capacity_bar), held;
    if (modbus_write_register(membrane->modbus, r->address, (uint16_t)slope) != 1)
        return link_fail(membrane, "writing", r->name, err);
    code = integer_read(membrane, ELPRESS_SLOPE, &held, err);
    if (code)
        return err_prefix(err, "membrane slew %g bar/min was written but not confirmed", slew_bar_per_min);
    if (held != slope) {
        err_set(err, ERR_REFUSED, "membrane slew: %d x 0.1 s was written, but the controller holds %d", slope, held);
        return refuse(membrane, ERR_REFUSED);
    }
    return 0;
}

void membrane_close(struct membrane *membrane)
{
    if (!membrane)
        return;
    link_close(membrane);
    free(membrane);
}
