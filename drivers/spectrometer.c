#include "drivers/spectrometer.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/ocean.h"
#include "drivers/transport.h"

#define CONNECT_MS_MAX 1000
#define ANSWER_NS_MAX (1 * NS_PER_S)
#define SCAN_MARGIN_NS (2 * NS_PER_S)
#define QUIET_NS (40 * NS_PER_MS) /* longer than a gap between bytes of one answer at 9600 baud */
#define DRAIN_NS_MAX (2 * NS_PER_S)
#define WINDOW_PIXELS_MIN 16

struct spectrometer {
    char address[128];
    double wavelength_nm_min, wavelength_nm_max;
    struct transport *transport; /* NULL while the link is down */
    double coefficients[4];
    struct ocean_window window;
    struct ocean_parser parser;
};

static int fail(struct spectrometer *spectrometer, const char *doing, struct err *err)
{
    transport_close(spectrometer->transport);
    spectrometer->transport = NULL;
    return err_prefix(err, "spectrometer, %s", doing);
}

/* Throws away what arrives until the line has been quiet for `quiet_ns`: it belongs to nothing that was asked. */
static int drain(struct spectrometer *spectrometer, int64_t quiet_ns, struct err *err)
{
    uint8_t waste[512];
    struct err failure;
    int64_t end_wall_ns = clock_wall_ns() + DRAIN_NS_MAX;
    while (clock_wall_ns() < end_wall_ns) {
        int64_t deadline_wall_ns = clock_wall_ns() + quiet_ns;
        int n = transport_read_some(spectrometer->transport, waste, sizeof waste, deadline_wall_ns, &failure);
        if (n < 0)
            return n == ERR_TIMEOUT ? 0 : err_set(err, n, "%s", failure.message);
    }
    return err_set(err, ERR_PROTOCOL, "%s does not stop sending; is it a spectrometer?", spectrometer->address);
}

/* Sends a command; expects ACK and `n_value` bytes. */
static int ask(struct spectrometer *spectrometer, bool is_query, char letter, const uint16_t *words, int n_words,
               uint8_t *ret_value, int n_value, struct err *err)
{
    struct transport *transport = spectrometer->transport;
    uint8_t command[OCEAN_COMMAND_SIZE_MAX], answer[1 + OCEAN_CONSTANT_SIZE];
    size_t size = ocean_pack_command(command, is_query, letter, words, n_words);
    assert(n_value <= OCEAN_CONSTANT_SIZE);
    int64_t deadline_wall_ns =
        clock_wall_ns() + ANSWER_NS_MAX + transport_duration_ns(transport, size + (size_t)n_value + 1);
    int code = drain(spectrometer, 0, err);
    if (code || (code = transport_write_all(transport, command, size, deadline_wall_ns, err)))
        return code;
    for (int n = 0; n < 1 + n_value;) {
        int got = transport_read_some(transport, answer + n, (size_t)(1 + n_value - n), deadline_wall_ns, err);
        if (got < 0)
            return got;
        n += got;
        if (answer[0] != OCEAN_ACK)
            return err_set(err, answer[0] == OCEAN_NAK ? ERR_REFUSED : ERR_PROTOCOL,
                           "command %s%c answered by 0x%02x, expected ACK 0x06; link closed; check model and mode",
                           is_query ? "?" : "", letter, answer[0]);
        if (n_value == OCEAN_CONSTANT_SIZE && (answer[n - 1] == '\r' || answer[n - 1] == '\n')) {
            memset(answer + n - 1, ' ', (size_t)(1 + n_value - n + 1)); /* a short text and its line end */
            break;
        }
    }
    if (n_value)
        memcpy(ret_value, answer + 1, (size_t)n_value);
    return 0;
}

static int set(struct spectrometer *spectrometer, char letter, uint16_t word, struct err *err)
{
    return ask(spectrometer, false, letter, &word, 1, NULL, 0, err);
}

