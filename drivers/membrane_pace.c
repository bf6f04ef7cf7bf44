#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/membrane_class.h"
#include "drivers/pace.h"
#include "drivers/transport.h"

#define STALE_ERRORS_MAX 32 /* its queue is shorter */
#define SLEW_TOLERANCE 1e-3 /* of the rate: what the device may round to */

struct device {
    struct transport *transport;
    struct pace_reader reader;
    const char *line_end; /* CR LF by TCP, CR on a serial line: what each is used with in the field */
    int answer_ms;
    double capacity_bar;
};

static int64_t deadline(const struct device *device)
{
    return clock_wall_ns() + device->answer_ms * NS_PER_MS + transport_duration_ns(device->transport, PACE_LINE_MAX);
}

/* The next line, however it is cut into pieces. */
static int line_read(struct device *device, int64_t deadline_wall_ns, struct err *err)
{
    for (;;) {
        char byte;
        int code = transport_read_some(device->transport, &byte, 1, deadline_wall_ns, err);
        if (code > 0)
            code = pace_reader_feed(&device->reader, byte, err);
        if (code < 0)
            return err_prefix(err, "membrane controller");
        if (code > 0)
            return 0;
    }
}

static int send(struct device *device, const char *text, int n, struct err *err)
{
    if (transport_write_all(device->transport, text, (size_t)n, deadline(device), err) < 0)
        return err_prefix(err, "membrane controller");
    return 0;
}

static int ask(struct device *device, enum pace_quantity quantity, struct pace_answer *ret_answer, struct err *err)
{
    char text[PACE_COMMAND_MAX];
    int code = send(device, text, pace_pack_query(quantity, device->line_end, text), err);
    if (code == 0)
        code = line_read(device, deadline(device), err);
    if (code == 0 && pace_unpack(quantity, device->reader.line, ret_answer, err) < 0)
        code = err_prefix(err, "membrane controller");
    return code;
}

static int ask_number(struct device *device, enum pace_quantity quantity, double *ret_value, struct err *err)
{
    struct pace_answer answer;
    int code = ask(device, quantity, &answer, err);
    if (code == 0)
        *ret_value = answer.value[0];
    return code;
}

/* Number and text of the oldest error; 0 when there is none. */
static int ask_error(struct device *device, long *ret_number, struct pace_answer *ret_answer, struct err *err)
{
    int code = ask(device, PACE_ERROR, ret_answer, err);
    if (code)
        return code;
    char *end;
    long number = strtol(ret_answer->word, &end, 10);
    if (end == ret_answer->word)
        return err_set(err, ERR_PROTOCOL, "membrane controller: \"%s\" is no error number; link closed",
                       ret_answer->word);
    *ret_number = number;
    return 0;
}

/* A command, and whether the device took it. */
static int tell(struct device *device, const char *text, int n, struct err *err)
{
    struct pace_answer answer;
    long number = 0;
    int code = send(device, text, n, err);
    if (code == 0)
        code = ask_error(device, &number, &answer, err);
    if (code == 0 && number != 0)
        code = err_set(err, ERR_REFUSED, "membrane controller refused %.*s: %s; link closed; check its panel",
                       (int)strcspn(text, "\r\n"), text, answer.word);
    return code;
}

static int tell_number(struct device *device, enum pace_quantity quantity, double value, struct err *err)
{
    char text[PACE_COMMAND_MAX];
    return tell(device, text, pace_pack_number(quantity, value, device->line_end, text), err);
}

/* The signature of a round: the unit, and then the full scale, which is known. */
static int unit_check(struct device *device, struct err *err)
{
    struct pace_answer answer;
    int code = ask(device, PACE_UNIT, &answer, err);
    if (code || strcmp(answer.word, PACE_BAR) == 0)
        return code;
    return err_set(err, ERR_STATE,
                   "membrane controller works in \"%s\", expected \"BAR\"; nothing was written; set its unit to bar at "
                   "its panel",
                   answer.word);
}

static int slew_refuse(const char *mode, struct err *err)
{
    return err_set(err, ERR_STATE,
                   "membrane controller is in slew mode %s, expected LIN: it would jump to a set point; nothing was "
                   "written; set its slew mode to linear at its panel",
                   mode);
}

static int identity_check(struct device *device, struct err *err)
{
    struct pace_answer answer;
    long number = 0;
    int code = ask(device, PACE_IDENTITY, &answer, err);
    if (code == 0 && !strstr(answer.word, "PACE"))
        return err_set(err, ERR_DATA,
                       "membrane controller calls itself \"%s\", expected a PACE; not driven; check the address",
                       answer.word);
    /* Errors of before are not ours: they would be taken for the answer to the first command. */
    for (int i = 0; code == 0 && i < STALE_ERRORS_MAX; i++) {
        code = ask_error(device, &number, &answer, err);
        if (code == 0 && number == 0)
            break;
    }
    if (code == 0 && number != 0)
        code = err_set(err, ERR_DATA, "membrane controller keeps saying %s; not driven; check its panel", answer.word);
    return code ? code : unit_check(device, err);
}

static void pace_close(void *self)
{
    struct device *device = self;
    transport_close(device->transport);
    free(device);
}

