#include "sim/pace_server.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/wire.h"

#define CAPACITY_BAR 210.0
#define NOISE_BAR 0.001
#define ERRORS_MAX 20
#define LINE_MAX_BYTES 120
#define SLEW_INIT_BAR_PER_S (4.0 / 60)

enum scpi_error {
    SCPI_PARAMETER_NOT_ALLOWED = -108,
    SCPI_MISSING_PARAMETER = -109,
    SCPI_UNDEFINED_HEADER = -113,
    SCPI_SETTINGS_CONFLICT = 221,
    SCPI_OUT_OF_RANGE = 222,
    SCPI_ILLEGAL_VALUE = 224,
    SCPI_QUEUE_OVERFLOW = 350
};

struct pace {
    struct world *world;
    struct random random;
    char unit[8];
    bool is_linear, may_overshoot;
    double stuck_bar; /* NaN: the sensor works */
    int errors[ERRORS_MAX];
    int n_errors;
};

static void complain(struct pace *pace, enum scpi_error error)
{
    if (pace->n_errors < ERRORS_MAX)
        pace->errors[pace->n_errors++] = error;
    else
        pace->errors[ERRORS_MAX - 1] = SCPI_QUEUE_OVERFLOW;
}

/* The oldest, 0 when there is none. */
static int confess(struct pace *pace)
{
    if (pace->n_errors == 0)
        return 0;
    int error = pace->errors[0];
    memmove(pace->errors, pace->errors + 1, (size_t)--pace->n_errors * sizeof pace->errors[0]);
    return error;
}

static double measured_bar(struct pace *pace, const struct world_state *state)
{
    if (state->troubles[WORLD_MEMBRANE].fault != WORLD_FAULT_STUCK)
        pace->stuck_bar = NAN;
    else if (!isnan(pace->stuck_bar))
        return pace->stuck_bar;
    double bar = state->membrane_bar + NOISE_BAR * random_normal(&pace->random);
    if (state->troubles[WORLD_MEMBRANE].fault == WORLD_FAULT_STUCK)
        pace->stuck_bar = bar;
    return bar;
}

static void command(struct pace *pace, double setpoint_bar, double slew_bar_per_s, bool output_on)
{
    world_command_membrane(pace->world, setpoint_bar, slew_bar_per_s, output_on);
}

enum what {
    IDENTITY,
    ERROR,
    UNIT,
    FULL_SCALE,
    MEASURED,
    SETPOINT,
    SLEW_MODE,
    SLEW,
    OVERSHOOT,
    OUTPUT,
    SUPPLY,
    VENT,
    EFFORT
};

static const struct {
    const char *header; /* capitals of the short form; the small letters and what is in brackets may be left out */
    enum what what;
    bool is_settable;
} laws[] = {
    {"*IDN", IDENTITY, false},
    {":SYSTem:ERRor", ERROR, false},
    {":UNIT:PRESsure", UNIT, true},
    {":INSTrument:SENSe:FULLscale", FULL_SCALE, false},
    {":SENSe:PRESsure", MEASURED, false},
    {":SOURce:PRESsure", SETPOINT, true},
    {":SOURce:PRESsure:LEVel:IMMediate:AMPLitude", SETPOINT, true},
    {":SOURce:PRESsure:LEVel:IMMediate:AMPLitude:VENT", VENT, true},
    {":SOURce:PRESsure:SLEW:MODE", SLEW_MODE, true},
    {":SOURce:PRESsure:SLEW", SLEW, true},
    {":SOURce:PRESsure:SLEW:OVERshoot", OVERSHOOT, true},
    {":SOURce:PRESsure:SLEW:OVERshoot:STATe", OVERSHOOT, true},
    {":OUTPut:STATe", OUTPUT, true},
    {":OUTPut", OUTPUT, true},
    {":SOURce:PRESsure:COMPensate", SUPPLY, false},
    {":SOURce:PRESsure:EFFort", EFFORT, false},
};

/* Whether `text` is `law` in short or long form, node by node, with channel 1 or none. */
static bool is_header(const char *text, const char *law)
{
    while (*law) {
        if (*law == ':' || *law == '*') {
            if (*text++ != *law++)
                return false;
            continue;
        }
        const char *begin = text;
        size_t n_short = 0, n_long = 0;
        while (isalpha((unsigned char)law[n_long])) {
            n_short += isupper((unsigned char)law[n_long]) != 0;
            n_long++;
        }
        while (isalpha((unsigned char)*text))
            text++;
        size_t n = (size_t)(text - begin);
        if ((n != n_short && n != n_long) || strncasecmp(begin, law, n) != 0)
            return false;
        text += *text == '1';
        law += n_long;
    }
    return *text == '\0';
}