/* Binary mode, whatever the device was doing: a command that was cut short swallows the first attempts. */
static int synchronise(struct spectrometer *spectrometer, struct err *err)
{
    int code = ERR_TIMEOUT;
    for (int attempt = 0; attempt < 3 && code; attempt++) {
        if ((code = drain(spectrometer, QUIET_NS, err)) ||
            (code = transport_write_all(spectrometer->transport, "bB", 2, clock_wall_ns() + ANSWER_NS_MAX, err)) ||
            (code = drain(spectrometer, QUIET_NS, err)))
            return code;
        uint8_t version[2];
        code = ask(spectrometer, false, 'v', NULL, 0, version, 2, err);
        if (code == ERR_LINK)
            return code;
    }
    return code;
}

static double wavelength_at(const struct spectrometer *spectrometer, int pixel)
{
    const double *c = spectrometer->coefficients;
    return c[0] + pixel * (c[1] + pixel * (c[2] + pixel * c[3]));
}

/* The pixels of the wavelength window, by the instrument's own calibration. */
static int window_choose(struct spectrometer *spectrometer, struct err *err)
{
    for (int k = 0; k < 4; k++) {
        uint8_t text[OCEAN_CONSTANT_SIZE];
        uint16_t index = (uint16_t)(OCEAN_CONSTANT_C0 + k);
        int code = ask(spectrometer, true, 'x', &index, 1, text, OCEAN_CONSTANT_SIZE, err);
        if (code)
            return code;
        if (!ocean_unpack_constant(text, &spectrometer->coefficients[k]))
            return err_set(err, ERR_DATA,
                           "wavelength coefficient C%d \"%.15s\" is no number; link closed; calibrate it", k,
                           (const char *)text);
    }
    int first = -1, last = -1;
    for (int pixel = 0; pixel < OCEAN_PIXELS_MAX; pixel++) {
        double nm = wavelength_at(spectrometer, pixel);
        if (pixel > 0 && first >= 0 && !(nm > wavelength_at(spectrometer, pixel - 1)))
            break; /* the polynomial turns beyond the last pixel of some instruments */
        if (nm >= spectrometer->wavelength_nm_min && nm <= spectrometer->wavelength_nm_max) {
            first = first < 0 ? pixel : first;
            last = pixel;
        }
    }
    if (first < 0 || last - first + 1 < WINDOW_PIXELS_MIN)
        return err_set(
            err, ERR_DATA,
            "fewer than %d pixels lie within %g to %g nm by the instrument's own coefficients (C0 %g nm, C1 %g "
            "nm per pixel); check its calibration and the window",
            WINDOW_PIXELS_MIN, spectrometer->wavelength_nm_min, spectrometer->wavelength_nm_max,
            spectrometer->coefficients[0], spectrometer->coefficients[1]);
    spectrometer->window =
        (struct ocean_window){.pixel_first = first, .pixel_last = last, .has_checksum = true, .exposure_ms = 0};
    return 0;
}

static int link_open(struct spectrometer *spectrometer, struct err *err)
{
    if (spectrometer->transport)
        return 0;
    int code = transport_open(&spectrometer->transport, spectrometer->address, CONNECT_MS_MAX, err);
    if (code)
        return fail(spectrometer, "connecting", err);
    if ((code = synchronise(spectrometer, err)))
        return fail(spectrometer, "synchronising", err);
    if ((code = window_choose(spectrometer, err)))
        return fail(spectrometer, "reading its calibration", err);
    const uint16_t range[] = {3, (uint16_t)spectrometer->window.pixel_first, (uint16_t)spectrometer->window.pixel_last,
                              1};
    if ((code = set(spectrometer, 'A', 1, err)) || (code = set(spectrometer, 'B', 0, err)) ||
        (code = set(spectrometer, 'G', 0, err)) || (code = set(spectrometer, 'T', 0, err)) ||
        (code = set(spectrometer, 'k', 1, err)) || (code = ask(spectrometer, false, 'P', range, 4, NULL, 0, err)))
        return fail(spectrometer, "setting it up", err);
    return 0;
}

