#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/elpress.h"
#include "drivers/membrane_class.h"
#include "drivers/modbus_link.h"

struct device {
    struct modbus_link *link;
    double capacity_bar;
};

static int words_read(struct device *device, enum elpress_parameter parameter, uint16_t *ret_words, struct err *err)
{
    const struct registers_entry *entry = &elpress_registers[parameter];
    return modbus_link_read(device->link, entry, entry->n_registers, ret_words, err);
}

static int integer_read(struct device *device, enum elpress_parameter parameter, int *ret_value, struct err *err)
{
    uint16_t word;
    int code = words_read(device, parameter, &word, err);
    if (code)
        return code;
    const struct registers_entry *entry = &elpress_registers[parameter];
    if (entry->type == REGISTERS_U8 && word > 255)
        return err_set(err, ERR_DATA,
                       "membrane controller: %s reads %u, expected a byte; this is not the register map of an EL-PRESS",
                       entry->name, word);
    *ret_value = word;
    return 0;
}

static int float_read(struct device *device, enum elpress_parameter parameter, double *ret_value, struct err *err)
{
    uint16_t words[2];
    int code = words_read(device, parameter, words, err);
    if (code == 0)
        *ret_value = registers_unpack_float(words, REGISTERS_HIGH_FIRST);
    return code;
}