static void answer_value(struct pace *pace, enum what what, const struct world_state *state, char *ret_text,
                         size_t size)
{
    int error;
    switch (what) {
    case IDENTITY:
        snprintf(ret_text, size, "GE Druck,Pace5000 User Interface,3213201,02.00.07");
        return;
    case ERROR:
        error = confess(pace);
        snprintf(ret_text, size, "%d,\"%s\"", error, error ? "See the manual" : "No error");
        return;
    case UNIT:
        snprintf(ret_text, size, "%s", pace->unit);
        return;
    case FULL_SCALE:
        snprintf(ret_text, size, "%.6f, %.6f", CAPACITY_BAR, 0.0);
        return;
    case MEASURED:
        snprintf(ret_text, size, "%.6f", measured_bar(pace, state));
        return;
    case SETPOINT:
        snprintf(ret_text, size, "%.6f", state->membrane_bar_setpoint);
        return;
    case SLEW_MODE:
        snprintf(ret_text, size, "%s", pace->is_linear ? "LIN" : "MAX");
        return;
    case SLEW:
        snprintf(ret_text, size, "%.6f", state->slew_bar_per_s);
        return;
    case OVERSHOOT:
        snprintf(ret_text, size, "%d", pace->may_overshoot);
        return;
    case OUTPUT:
        snprintf(ret_text, size, "%d", state->output_on);
        return;
    case SUPPLY:
        snprintf(ret_text, size, "%.6f", state->supply_bar);
        return;
    case VENT:
        snprintf(ret_text, size, "0");
        return;
    case EFFORT:
        snprintf(ret_text, size, "%.2f", state->output_on ? 3.5 : 0.0);
        return;
    }
}

static void set_number(struct pace *pace, enum what what, const struct world_state *state, const char *argument)
{
    char *end;
    double value = strtod(argument, &end);
    double max = what == SETPOINT ? CAPACITY_BAR : what == SLEW ? 100.0 : 1.0;
    if (end == argument || *end != '\0')
        complain(pace, SCPI_ILLEGAL_VALUE);
    else if (!(value >= 0 && value <= max))
        complain(pace, SCPI_OUT_OF_RANGE);
    else if (what == SETPOINT)
        command(pace, value, state->slew_bar_per_s, state->output_on);
    else if (what == SLEW)
        command(pace, state->membrane_bar_setpoint, value, state->output_on);
    else if (what == OUTPUT)
        command(pace, state->membrane_bar_setpoint, state->slew_bar_per_s, value != 0);
    else if (what == OVERSHOOT)
        pace->may_overshoot = value != 0;
    else
        complain(pace, SCPI_SETTINGS_CONFLICT); /* the vent valve is not fitted */
}

static void set(struct pace *pace, enum what what, const char *argument)
{
    struct world_state state;
    world_read(pace->world, &state);
    if (what == UNIT && (strcasecmp(argument, "BAR") == 0 || strcasecmp(argument, "MBAR") == 0))
        snprintf(pace->unit, sizeof pace->unit, "%s", strcasecmp(argument, "BAR") == 0 ? "BAR" : "MBAR");
    else if (what == SLEW_MODE && (strcasecmp(argument, "LIN") == 0 || strcasecmp(argument, "MAX") == 0))
        pace->is_linear = strcasecmp(argument, "LIN") == 0;
    else if (what == UNIT || what == SLEW_MODE)
        complain(pace, SCPI_ILLEGAL_VALUE);
    else
        set_number(pace, what, &state, argument);
}

/* One line without its end. */
static size_t obey(struct pace *pace, char *line, char *ret_answer)
{
    char *argument = line + strcspn(line, " ?"), value[80];
    bool is_query = *argument == '?';
    if (*argument)
        *argument++ = '\0';
    argument += strspn(argument, " ");
    for (size_t i = 0; i < sizeof laws / sizeof laws[0]; i++) {
        if (!is_header(line, laws[i].header))
            continue;
        if (is_query) {
            struct world_state state;
            world_read(pace->world, &state);
            answer_value(pace, laws[i].what, &state, value, sizeof value);
            return (size_t)snprintf(ret_answer, WIRE_ANSWER_MAX, "%s %s\r\n", line, value);
        }
        if (!laws[i].is_settable || !*argument)
            complain(pace, laws[i].is_settable ? SCPI_MISSING_PARAMETER : SCPI_PARAMETER_NOT_ALLOWED);
        else
            set(pace, laws[i].what, argument);
        return 0;
    }
    complain(pace, SCPI_UNDEFINED_HEADER);
    return 0;
}

static int take(void *self, const uint8_t *bytes, size_t n_bytes, uint8_t ret_answer[WIRE_ANSWER_MAX],
                size_t *ret_n_answer)
{
    size_t n = 0;
    while (n < n_bytes && bytes[n] != '\r' && bytes[n] != '\n')
        n++;
    if (n == n_bytes)
        return n_bytes <= LINE_MAX_BYTES ? 0 : -1;
    char line[LINE_MAX_BYTES + 1];
    if (n > 0 && n <= LINE_MAX_BYTES) {
        memcpy(line, bytes, n);
        line[n] = '\0';
        *ret_n_answer = obey(self, line, (char *)ret_answer);
    }
    return (int)n + 1;
}

int pace_server_run(struct world *world, const char *address, struct err *err)
{
    struct pace pace = {.world = world, .unit = "BAR", .is_linear = true, .stuck_bar = NAN};
    struct world_state state;
    pace.random.state = world_seed(world) ^ UINT64_C(0x70616365);
    world_read(world, &state);
    if (!(state.slew_bar_per_s > 0))
        command(&pace, state.membrane_bar_setpoint, SLEW_INIT_BAR_PER_S, state.output_on);
    const struct wire_service service = {.self = &pace, .take = take};
    return wire_run(&service, world, address, err);
}
