#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "drivers/alicat.h"
#include "drivers/membrane_class.h"
#include "drivers/modbus_link.h"

struct device {
    struct modbus_link *link;
    double capacity_bar;
    enum registers_order order;
};

/* One answer for all of them: values of one instant. */
enum { BLOCK_FIRST = ALICAT_GAS, BLOCK_LAST = ALICAT_PRESSURE };

static int signature_check(struct device *device, enum registers_order *ret_order, struct err *err)
{
    uint16_t words[2];
    int code = modbus_link_read(device->link, &alicat_registers[ALICAT_SIGNATURE], 2, words, err);
    if (code || alicat_find_order(words, ret_order))
        return code;
    return err_set(
        err, ERR_DATA,
        "membrane controller: register 1088 reads %04x %04x, expected 1.234567; not driven; check unit number "
        "and model (firmware 10v19 or later)",
        words[0], words[1]);
}

static void alicat_close(void *self)
{
    struct device *device = self;
    modbus_link_close(device->link);
    free(device);
}

static int alicat_open(void **ret_device, const struct membrane_settings *settings,
                       struct membrane_identity *ret_identity, struct err *err)
{
    struct modbus_link *link;
    if (!(settings->full_scale_bar > 0))
        return err_set(err, ERR_ARG,
                       "membrane controller: an Alicat cannot be asked for its full scale; state full_scale_bar in the "
                       "beamline file");
    int code = modbus_link_open(&link, settings->address, settings->unit_id, 'N', settings->answer_ms, err);
    if (code)
        return code;
    struct device *device = calloc(1, sizeof *device);
    assert(device);
    *device = (struct device){.link = link, .capacity_bar = settings->full_scale_bar};
    if ((code = signature_check(device, &device->order, err))) {
        alicat_close(device);
        return code;
    }
    *ret_identity = (struct membrane_identity){.capacity_bar = device->capacity_bar};
    *ret_device = device;
    return 0;
}

static double block_float(const struct device *device, const uint16_t *block, enum alicat_parameter parameter)
{
    int offset = alicat_registers[parameter].address - alicat_registers[BLOCK_FIRST].address;
    return registers_unpack_float(block + offset, device->order);
}

/* Two registers that are known, then nine: a stream of answers that lags by one shows here. */
static int alicat_read(void *self, struct membrane_reading *ret_reading, struct err *err)
{
    enum { BLOCK_COUNT = 9 };
    struct device *device = self;
    uint16_t block[BLOCK_COUNT];
    enum registers_order order;
    int code = signature_check(device, &order, err);
    if (code == 0 && order != device->order)
        code = err_set(err, ERR_DATA,
                       "membrane controller: its word order has changed; link closed; is it another "
                       "device?");
    if (code || (code = modbus_link_read(device->link, &alicat_registers[BLOCK_FIRST], BLOCK_COUNT, block, err)))
        return code;
    int status_offset = alicat_registers[ALICAT_STATUS].address - alicat_registers[BLOCK_FIRST].address;
    uint32_t status = registers_unpack_u32(block + status_offset, device->order);
    if (status & ALICAT_STATUS_OVER_RANGE)
        return err_set(
            err, ERR_DATA,
            "membrane controller: pressure over range (status %04x); reading refused; check the membrane line",
            (unsigned)status);
    *ret_reading = (struct membrane_reading){
        .membrane_bar = block_float(device, block, ALICAT_PRESSURE),
        .membrane_bar_setpoint = block_float(device, block, ALICAT_SETPOINT_HELD),
        .capacity_bar = device->capacity_bar,
        .slew_bar_per_min = INFINITY,
        .supply_bar = NAN,
        .is_following = (status & ALICAT_STATUS_ASTRAY) == 0,
        .control_mode = (int)(status & ALICAT_STATUS_ASTRAY),
        .alarm = (unsigned)status,
    };
    return 0;
}

static int alicat_lay_setpoint(void *self, double membrane_bar, struct err *err)
{
    struct device *device = self;
    uint16_t words[2];
    registers_pack_float((float)membrane_bar, device->order, words);
    return modbus_link_write(device->link, &alicat_registers[ALICAT_SETPOINT], 2, words, err);
}

static int alicat_read_setpoint(void *self, double *ret_held_bar, struct err *err)
{
    struct device *device = self;
    uint16_t words[2];
    int code = modbus_link_read(device->link, &alicat_registers[ALICAT_SETPOINT], 2, words, err);
    if (code == 0)
        *ret_held_bar = registers_unpack_float(words, device->order);
    return code;
}

static int alicat_write_setpoint(void *self, double membrane_bar, double *ret_held_bar, struct err *err)
{
    struct device *device = self;
    struct membrane_reading reading;
    int code = alicat_read(device, &reading, err);
    if (code)
        return code;
    if (!reading.is_following)
        return err_set(err, ERR_STATE,
                       "membrane controller does not follow its set point (status %04x: valves held, exhausting or "
                       "beyond its limit); nothing was written; give it back to the bus at its panel",
                       reading.alarm);
    if ((code = alicat_lay_setpoint(device, membrane_bar, err)))
        return code;
    if (alicat_read_setpoint(device, ret_held_bar, err))
        return err_prefix(err, "membrane set point %g bar was written but not confirmed", membrane_bar);
    return 0;
}

/* The map has no ramp: the steps of the set points are the ramp, and the leash bounds each. */
static int alicat_write_slew(void *self, double slew_bar_per_min, struct err *err)
{
    (void)slew_bar_per_min;
    enum registers_order order;
    return signature_check(self, &order, err);
}

static int alicat_shut(void *self, struct err *err)
{
    struct device *device = self;
    /* It acts when the pair changes: nought first, in case the same was asked for before. */
    static const uint16_t pairs[2][2] = {{0, 0}, {ALICAT_COMMAND_VALVE, ALICAT_VALVE_CLOSED}};
    uint16_t result;
    int code = 0;
    for (int i = 0; i < 2 && code == 0; i++)
        code = modbus_link_write(device->link, &alicat_registers[ALICAT_COMMAND_ID], 2, pairs[i], err);
    if (code == 0)
        code = modbus_link_read(device->link, &alicat_registers[ALICAT_COMMAND_ARGUMENT], 1, &result, err);
    if (code == 0 && result != ALICAT_RESULT_OK)
        code = err_set(err, ERR_REFUSED, "membrane controller was told to shut its valves, but answered %u", result);
    return code;
}

const struct membrane_class membrane_alicat_class = {.driver = "alicat",
                                                     .open = alicat_open,
                                                     .read = alicat_read,
                                                     .read_setpoint = alicat_read_setpoint,
                                                     .write_setpoint = alicat_write_setpoint,
                                                     .write_slew = alicat_write_slew,
                                                     .shut = alicat_shut,
                                                     .lay_setpoint = alicat_lay_setpoint,
                                                     .close = alicat_close};
