#include "sim/membrane_server.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <modbus.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "drivers/elpress.h"
#include "sim/listener.h"
#include "sim/random.h"

#define CAPACITY_BAR 200.0
#define NOISE_BAR 0.002
#define UNIT_ID 1
#define CLIENTS_MAX 8
#define RAW_FULL 32000.0     /* 100 % on the 16-bit scale */
#define RAW_OVER 41942.0     /* above: negative values */
#define REGISTERS_END 0xf122 /* beyond the last parameter of the map */
#define FRAME_MS_MAX 500     /* from the first to the last byte of a request */
#define SLEW_INIT_BAR_PER_S (4.0 / 60)

enum function { FUNCTION_READ_HOLDING = 3, FUNCTION_READ_INPUT = 4, FUNCTION_WRITE_ONE = 6, FUNCTION_WRITE_MANY = 16 };

struct controller {
    struct world *world;
    modbus_t *modbus;
    modbus_mapping_t *mapping; /* input registers are the holding registers: function 4 reads as 3 does */
    struct random random;
    int slope;
    int control_mode;
};

/* A request as far as it concerns registers. */
struct request {
    int function;
    int address;
    int n_registers;
    const uint8_t *values; /* of a write, high byte first */
};

static uint16_t *registers_of(struct controller *controller, enum elpress_parameter parameter)
{
    return controller->mapping->tab_registers + elpress_registers[parameter].address;
}

static void put_float(struct controller *controller, enum elpress_parameter parameter, double value)
{
    elpress_pack_float((float)value, registers_of(controller, parameter));
}

static void put_string(struct controller *controller, enum elpress_parameter parameter, const char *text)
{
    elpress_pack_string(text, registers_of(controller, parameter), elpress_registers[parameter].n_registers);
}

/* What the device would show now. */
static void refresh(struct controller *controller)
{
    struct world_state state;
    world_read(controller->world, &state);
    double bar = state.membrane_bar + NOISE_BAR * random_normal(&controller->random);
    double raw = fmin(fmax(rint(bar / CAPACITY_BAR * RAW_FULL), RAW_OVER - 65535), RAW_OVER);
    put_float(controller, ELPRESS_FMEASURE, bar);
    put_float(controller, ELPRESS_FSETPOINT, state.membrane_bar_setpoint);
    *registers_of(controller, ELPRESS_MEASURE) = (uint16_t)(raw < 0 ? raw + 65536 : raw);
    *registers_of(controller, ELPRESS_SETPOINT) = (uint16_t)rint(state.membrane_bar_setpoint / CAPACITY_BAR * RAW_FULL);
    *registers_of(controller, ELPRESS_SLOPE) = (uint16_t)controller->slope;
    *registers_of(controller, ELPRESS_CONTROL_MODE) = (uint16_t)controller->control_mode;
}

static void command(struct controller *controller, double membrane_bar_setpoint)
{
    double slew_bar_per_s = CAPACITY_BAR / (fmax(controller->slope, 1) * ELPRESS_SLOPE_S);
    world_command_membrane(controller->world, membrane_bar_setpoint, slew_bar_per_s,
                           controller->control_mode != ELPRESS_MODE_VALVE_CLOSED);
}

static bool value_fits(enum elpress_parameter parameter, const uint16_t *words)
{
    const struct elpress_register *r = &elpress_registers[parameter];
    if (r->type == ELPRESS_F32) {
        double value = elpress_unpack_float(words);
        return value >= 0 && value <= CAPACITY_BAR;
    }
    if (parameter == ELPRESS_CONTROL_MODE)
        return words[0] == ELPRESS_MODE_DIGITAL || words[0] == ELPRESS_MODE_VALVE_CLOSED;
    return words[0] >= r->least && words[0] <= r->greatest;
}

static void value_apply(struct controller *controller, enum elpress_parameter parameter, const uint16_t *words)
{
    struct world_state state;
    world_read(controller->world, &state);
    double membrane_bar_setpoint = state.membrane_bar_setpoint;
    switch (parameter) {
    case ELPRESS_FSETPOINT:
        membrane_bar_setpoint = elpress_unpack_float(words);
        break;
    case ELPRESS_SETPOINT:
        membrane_bar_setpoint = words[0] / RAW_FULL * CAPACITY_BAR;
        break;
    case ELPRESS_SLOPE:
        controller->slope = words[0];
        break;
    case ELPRESS_CONTROL_MODE:
        controller->control_mode = words[0];
        break;
    default:
        return; /* a setting that only the map remembers */
    }
    command(controller, membrane_bar_setpoint);
}

/* Values of a write, in words; at most ELPRESS_REGISTERS_MAX of one parameter. */
static void words_take(const struct request *request, int offset, int n, uint16_t *ret_words)
{
    for (int i = 0; i < n; i++)
        ret_words[i] = (uint16_t)(request->values[2 * (offset + i)] << 8 | request->values[2 * (offset + i) + 1]);
}

/* 0, or the exception that the request deserves. A write is applied only when all of it may be. */
static unsigned request_apply(struct controller *controller, const struct request *request)
{
    if (request->function != FUNCTION_READ_HOLDING && request->function != FUNCTION_READ_INPUT &&
        request->function != FUNCTION_WRITE_ONE && request->function != FUNCTION_WRITE_MANY)
        return MODBUS_EXCEPTION_ILLEGAL_FUNCTION;
    int n_parameters;
    int first = elpress_find_run(request->address, request->n_registers, &n_parameters);
    if (first < 0)
        return MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;
    for (int pass = 0; pass < 2 && request->values; pass++) {
        for (int i = first, offset = 0; i < first + n_parameters; offset += elpress_registers[i++].n_registers) {
            uint16_t words[ELPRESS_REGISTERS_MAX];
            words_take(request, offset, elpress_registers[i].n_registers, words);
            if (!elpress_registers[i].is_writable)
                return MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;
            if (!value_fits((enum elpress_parameter)i, words))
                return MODBUS_EXCEPTION_ILLEGAL_DATA_VALUE;
            if (pass == 1)
                value_apply(controller, (enum elpress_parameter)i, words);
        }
    }
    return 0;
}

