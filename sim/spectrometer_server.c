#include "sim/spectrometer_server.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/ocean.h"
#include "sim/listener.h"
#include "sim/spectrum.h"

#define PIXELS 3648
#define SEND_S_MAX 2
#define SLICE_MS 20 /* of wall time, between looks at the client and at the signals during an exposure */
#define EXPOSURE_MS_DEFAULT 100

/* C0 to C3 as the instrument's memory holds them, 15 characters each. */
static const char *const coefficients[4] = {"646.0000", "0.03105000", "-5.0000e-07", "1.0000e-12"};

struct instrument {
    struct world *world;
    struct clock *clock;
    const struct listener *listener;
    struct random random;
    struct ocean_window window;
    double wavelength_nm[PIXELS];
    double photons[PIXELS];
    uint16_t counts[PIXELS];
    uint8_t scan[OCEAN_SCAN_SIZE_MAX];
};

static void reset(struct instrument *instrument)
{
    instrument->window =
        (struct ocean_window){.pixel_last = PIXELS - 1, .is_whole = true, .exposure_ms = EXPOSURE_MS_DEFAULT};
}

static bool send_all(int fd, const void *bytes, size_t n_bytes)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = send(fd, (const char *)bytes + done, n_bytes - done, MSG_NOSIGNAL);
        if (n <= 0 && errno != EINTR)
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool answer(int fd, bool is_good) { return send_all(fd, is_good ? "\x06" : "\x15", 1); }

static bool answer_word(int fd, int word)
{
    const uint8_t bytes[3] = {OCEAN_ACK, (uint8_t)(word >> 8), (uint8_t)(word & 0xff)};
    return send_all(fd, bytes, sizeof bytes);
}

/* True when `fd` hung up or the process is to end. */
static bool is_over(const struct instrument *instrument, int fd)
{
    struct pollfd fds[2] = {{.fd = instrument->listener->stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLRDHUP}};
    return poll(fds, 2, 0) > 0;
}

/* Partly in place shows nothing: the focus is on the ruby at the end of the stage's way only. */
static bool is_lit(const struct world_state *state) { return state->ruby.optics >= 1.0 && state->ruby.laser > 0.0; }

static bool scan(struct instrument *instrument, int fd)
{
    struct world_state before;
    world_read(instrument->world, &before);
    int64_t end_ns = clock_now_ns(instrument->clock) + instrument->window.exposure_ms * NS_PER_MS;
    while (clock_now_ns(instrument->clock) < end_ns) {
        if (is_over(instrument, fd))
            return false;
        clock_sleep_until(instrument->clock, end_ns, SLICE_MS);
    }
    struct world_state state;
    world_read(instrument->world, &state);
    struct spectrum_scene scene = {.pressure_gpa = state.pressure_gpa,
                                   .temperature_k = state.temperature_k,
                                   .exposure_s = instrument->window.exposure_ms * 1e-3,
                                   .is_lit = is_lit(&before) && is_lit(&state)};
    int first = instrument->window.pixel_first, n = instrument->window.pixel_last - first + 1;
    spectrum_expect(&scene, instrument->wavelength_nm + first, n, instrument->photons);
    spectrum_draw(&instrument->random, instrument->photons, n, instrument->counts);
    return send_all(fd, instrument->scan, ocean_pack_scan(instrument->scan, &instrument->window, instrument->counts));
}

/* Pixel modes 0 (all) and 3 (first, last, every one). */
static bool choose_pixels(struct instrument *instrument, const uint16_t *words)
{
    struct ocean_window *window = &instrument->window;
    if (words[0] == 0) {
        window->is_whole = true;
        window->pixel_first = 0;
        window->pixel_last = PIXELS - 1;
        return true;
    }
    if (words[0] != 3 || words[1] > words[2] || words[2] >= PIXELS || words[3] != 1)
        return false;
    window->is_whole = false;
    window->pixel_first = words[1];
    window->pixel_last = words[2];
    return true;
}

static bool answer_constant(int fd, int index)
{
    char text[OCEAN_CONSTANT_SIZE + 2] = {OCEAN_ACK};
    if (index == OCEAN_CONSTANT_SERIAL)
        snprintf(text + 1, sizeof text - 1, "SIM00001");
    else if (index >= OCEAN_CONSTANT_C0 && index < OCEAN_CONSTANT_C0 + 4)
        snprintf(text + 1, sizeof text - 1, "%s", coefficients[index - OCEAN_CONSTANT_C0]);
    else
        return answer(fd, false);
    return send_all(fd, text, 1 + OCEAN_CONSTANT_SIZE);
}

