#include "sim/membrane_server.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/alicat.h"
#include "drivers/elpress.h"
#include "sim/wire.h"

#define CAPACITY_BAR 200.0
#define NOISE_BAR 0.002
#define UNIT_ID 1
#define RAW_FULL 32000.0 /* 100 % on the 16-bit scale */
#define RAW_OVER 41942.0 /* above: negative values */
#define REGISTERS_COUNT 0x10000
#define SLEW_INIT_BAR_PER_S (4.0 / 60)
#define SLEW_STEP_BAR_PER_S 50.0 /* of an Alicat, which has no ramp here */

enum function { FUNCTION_READ_HOLDING = 3, FUNCTION_READ_INPUT = 4, FUNCTION_WRITE_ONE = 6, FUNCTION_WRITE_MANY = 16 };

enum exception {
    EXCEPTION_NONE = 0,
    EXCEPTION_FUNCTION = 1,
    EXCEPTION_ADDRESS = 2,
    EXCEPTION_VALUE = 3,
    EXCEPTION_TARGET = 11
};

struct controller;

/* What differs between the two. */
struct model {
    const char *name;
    const struct registers_entry *map;
    int n_entries;
    void (*init)(struct controller *controller, const struct world_state *state);
    void (*refresh)(struct controller *controller, const struct world_state *state, double membrane_bar);
    bool (*fits)(int entry, const uint16_t *words);
    void (*apply)(struct controller *controller, int entry, const uint16_t *words, const struct world_state *state);
};

struct controller {
    const struct model *model;
    struct world *world;
    struct random random;
    bool is_serial;
    double stuck_bar; /* NaN: the sensor works */
    uint16_t *registers;
    uint16_t command_id; /* of an Alicat: the pair it acted on last */
    uint16_t command_argument;
};

static uint16_t *at(struct controller *controller, const struct registers_entry *entry)
{
    return controller->registers + entry->address;
}

static void put_float(struct controller *controller, const struct registers_entry *entry, double value)
{
    registers_pack_float((float)value, REGISTERS_HIGH_FIRST, at(controller, entry));
}

static bool is_pressure(const uint16_t *words)
{
    double value = registers_unpack_float(words, REGISTERS_HIGH_FIRST);
    return value >= 0 && value <= CAPACITY_BAR;
}

/* ---- EL-PRESS -----------------------------------------------------------------------------------------------------
 */

static void elpress_init(struct controller *controller, const struct world_state *state)
{
    const struct registers_entry *map = elpress_registers;
    double slew_bar_per_s = state->slew_bar_per_s > 0 ? state->slew_bar_per_s : SLEW_INIT_BAR_PER_S;
    put_float(controller, &map[ELPRESS_CAPACITY], CAPACITY_BAR);
    registers_pack_string("bar", at(controller, &map[ELPRESS_CAPACITY_UNIT]), map[ELPRESS_CAPACITY_UNIT].n_registers);
    registers_pack_string("P-702CV-200R", at(controller, &map[ELPRESS_MODEL]), map[ELPRESS_MODEL].n_registers);
    registers_pack_string("SIM0000001", at(controller, &map[ELPRESS_SERIAL]), map[ELPRESS_SERIAL].n_registers);
    *at(controller, &map[ELPRESS_ALARM_MAX]) = (uint16_t)RAW_FULL;
    *at(controller, &map[ELPRESS_INIT_RESET]) = 82;
    *at(controller, &map[ELPRESS_SLOPE]) = (uint16_t)elpress_slope_from_rate(slew_bar_per_s * 60, CAPACITY_BAR);
    *at(controller, &map[ELPRESS_CONTROL_MODE]) = state->output_on ? ELPRESS_MODE_DIGITAL : ELPRESS_MODE_VALVE_CLOSED;
}

static void elpress_refresh(struct controller *controller, const struct world_state *state, double membrane_bar)
{
    const struct registers_entry *map = elpress_registers;
    double raw = fmin(fmax(rint(membrane_bar / CAPACITY_BAR * RAW_FULL), RAW_OVER - 65535), RAW_OVER);
    put_float(controller, &map[ELPRESS_FMEASURE], membrane_bar);
    put_float(controller, &map[ELPRESS_FSETPOINT], state->membrane_bar_setpoint);
    *at(controller, &map[ELPRESS_MEASURE]) = (uint16_t)(raw < 0 ? raw + 65536 : raw);
    *at(controller, &map[ELPRESS_SETPOINT]) = (uint16_t)rint(state->membrane_bar_setpoint / CAPACITY_BAR * RAW_FULL);
}