/* False when the frame is too short for what it says it is. */
static bool request_parse(const uint8_t *frame, int n_bytes, int header, struct request *ret_request)
{
    const uint8_t *pdu = frame + header;
    int n_pdu = n_bytes - header;
    if (n_pdu < 5)
        return false;
    *ret_request =
        (struct request){.function = pdu[0], .address = pdu[1] << 8 | pdu[2], .n_registers = pdu[3] << 8 | pdu[4]};
    if (ret_request->function == FUNCTION_WRITE_ONE) {
        ret_request->n_registers = 1;
        ret_request->values = pdu + 3;
    } else if (ret_request->function == FUNCTION_WRITE_MANY) {
        if (n_pdu < 6 || pdu[5] != 2 * ret_request->n_registers || n_pdu < 6 + pdu[5])
            return false;
        ret_request->values = pdu + 6;
    }
    return true;
}

/* One request of one client. False when the client is to be dropped. */
static bool serve(struct controller *controller, int fd)
{
    uint8_t frame[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_t *modbus = controller->modbus;
    modbus_set_socket(modbus, fd);
    int n_bytes = modbus_receive(modbus, frame);
    if (n_bytes <= 0)
        return n_bytes == 0;
    int header = modbus_get_header_length(modbus);
    struct request request;
    if (!request_parse(frame, n_bytes, header, &request))
        return false;
    unsigned exception =
        frame[header - 1] == UNIT_ID ? request_apply(controller, &request) : MODBUS_EXCEPTION_GATEWAY_TARGET;
    if (exception)
        return modbus_reply_exception(modbus, frame, exception) >= 0;
    refresh(controller);
    return modbus_reply(modbus, frame, n_bytes, controller->mapping) >= 0;
}

static void serve_all(struct controller *controller, const struct listener *listener)
{
    struct pollfd fds[2 + CLIENTS_MAX] = {{.fd = listener->stop_fd, .events = POLLIN},
                                          {.fd = listener->listen_fd, .events = POLLIN}};
    int n_clients = 0;
    while (!(fds[0].revents & POLLIN)) {
        fds[1].events = n_clients < CLIENTS_MAX ? POLLIN : 0;
        if (poll(fds, (nfds_t)(2 + n_clients), -1) < 0)
            continue; /* EINTR: nothing else can happen to descriptors of our own */
        for (int i = n_clients - 1; i >= 0; i--)
            if (fds[2 + i].revents && !serve(controller, fds[2 + i].fd)) {
                close(fds[2 + i].fd);
                fds[2 + i] = fds[2 + --n_clients];
            }
        int fd = fds[1].revents & POLLIN ? listener_accept(listener) : -1;
        if (fd >= 0)
            fds[2 + n_clients++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    for (int i = 0; i < n_clients; i++)
        close(fds[2 + i].fd);
}

static int controller_init(struct controller *controller, struct err *err)
{
    struct world_state state;
    world_read(controller->world, &state);
    controller->random.state = world_seed(controller->world) ^ 0x6d656d6272616e65;
    controller->control_mode = state.output_on ? ELPRESS_MODE_DIGITAL : ELPRESS_MODE_VALVE_CLOSED;
    double slew_bar_per_s = state.slew_bar_per_s > 0 ? state.slew_bar_per_s : SLEW_INIT_BAR_PER_S;
    controller->slope = elpress_slope_from_rate(slew_bar_per_s * 60, CAPACITY_BAR);
    controller->modbus = modbus_new_tcp("127.0.0.1", 502); /* the context only frames; the sockets are ours */
    controller->mapping = modbus_mapping_new(0, 0, REGISTERS_END, 0);
    if (!controller->modbus || !controller->mapping)
        return err_set(err, ERR_SYSTEM, "simulated membrane controller: %s", modbus_strerror(errno));
    controller->mapping->tab_input_registers = controller->mapping->tab_registers;
    controller->mapping->nb_input_registers = controller->mapping->nb_registers;
    modbus_set_indication_timeout(controller->modbus, 0, FRAME_MS_MAX * 1000);
    put_float(controller, ELPRESS_CAPACITY, CAPACITY_BAR);
    put_float(controller, ELPRESS_CAPACITY_ZERO, 0);
    put_string(controller, ELPRESS_CAPACITY_UNIT, "bar");
    put_string(controller, ELPRESS_MODEL, "P-702CV-200R");
    put_string(controller, ELPRESS_SERIAL, "SIM0000001");
    *registers_of(controller, ELPRESS_ALARM_MAX) = (uint16_t)RAW_FULL;
    *registers_of(controller, ELPRESS_INIT_RESET) = 82;
    return 0;
}

int membrane_server_run(struct world *world, struct clock *clock, const char *address, struct err *err)
{
    (void)clock; /* the device has no time of its own: the world integrates its slope */
    struct listener listener;
    int code = listener_open(&listener, address, err);
    if (code)
        return code;
    struct controller controller = {.world = world};
    code = controller_init(&controller, err);
    if (!code)
        serve_all(&controller, &listener);
    if (controller.mapping) {
        controller.mapping->tab_input_registers = NULL;
        modbus_mapping_free(controller.mapping);
    }
    if (controller.modbus)
        modbus_free(controller.modbus);
    listener_close(&listener);
    return code;
}