/* Bytes that a command has from its letter on, as far as it is known; 0: one more byte is needed to tell. */
static size_t command_size(const uint8_t *bytes, size_t n_bytes)
{
    switch (bytes[0]) {
    case 'A':
    case 'B':
    case 'G':
    case 'I':
    case 'J':
    case 'T':
    case 'k':
    case 'K':
        return 3;
    case 'P':
        return n_bytes < 3 ? 0 : bytes[1] == 0 && bytes[2] == 3 ? 9 : 3;
    case 'a':
    case 'b':
        return 2;
    case '?':
        return n_bytes < 2 ? 0 : bytes[1] == 'x' ? 4 : 2;
    default:
        return 1;
    }
}

static bool answer_query(struct instrument *instrument, int fd, const uint8_t *bytes)
{
    switch (bytes[1]) {
    case 'x':
        return answer_constant(fd, bytes[2] << 8 | bytes[3]);
    case 'A':
        return answer_word(fd, 1);
    case 'B':
        return answer_word(fd, 0);
    case 'I':
        return answer_word(fd, instrument->window.exposure_ms);
    default:
        return answer(fd, false);
    }
}

/* Obeys one whole command. False when the client is to be dropped. */
static bool obey(struct instrument *instrument, int fd, const uint8_t *bytes)
{
    uint16_t words[4] = {0};
    for (size_t i = 0; i < (command_size(bytes, 3) - 1) / 2; i++)
        words[i] = (uint16_t)(bytes[1 + 2 * i] << 8 | bytes[2 + 2 * i]);
    switch (bytes[0]) {
    case 'S':
        return scan(instrument, fd);
    case 'v':
        return answer_word(fd, 1000);
    case 'I':
        if (words[0] < 1 || words[0] > OCEAN_EXPOSURE_MS_MAX)
            return answer(fd, false);
        instrument->window.exposure_ms = words[0];
        return answer(fd, true);
    case 'P':
        return answer(fd, choose_pixels(instrument, words));
    case 'k':
        instrument->window.has_checksum = words[0] != 0;
        return answer(fd, true);
    case 'A':
        return answer(fd, words[0] == 1);
    case 'B':
    case 'G':
    case 'T':
    case 'J':
        return answer(fd, words[0] == 0);
    case 'b':
        return answer(fd, bytes[1] == 'B');
    case 'Q':
        reset(instrument);
        return answer(fd, true);
    case '?':
        return answer_query(instrument, fd, bytes);
    default:
        return answer(fd, false);
    }
}

static void serve(struct instrument *instrument, int fd)
{
    uint8_t bytes[OCEAN_COMMAND_SIZE_MAX];
    size_t n_bytes = 0;
    struct timeval patience = {.tv_sec = SEND_S_MAX};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    for (;;) {
        struct pollfd fds[2] = {{.fd = instrument->listener->stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        if (poll(fds, 2, -1) > 0 && fds[0].revents)
            return;
        if (!fds[1].revents)
            continue;
        ssize_t n = recv(fd, bytes + n_bytes, 1, 0); /* the sensor's controller reads a byte at a time, too */
        if (n <= 0)
            return;
        n_bytes++;
        size_t size = command_size(bytes, n_bytes);
        if (size == 0 || n_bytes < size)
            continue;
        n_bytes = 0;
        if (!obey(instrument, fd, bytes))
            return;
    }
}

int spectrometer_server_run(struct world *world, struct clock *clock, const char *address, struct err *err)
{
    struct listener listener;
    int code = listener_open(&listener, address, err);
    if (code)
        return code;
    struct instrument *instrument = calloc(1, sizeof *instrument);
    assert(instrument);
    *instrument = (struct instrument){.world = world, .clock = clock, .listener = &listener};
    instrument->random.state = world_seed(world) ^ 0x7370656374727521;
    for (int pixel = 0; pixel < PIXELS; pixel++)
        instrument->wavelength_nm[pixel] = 646.0 + pixel * (0.03105 + pixel * (-5.0e-7 + pixel * 1.0e-12));
    struct pollfd fds[2] = {{.fd = listener.stop_fd, .events = POLLIN}, {.fd = listener.listen_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0 || !fds[0].revents) {
        int fd = fds[1].revents & POLLIN ? listener_accept(&listener) : -1;
        if (fd < 0)
            continue;
        reset(instrument);
        serve(instrument, fd);
        close(fd);
    }
    free(instrument);
    listener_close(&listener);
    return 0;
}