static bool elpress_fits(int entry, const uint16_t *words)
{
    if (elpress_registers[entry].type == REGISTERS_F32)
        return is_pressure(words);
    return words[0] >= elpress_registers[entry].least && words[0] <= elpress_registers[entry].greatest;
}

static void elpress_apply(struct controller *controller, int entry, const uint16_t *words,
                          const struct world_state *state)
{
    double setpoint_bar = state->membrane_bar_setpoint;
    if (entry == ELPRESS_FSETPOINT)
        setpoint_bar = registers_unpack_float(words, REGISTERS_HIGH_FIRST);
    else if (entry == ELPRESS_SETPOINT)
        setpoint_bar = words[0] / RAW_FULL * CAPACITY_BAR;
    else
        memcpy(at(controller, &elpress_registers[entry]), words,
               (size_t)elpress_registers[entry].n_registers * sizeof *words);
    double slope = fmax(*at(controller, &elpress_registers[ELPRESS_SLOPE]), 1);
    bool is_shut = *at(controller, &elpress_registers[ELPRESS_CONTROL_MODE]) == ELPRESS_MODE_VALVE_CLOSED;
    world_command_membrane(controller->world, setpoint_bar, CAPACITY_BAR / (slope * ELPRESS_SLOPE_S), !is_shut);
}

/* ---- Alicat -------------------------------------------------------------------------------------------------------
 */

static void alicat_init(struct controller *controller, const struct world_state *state)
{
    put_float(controller, &alicat_registers[ALICAT_SIGNATURE], ALICAT_SIGNATURE_VALUE);
    world_command_membrane(controller->world, state->membrane_bar_setpoint, SLEW_STEP_BAR_PER_S, state->output_on);
}

static void alicat_refresh(struct controller *controller, const struct world_state *state, double membrane_bar)
{
    const struct registers_entry *map = alicat_registers;
    put_float(controller, &map[ALICAT_SETPOINT], state->membrane_bar_setpoint);
    put_float(controller, &map[ALICAT_SETPOINT_HELD], state->membrane_bar_setpoint);
    put_float(controller, &map[ALICAT_PRESSURE], membrane_bar);
    put_float(controller, &map[ALICAT_VALVE_DRIVE], state->output_on ? 40 : 0);
    registers_pack_u32(state->output_on ? 0 : ALICAT_STATUS_HELD, REGISTERS_HIGH_FIRST,
                       at(controller, &map[ALICAT_STATUS]));
}

static bool alicat_fits(int entry, const uint16_t *words)
{
    return alicat_registers[entry].type != REGISTERS_F32 || is_pressure(words);
}

/* Acts when the pair changes; then the argument reads the result. */
static void alicat_command(struct controller *controller, const struct world_state *state)
{
    uint16_t *id = at(controller, &alicat_registers[ALICAT_COMMAND_ID]);
    uint16_t *argument = at(controller, &alicat_registers[ALICAT_COMMAND_ARGUMENT]);
    bool is_same = *id == controller->command_id && *argument == controller->command_argument;
    controller->command_id = *id;
    controller->command_argument = *argument;
    bool is_valve = *id == ALICAT_COMMAND_VALVE && *argument <= ALICAT_VALVE_CLOSED;
    if (is_valve && !is_same)
        world_command_membrane(controller->world, state->membrane_bar_setpoint, SLEW_STEP_BAR_PER_S,
                               *argument == ALICAT_VALVE_REGULATE);
    *argument = is_valve || *id == 0          ? ALICAT_RESULT_OK
                : *id == ALICAT_COMMAND_VALVE ? ALICAT_RESULT_BAD_ARGUMENT
                                              : ALICAT_RESULT_BAD_ID;
}