int spectrometer_open(struct spectrometer **ret_spectrometer, const char *address, double wavelength_nm_min,
                      double wavelength_nm_max, struct err *err)
{
    if (!(wavelength_nm_min > 0 && wavelength_nm_max > wavelength_nm_min))
        return err_set(err, ERR_ARG, "spectrometer window %g to %g nm refused: expected ascending", wavelength_nm_min,
                       wavelength_nm_max);
    struct spectrometer *spectrometer = calloc(1, sizeof *spectrometer);
    assert(spectrometer);
    snprintf(spectrometer->address, sizeof spectrometer->address, "%s", address);
    spectrometer->wavelength_nm_min = wavelength_nm_min;
    spectrometer->wavelength_nm_max = wavelength_nm_max;
    int code = link_open(spectrometer, err);
    if (code)
        spectrometer_close(spectrometer);
    else
        *ret_spectrometer = spectrometer;
    return code;
}

/* Asks for one scan and feeds it to the parser. */
static int scan(struct spectrometer *spectrometer, struct err *err)
{
    struct transport *transport = spectrometer->transport;
    size_t n_pixels = (size_t)(spectrometer->window.pixel_last - spectrometer->window.pixel_first + 1);
    int64_t deadline_wall_ns = clock_wall_ns() + spectrometer->window.exposure_ms * NS_PER_MS + SCAN_MARGIN_NS +
                               transport_duration_ns(transport, 32 + 2 * n_pixels);
    ocean_parser_start(&spectrometer->parser, &spectrometer->window);
    int code = drain(spectrometer, 0, err);
    if (code || (code = transport_write_all(transport, "S", 1, deadline_wall_ns, err)))
        return code;
    for (;;) {
        uint8_t bytes[4096];
        int n = transport_read_some(transport, bytes, sizeof bytes, deadline_wall_ns, err);
        if (n < 0)
            return n;
        enum ocean_outcome outcome = OCEAN_MORE;
        for (int i = 0; i < n && outcome == OCEAN_MORE; i++)
            outcome = ocean_parser_feed(&spectrometer->parser, bytes[i]);
        switch (outcome) {
        case OCEAN_MORE:
            break;
        case OCEAN_SCAN:
            return 0;
        case OCEAN_FAILED:
            return err_set(err, ERR_REFUSED, "the instrument could not scan; check its trigger mode and exposure");
        case OCEAN_CHECKSUM:
            return err_set(err, ERR_DATA, "checksum of the scan is wrong; scan refused, link closed; check the cable");
        default:
            return err_set(err, ERR_PROTOCOL, "what arrived is not the scan that was asked for; link closed");
        }
    }
}

int spectrometer_acquire(struct spectrometer *spectrometer, double exposure_s, struct spectrum *ret_spectrum,
                         struct err *err)
{
    if (!(exposure_s >= 0.001 && exposure_s <= OCEAN_EXPOSURE_MS_MAX * 1e-3))
        return err_set(err, ERR_ARG, "exposure %g s refused: expected 0.001 to %g", exposure_s,
                       OCEAN_EXPOSURE_MS_MAX * 1e-3);
    int code = link_open(spectrometer, err);
    if (code)
        return code;
    struct ocean_window *window = &spectrometer->window;
    int exposure_ms = (int)lround(exposure_s * 1e3);
    if (window->exposure_ms != exposure_ms) {
        if (set(spectrometer, 'I', (uint16_t)exposure_ms, err))
            return fail(spectrometer, "setting the exposure", err);
        window->exposure_ms = exposure_ms;
    }
    if (scan(spectrometer, err))
        return fail(spectrometer, "taking a scan", err);
    ret_spectrum->n = spectrometer->parser.n_pixels;
    for (int i = 0; i < ret_spectrum->n; i++) {
        ret_spectrum->wavelength_nm[i] = wavelength_at(spectrometer, window->pixel_first + i);
        ret_spectrum->counts[i] = spectrometer->parser.counts[i];
    }
    ret_spectrum->exposure_s = exposure_ms * 1e-3;
    ret_spectrum->counts_saturation = OCEAN_COUNTS_MAX;
    return 0;
}

void spectrometer_close(struct spectrometer *spectrometer)
{
    if (!spectrometer)
        return;
    transport_close(spectrometer->transport);
    free(spectrometer);
}