static int pace_open(void **ret_device, const struct membrane_settings *settings,
                     struct membrane_identity *ret_identity, struct err *err)
{
    struct transport *transport;
    int code = transport_open(&transport, settings->address, settings->answer_ms, err);
    if (code)
        return err_prefix(err, "membrane controller");
    struct device *device = calloc(1, sizeof *device);
    assert(device);
    *device = (struct device){.transport = transport,
                              .line_end = strncmp(settings->address, "tcp:", 4) == 0 ? "\r\n" : "\r",
                              .answer_ms = settings->answer_ms};
    if (transport_fall_silent(transport, settings->answer_ms / 4 + 1, err) < 0)
        code = err_prefix(err, "membrane controller");
    if (code || (code = identity_check(device, err)) ||
        (code = ask_number(device, PACE_FULL_SCALE, &device->capacity_bar, err))) {
        pace_close(device);
        return code;
    }
    *ret_identity = (struct membrane_identity){.capacity_bar = device->capacity_bar};
    *ret_device = device;
    return 0;
}

static int pace_read(void *self, struct membrane_reading *ret_reading, struct err *err)
{
    struct device *device = self;
    struct membrane_reading reading = {.supply_bar = NAN};
    struct pace_answer mode;
    double slew_bar_per_s, output;
    int code;
    if ((code = unit_check(device, err)) || (code = ask_number(device, PACE_FULL_SCALE, &reading.capacity_bar, err)) ||
        (code = ask_number(device, PACE_MEASURED, &reading.membrane_bar, err)) ||
        (code = ask_number(device, PACE_SETPOINT, &reading.membrane_bar_setpoint, err)) ||
        (code = ask(device, PACE_SLEW_MODE, &mode, err)) ||
        (code = ask_number(device, PACE_SLEW, &slew_bar_per_s, err)) ||
        (code = ask_number(device, PACE_OUTPUT, &output, err)) ||
        (code = ask_number(device, PACE_SUPPLY, &reading.supply_bar, err)))
        return code;
    reading.slew_bar_per_min =
        strncmp(mode.word, PACE_LINEAR, strlen(PACE_LINEAR)) == 0 ? slew_bar_per_s * 60 : INFINITY;
    reading.is_following = output == 1;
    reading.control_mode = output == 1;
    *ret_reading = reading;
    return 0;
}

static int pace_read_setpoint(void *self, double *ret_held_bar, struct err *err)
{
    return ask_number(self, PACE_SETPOINT, ret_held_bar, err);
}

static int pace_write_setpoint(void *self, double membrane_bar, double *ret_held_bar, struct err *err)
{
    struct device *device = self;
    struct pace_answer mode;
    double output;
    int code;
    if ((code = unit_check(device, err)) || (code = ask_number(device, PACE_OUTPUT, &output, err)) ||
        (code = ask(device, PACE_SLEW_MODE, &mode, err)))
        return code;
    if (output != 1)
        return err_set(err, ERR_STATE,
                       "membrane controller's output is off: its valves are shut; nothing was written; switch control "
                       "on at its panel");
    if (strncmp(mode.word, PACE_LINEAR, strlen(PACE_LINEAR)) != 0)
        return slew_refuse(mode.word, err);
    if ((code = tell_number(device, PACE_SETPOINT, membrane_bar, err)))
        return code;
    if (ask_number(device, PACE_SETPOINT, ret_held_bar, err))
        return err_prefix(err, "membrane set point %g bar was written but not confirmed", membrane_bar);
    return 0;
}

static int pace_write_slew(void *self, double slew_bar_per_min, struct err *err)
{
    struct device *device = self;
    char text[PACE_COMMAND_MAX];
    double rate = pace_slew_bar_per_s(slew_bar_per_min), held, overshoot;
    int code;
    if (!(rate > 0))
        return err_set(err, ERR_LIMIT, "membrane slew %g bar/min refused: below 0.00006; nothing was written",
                       slew_bar_per_min);
    if ((code = unit_check(device, err)) || (code = tell_number(device, PACE_OVERSHOOT, 0, err)) ||
        (code = tell_number(device, PACE_SLEW, rate, err)) ||
        (code = tell(device, text, pace_pack_word(PACE_SLEW_MODE, PACE_LINEAR, device->line_end, text), err)) ||
        (code = ask_number(device, PACE_SLEW, &held, err)) ||
        (code = ask_number(device, PACE_OVERSHOOT, &overshoot, err)))
        return code;
    if (!(fabs(held - rate) <= SLEW_TOLERANCE * rate) || overshoot != 0)
        return err_set(err, ERR_REFUSED,
                       "membrane slew %g bar/s without overshoot was written, but the controller holds %g bar/s, "
                       "overshoot %g; check its panel",
                       rate, held, overshoot);
    return 0;
}

static int pace_shut(void *self, struct err *err)
{
    double output;
    int code = tell_number(self, PACE_OUTPUT, 0, err);
    if (code == 0)
        code = ask_number(self, PACE_OUTPUT, &output, err);
    if (code == 0 && output != 0)
        code = err_set(err, ERR_REFUSED, "membrane controller was told to shut its valves, but its output is still on");
    return code;
}

static int pace_lay_setpoint(void *self, double membrane_bar, struct err *err)
{
    return tell_number(self, PACE_SETPOINT, membrane_bar, err);
}

const struct membrane_class membrane_pace_class = {.driver = "pace",
                                                   .open = pace_open,
                                                   .read = pace_read,
                                                   .read_setpoint = pace_read_setpoint,
                                                   .write_setpoint = pace_write_setpoint,
                                                   .write_slew = pace_write_slew,
                                                   .shut = pace_shut,
                                                   .lay_setpoint = pace_lay_setpoint,
                                                   .close = pace_close};