static void alicat_apply(struct controller *controller, int entry, const uint16_t *words,
                         const struct world_state *state)
{
    if (entry == ALICAT_SETPOINT)
        world_command_membrane(controller->world, registers_unpack_float(words, REGISTERS_HIGH_FIRST),
                               SLEW_STEP_BAR_PER_S, state->output_on);
    else
        *at(controller, &alicat_registers[entry]) = words[0];
    if (entry == ALICAT_COMMAND_ARGUMENT)
        alicat_command(controller, state);
}

static const struct model models[] = {
    {"bronkhorst", elpress_registers, ELPRESS_PARAMETER_COUNT, elpress_init, elpress_refresh, elpress_fits,
     elpress_apply},
    {"alicat", alicat_registers, ALICAT_PARAMETER_COUNT, alicat_init, alicat_refresh, alicat_fits, alicat_apply},
};

/* ---- requests -----------------------------------------------------------------------------------------------------
 */

struct request {
    int function;
    int address;
    int n_registers;
    const uint8_t *values; /* of a write, high byte first */
};

static void refresh(struct controller *controller)
{
    struct world_state state;
    world_read(controller->world, &state);
    double bar = state.membrane_bar + NOISE_BAR * random_normal(&controller->random);
    if (state.troubles[WORLD_MEMBRANE].fault != WORLD_FAULT_STUCK)
        controller->stuck_bar = NAN;
    else if (isnan(controller->stuck_bar))
        controller->stuck_bar = bar;
    controller->model->refresh(controller, &state, isnan(controller->stuck_bar) ? bar : controller->stuck_bar);
}

/* A write is applied only when all of it may be. */
static enum exception write_apply(struct controller *controller, const struct request *request, int first, int n_run)
{
    const struct model *model = controller->model;
    for (int pass = 0; pass < 2; pass++) {
        const uint8_t *values = request->values;
        for (int i = first; i < first + n_run; i++) {
            uint16_t words[REGISTERS_ENTRY_MAX];
            for (int k = 0; k < model->map[i].n_registers; k++, values += 2)
                words[k] = (uint16_t)(values[0] << 8 | values[1]);
            if (!model->map[i].is_writable)
                return EXCEPTION_ADDRESS;
            if (!model->fits(i, words))
                return EXCEPTION_VALUE;
            struct world_state state;
            world_read(controller->world, &state);
            if (pass == 1)
                model->apply(controller, i, words, &state);
        }
    }
    return EXCEPTION_NONE;
}

static enum exception request_apply(struct controller *controller, const struct request *request)
{
    int n_run, first;
    if (request->function != FUNCTION_READ_HOLDING && request->function != FUNCTION_READ_INPUT && !request->values)
        return EXCEPTION_FUNCTION;
    first = registers_find_run(controller->model->map, controller->model->n_entries, request->address,
                               request->n_registers, &n_run);
    if (first < 0)
        return EXCEPTION_ADDRESS;
    refresh(controller);
    return request->values ? write_apply(controller, request, first, n_run) : EXCEPTION_NONE;
}

/* ---- frames -------------------------------------------------------------------------------------------------------
 */

static unsigned crc16(const uint8_t *bytes, size_t n)
{
    unsigned crc = 0xffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
    }
    return crc;
}

/* Bytes of the request part behind the unit's number; 0 when more bytes are needed to tell. */
static size_t pdu_size(const uint8_t *pdu, size_t n)
{
    if (n < 1)
        return 0;
    if (pdu[0] != FUNCTION_WRITE_MANY)
        return 5;
    return n < 6 ? 0 : 6u + pdu[5];
}

/* The answer behind the unit's number. */
static size_t pdu_answer(struct controller *controller, const uint8_t *pdu, size_t n, uint8_t *ret_answer)
{
    struct request request = {.function = pdu[0], .address = pdu[1] << 8 | pdu[2], .n_registers = pdu[3] << 8 | pdu[4]};
    if (pdu[0] == FUNCTION_WRITE_ONE) {
        request.n_registers = 1;
        request.values = pdu + 3;
    } else if (pdu[0] == FUNCTION_WRITE_MANY && n >= 6 && pdu[5] == 2 * request.n_registers) {
        request.values = pdu + 6;
    }
    enum exception exception = request_apply(controller, &request);
    ret_answer[0] = pdu[0];
    if (exception) {
        ret_answer[0] |= 0x80;
        ret_answer[1] = (uint8_t)exception;
        return 2;
    }
    if (request.values) {
        memcpy(ret_answer + 1, pdu + 1, 4);
        return 5;
    }
    ret_answer[1] = (uint8_t)(2 * request.n_registers);
    for (int i = 0; i < request.n_registers; i++) {
        uint16_t word = controller->registers[request.address + i];
        ret_answer[2 + 2 * i] = (uint8_t)(word >> 8);
        ret_answer[3 + 2 * i] = (uint8_t)(word & 0xff);
    }
    return 2 + 2 * (size_t)request.n_registers;
}