static int unit_check(struct device *device, struct err *err)
{
    uint16_t words[REGISTERS_ENTRY_MAX];
    char unit[2 * REGISTERS_ENTRY_MAX + 1];
    int code = words_read(device, ELPRESS_CAPACITY_UNIT, words, err);
    if (code)
        return code;
    registers_unpack_string(words, elpress_registers[ELPRESS_CAPACITY_UNIT].n_registers, unit);
    if (strcmp(unit, "bar") == 0)
        return 0;
    for (char *c = unit; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return err_set(err, ERR_STATE,
                   "membrane controller works in \"%s\", expected \"bar\"; nothing was written; set its capacity unit "
                   "to bar",
                   unit);
}

static int mode_refuse(int mode, struct err *err)
{
    return err_set(
        err, ERR_STATE,
        "membrane controller is in control mode %d, expected %d (digital); nothing was written; give it back "
        "to the bus at its panel",
        mode, ELPRESS_MODE_DIGITAL);
}

/* What it would do when nobody tells it to. Valves that are shut move nothing, and the pressure is worth reading. */
static int autonomy_check(struct device *device, struct err *err)
{
    int alarm_mode, mode, io_status, code;
    if ((code = integer_read(device, ELPRESS_ALARM_SETPOINT_MODE, &alarm_mode, err)) ||
        (code = integer_read(device, ELPRESS_CONTROL_MODE, &mode, err)) ||
        (code = integer_read(device, ELPRESS_IO_STATUS, &io_status, err)))
        return code;
    if (alarm_mode != 0)
        return err_set(err, ERR_STATE,
                       "membrane controller would move to a set point of its own on an alarm (alarm set point mode %d, "
                       "expected 0); not driven; switch that off",
                       alarm_mode);
    if (io_status & ELPRESS_IO_ANALOG)
        return err_set(err, ERR_STATE,
                       "membrane controller would follow its analog input after a power cut (IO status %d, bit 6 set); "
                       "not driven; make digital its default control mode",
                       io_status);
    return mode == ELPRESS_MODE_DIGITAL || mode == ELPRESS_MODE_VALVE_CLOSED ? 0 : mode_refuse(mode, err);
}

static void elpress_close(void *self)
{
    struct device *device = self;
    modbus_link_close(device->link);
    free(device);
}

static int elpress_open(void **ret_device, const struct membrane_settings *settings,
                        struct membrane_identity *ret_identity, struct err *err)
{
    struct modbus_link *link;
    double zero_bar;
    int code = modbus_link_open(&link, settings->address, settings->unit_id, 'E', settings->answer_ms, err);
    if (code)
        return code;
    struct device *device = calloc(1, sizeof *device);
    assert(device);
    device->link = link;
    if ((code = unit_check(device, err)) || (code = float_read(device, ELPRESS_CAPACITY, &device->capacity_bar, err)) ||
        (code = float_read(device, ELPRESS_CAPACITY_ZERO, &zero_bar, err)) || (code = autonomy_check(device, err))) {
        elpress_close(device);
        return code;
    }
    if (zero_bar != 0) {
        elpress_close(device);
        return err_set(err, ERR_DATA,
                       "membrane controller: its scale begins at %g bar, expected 0; not driven; check the model",
                       zero_bar);
    }
    ret_identity->capacity_bar = device->capacity_bar;
    ret_identity->slew_bar_per_min_min =
        elpress_rate_from_slope(elpress_registers[ELPRESS_SLOPE].greatest, device->capacity_bar);
    *ret_device = device;
    return 0;
}

static int elpress_read(void *self, struct membrane_reading *ret_reading, struct err *err)
{
    struct device *device = self;
    struct membrane_reading reading = {.supply_bar = NAN};
    int code, alarm, slope;
    /* No answer has the size of the one before it, so that a stream of answers that lags by one is noticed. */
    if ((code = unit_check(device, err)) || (code = float_read(device, ELPRESS_FMEASURE, &reading.membrane_bar, err)) ||
        (code = integer_read(device, ELPRESS_SLOPE, &slope, err)) ||
        (code = float_read(device, ELPRESS_FSETPOINT, &reading.membrane_bar_setpoint, err)) ||
        (code = integer_read(device, ELPRESS_CONTROL_MODE, &reading.control_mode, err)) ||
        (code = float_read(device, ELPRESS_CAPACITY, &reading.capacity_bar, err)) ||
        (code = integer_read(device, ELPRESS_ALARM_INFO, &alarm, err)))
        return code;
    reading.slew_bar_per_min = elpress_rate_from_slope(slope, reading.capacity_bar);
    reading.is_following = reading.control_mode == ELPRESS_MODE_DIGITAL;
    reading.alarm = (unsigned)alarm;
    *ret_reading = reading;
    return 0;
}

static int float_write(struct device *device, enum elpress_parameter parameter, double value, struct err *err)
{
    uint16_t words[2];
    registers_pack_float((float)value, REGISTERS_HIGH_FIRST, words);
    return modbus_link_write(device->link, &elpress_registers[parameter], 2, words, err);
}

static int elpress_read_setpoint(void *self, double *ret_held_bar, struct err *err)
{
    return float_read(self, ELPRESS_FSETPOINT, ret_held_bar, err);
}

static int elpress_write_setpoint(void *self, double membrane_bar, double *ret_held_bar, struct err *err)
{
    struct device *device = self;
    int code, mode;
    if ((code = unit_check(device, err)) || (code = integer_read(device, ELPRESS_CONTROL_MODE, &mode, err)))
        return code;
    if (mode != ELPRESS_MODE_DIGITAL)
        return mode_refuse(mode, err);
    if ((code = float_write(device, ELPRESS_FSETPOINT, membrane_bar, err)))
        return code;
    if (float_read(device, ELPRESS_FSETPOINT, ret_held_bar, err))
        return err_prefix(err, "membrane set point %g bar was written but not confirmed", membrane_bar);
    return 0;
}

static int integer_write(struct device *device, enum elpress_parameter parameter, int value, struct err *err)
{
    const struct registers_entry *entry = &elpress_registers[parameter];
    uint16_t word = (uint16_t)value;
    int held, code = modbus_link_write(device->link, entry, 1, &word, err);
    if (code)
        return code;
    if (integer_read(device, parameter, &held, err))
        return err_prefix(err, "membrane controller: %s %d was written but not confirmed", entry->name, value);
    if (held != value)
        return err_set(err, ERR_REFUSED, "membrane controller: %s %d was written, but the controller holds %d",
                       entry->name, value, held);
    return 0;
}

static int elpress_write_slew(void *self, double slew_bar_per_min, struct err *err)
{
    struct device *device = self;
    return integer_write(device, ELPRESS_SLOPE, elpress_slope_from_rate(slew_bar_per_min, device->capacity_bar), err);
}

static int elpress_shut(void *self, struct err *err)
{
    return integer_write(self, ELPRESS_CONTROL_MODE, ELPRESS_MODE_VALVE_CLOSED, err);
}

static int elpress_lay_setpoint(void *self, double membrane_bar, struct err *err)
{
    return float_write(self, ELPRESS_FSETPOINT, membrane_bar, err);
}

const struct membrane_class membrane_elpress_class = {.driver = "bronkhorst",
                                                      .open = elpress_open,
                                                      .read = elpress_read,
                                                      .read_setpoint = elpress_read_setpoint,
                                                      .write_setpoint = elpress_write_setpoint,
                                                      .write_slew = elpress_write_slew,
                                                      .shut = elpress_shut,
                                                      .lay_setpoint = elpress_lay_setpoint,
                                                      .close = elpress_close};