static int take_tcp(struct controller *controller, const uint8_t *bytes, size_t n_bytes, uint8_t *ret_answer,
                    size_t *ret_n_answer)
{
    enum { HEADER = 7 }; /* transaction, protocol 0, bytes that follow, unit */
    if (n_bytes < HEADER)
        return 0;
    size_t n = (size_t)(bytes[4] << 8 | bytes[5]);
    if (bytes[2] || bytes[3] || n < 6 || n > WIRE_REQUEST_MAX - HEADER)
        return -1;
    if (n_bytes < 6 + n)
        return 0;
    size_t n_pdu = n - 1, n_answer = 2;
    memcpy(ret_answer, bytes, HEADER);
    if (bytes[6] == UNIT_ID) {
        n_answer = pdu_answer(controller, bytes + HEADER, n_pdu, ret_answer + HEADER);
    } else {
        ret_answer[HEADER] = (uint8_t)(bytes[HEADER] | 0x80);
        ret_answer[HEADER + 1] = EXCEPTION_TARGET;
    }
    ret_answer[4] = 0;
    ret_answer[5] = (uint8_t)(n_answer + 1);
    *ret_n_answer = HEADER + n_answer;
    return (int)(6 + n);
}

/* Frames are told apart by their checksum: what does not begin one is skipped byte by byte. */
static int take_rtu(struct controller *controller, const uint8_t *bytes, size_t n_bytes, uint8_t *ret_answer,
                    size_t *ret_n_answer)
{
    size_t n_pdu = n_bytes < 2 ? 0 : pdu_size(bytes + 1, n_bytes - 1);
    if (n_pdu == 0 || n_bytes < 1 + n_pdu + 2)
        return 0;
    unsigned crc = crc16(bytes, 1 + n_pdu);
    if (bytes[1 + n_pdu] != (crc & 0xff) || bytes[2 + n_pdu] != crc >> 8)
        return 1;
    if (bytes[0] == UNIT_ID) {
        ret_answer[0] = bytes[0];
        size_t n_answer = 1 + pdu_answer(controller, bytes + 1, n_pdu, ret_answer + 1);
        crc = crc16(ret_answer, n_answer);
        ret_answer[n_answer] = (uint8_t)(crc & 0xff);
        ret_answer[n_answer + 1] = (uint8_t)(crc >> 8);
        *ret_n_answer = n_answer + 2;
    }
    return (int)(1 + n_pdu + 2);
}

static int take(void *self, const uint8_t *bytes, size_t n_bytes, uint8_t ret_answer[WIRE_ANSWER_MAX],
                size_t *ret_n_answer)
{
    struct controller *controller = self;
    return controller->is_serial ? take_rtu(controller, bytes, n_bytes, ret_answer, ret_n_answer)
                                 : take_tcp(controller, bytes, n_bytes, ret_answer, ret_n_answer);
}

int membrane_server_run(struct world *world, const char *model, const char *address, struct err *err)
{
    struct controller controller = {.world = world, .stuck_bar = NAN};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (strcmp(models[i].name, model) == 0)
            controller.model = &models[i];
    if (!controller.model)
        return err_set(err, ERR_ARG, "simulated membrane controller \"%s\" refused: expected bronkhorst or alicat",
                       model);
    controller.is_serial = strncmp(address, "serial:", 7) == 0;
    controller.random.state = world_seed(world) ^ 0x6d656d6272616e65;
    controller.registers = calloc(REGISTERS_COUNT, sizeof *controller.registers);
    assert(controller.registers);
    struct world_state state;
    world_read(world, &state);
    controller.model->init(&controller, &state);
    const struct wire_service service = {.self = &controller, .take = take};
    int code = wire_run(&service, world, address, err);
    free(controller.registers);
    return code;
}
