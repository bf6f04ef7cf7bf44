#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/ocean.h"
#include "drivers/spectrometer_class.h"
#include "drivers/transport.h"

#define QUIET_NS (40 * NS_PER_MS) /* longer than a gap between bytes of one answer at 9600 baud */
#define DRAIN_NS_MAX (2 * NS_PER_S)
#define BYTE_GAP_NS (1 * NS_PER_MS) /* an SAD500 holds one byte, and needs this long to take it */
#define SYNCHRONISE_MAX 3
#define SIGNATURES 3 /* exposures in turn, 1 ms apart: by it a scan says which request it belongs to */

struct device {
    const struct spectrometer_settings *settings;
    struct transport *transport;
    double coefficients[4];
    struct ocean_window window;
    struct ocean_parser parser;
    uint8_t first; /* byte of the last answer */
    int signature;
};

static int64_t answer_ns(const struct device *device) { return device->settings->answer_ms * NS_PER_MS; }

/* Throws away what arrives until the line has been quiet for `quiet_ns`: it belongs to nothing that was asked. */
static int drain(struct device *device, int64_t quiet_ns, struct err *err)
{
    uint8_t waste[512];
    struct err failure;
    int64_t end_wall_ns = clock_wall_ns() + DRAIN_NS_MAX;
    while (clock_wall_ns() < end_wall_ns) {
        int64_t deadline_wall_ns = clock_wall_ns() + quiet_ns;
        int n = transport_read_some(device->transport, waste, sizeof waste, deadline_wall_ns, &failure);
        if (n < 0)
            return n == ERR_TIMEOUT ? 0 : err_set(err, n, "%s", failure.message);
    }
    return err_set(err, ERR_PROTOCOL, "%s does not stop sending; is it a spectrometer?", device->settings->address);
}

/* Byte by byte, for an instrument that holds one. */
static int send(struct device *device, const uint8_t *bytes, size_t n_bytes, struct err *err)
{
    int64_t gap_ns = BYTE_GAP_NS + transport_duration_ns(device->transport, 1);
    int code = drain(device, 0, err);
    for (size_t i = 0; i < n_bytes && code == 0; i++) {
        code = transport_write_all(device->transport, bytes + i, 1, clock_wall_ns() + answer_ns(device), err);
        if (code == 0 && i + 1 < n_bytes)
            code = drain(device, gap_ns, err);
    }
    return code;
}

/* Sends a command; expects ACK and `n_value` bytes. */
static int ask(struct device *device, bool is_query, char letter, const uint16_t *words, int n_words,
               uint8_t *ret_value, int n_value, struct err *err)
{
    uint8_t command[OCEAN_COMMAND_SIZE_MAX], answer[1 + OCEAN_CONSTANT_SIZE];
    size_t size = ocean_pack_command(command, is_query, letter, words, n_words);
    assert(n_value <= OCEAN_CONSTANT_SIZE);
    device->first = 0;
    int code = send(device, command, size, err);
    if (code)
        return code;
    int64_t deadline_wall_ns =
        clock_wall_ns() + answer_ns(device) + transport_duration_ns(device->transport, (size_t)n_value + 2);
    for (int n = 0; n < 1 + n_value;) {
        int got = transport_read_some(device->transport, answer + n, (size_t)(1 + n_value - n), deadline_wall_ns, err);
        if (got < 0)
            return got;
        n += got;
        device->first = answer[0];
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

static int set(struct device *device, char letter, uint16_t word, struct err *err)
{
    return ask(device, false, letter, &word, 1, NULL, 0, err);
}

/* Binary mode, whatever the device was doing: a command that was cut short swallows the first attempts, and in ASCII
 * mode, which shows by the letter that it sends back, a line end ends it. The mode is told twice: after a single bB,
 * one that is short of a byte would take b, the B for a command of its own with v and the next b for its word, and so
 * for ever. What takes a bB for its word refuses it or is set anew later. */
static int synchronise(struct device *device, struct err *err)
{
    int code = ERR_TIMEOUT;
    bool is_ascii = false;
    for (int attempt = 0; attempt < SYNCHRONISE_MAX && code; attempt++) {
        uint8_t version[2];
        if ((code = drain(device, QUIET_NS, err)) ||
            (is_ascii && (code = send(device, (const uint8_t *)"\r", 1, err))) ||
            (code = send(device, (const uint8_t *)"bBbB", 4, err)) || (code = drain(device, QUIET_NS, err)))
            return code;
        code = ask(device, false, 'v', NULL, 0, version, 2, err);
        if (code == ERR_LINK)
            return code;
        is_ascii = code && device->first == 'v';
    }
    if (is_ascii)
        return err_set(err, ERR_STATE, "%s answers in ASCII mode, and does not leave it when told bB; link closed",
                       device->settings->address);
    return code;
}

/* ---- the rate of a serial line ------------------------------------------------------------------------------- */

/* The three steps of a change, at the end of which the device has answered at the new rate. On an error the device is
 * where it was, or will fall back to it; the line is at either rate. */
static int change_baud(struct device *device, int baud, struct err *err)
{
    uint8_t word[2];
    int baud_before = transport_baud(device->transport);
    int code = ask(device, true, 'K', NULL, 0, word, 2, err);
    if (code)
        return err_prefix(err, "it does not tell its baud code");
    enum ocean_baud_table table = ocean_baud_find_table(baud_before, word[0] << 8 | word[1]);
    if (table == OCEAN_BAUD_TABLE_COUNT)
        return err_set(err, ERR_PROTOCOL, "it calls %d baud by code %d, expected 2 or 3, by one of two tables",
                       baud_before, word[0] << 8 | word[1]);
    int wanted = ocean_baud_code(table, baud);
    if (wanted < 0)
        return err_set(err, ERR_REFUSED, "its table of codes has no %d baud", baud);
    if ((code = set(device, 'K', (uint16_t)wanted, err)) ||
        (code = drain(device, OCEAN_BAUD_SETTLE_MS * NS_PER_MS, err)) ||
        (code = transport_set_baud(device->transport, baud, err)))
        return code;
    return set(device, 'K', (uint16_t)wanted, err);
}

/* Finds the device at the rate that is wanted, or where it is after power-up, and brings it to the one that is wanted;
 * a device that does not follow is used as it is, with a note. */
static int line_find(struct device *device, struct spectrometer_terms *ret_terms, struct err *err)
{
    int baud = transport_baud(device->transport);
    int code = synchronise(device, err);
    ret_terms->baud_found = ret_terms->baud = baud;
    if (code == 0 || code == ERR_LINK || code == ERR_STATE || baud == OCEAN_BAUD_POWER_UP)
        return code;
    if ((code = transport_set_baud(device->transport, OCEAN_BAUD_POWER_UP, err)))
        return code;
    if ((code = synchronise(device, err)))
        return err_prefix(err, "it answers neither at %d nor at %d baud", baud, OCEAN_BAUD_POWER_UP);
    struct err reason = {0};
    ret_terms->baud_found = OCEAN_BAUD_POWER_UP;
    if (change_baud(device, baud, &reason) == 0)
        return synchronise(device, err);
    if ((code = transport_set_baud(device->transport, OCEAN_BAUD_POWER_UP, err)) || (code = synchronise(device, err)))
        return err_prefix(err, "it does not come back to %d baud", OCEAN_BAUD_POWER_UP);
    ret_terms->baud = OCEAN_BAUD_POWER_UP;
    snprintf(ret_terms->note, sizeof ret_terms->note,
             "spectrometer stays at %d baud and does not follow to %d, so that each spectrum takes longer: %.100s",
             OCEAN_BAUD_POWER_UP, baud, reason.message);
    return 0;
}

/* ---- pixels and wavelengths ---------------------------------------------------------------------------------- */

static double wavelength_at(const struct device *device, int pixel)
{
    const double *c = device->coefficients;
    return c[0] + pixel * (c[1] + pixel * (c[2] + pixel * c[3]));
}

static int read_coefficients(struct device *device, struct err *err)
{
    for (int k = 0; k < 4; k++) {
        uint8_t text[OCEAN_CONSTANT_SIZE];
        uint16_t index = (uint16_t)(OCEAN_CONSTANT_C0 + k);
        int code = ask(device, true, 'x', &index, 1, text, OCEAN_CONSTANT_SIZE, err);
        if (code)
            return code;
        if (!ocean_unpack_constant(text, &device->coefficients[k]))
            return err_set(err, ERR_DATA,
                           "wavelength coefficient C%d \"%.15s\" is no number; link closed; calibrate it", k,
                           (const char *)text);
    }
    return 0;
}

/* The pixels of the wavelength window, by the instrument's own calibration. */
static int window_choose(struct device *device, struct err *err)
{
    const struct spectrometer_settings *settings = device->settings;
    int code = read_coefficients(device, err);
    if (code)
        return code;
    int first = -1, last = -1;
    for (int pixel = 0; pixel < OCEAN_PIXELS_MAX; pixel++) {
        double nm = wavelength_at(device, pixel);
        if (pixel > 0 && first >= 0 && !(nm > wavelength_at(device, pixel - 1)))
            break; /* the polynomial turns beyond the last pixel of some instruments */
        if (nm >= settings->wavelength_nm_min && nm <= settings->wavelength_nm_max) {
            first = first < 0 ? pixel : first;
            last = pixel;
        }
    }
    if (first < 0 || last - first + 1 < SPECTROMETER_PIXELS_MIN)
        return err_set(
            err, ERR_DATA,
            "fewer than %d pixels lie within %g to %g nm by the instrument's own coefficients (C0 %g nm, C1 %g "
            "nm per pixel); check its calibration and the window",
            SPECTROMETER_PIXELS_MIN, settings->wavelength_nm_min, settings->wavelength_nm_max, device->coefficients[0],
            device->coefficients[1]);
    device->window = (struct ocean_window){.pixel_first = first, .pixel_last = last, .has_checksum = true};
    return 0;
}

/* One scan at a time, no smoothing, no compression, at once, with a checksum, and only the window. */
static int set_up(struct device *device, struct err *err)
{
    const uint16_t range[] = {3, (uint16_t)device->window.pixel_first, (uint16_t)device->window.pixel_last, 1};
    int code;
    if ((code = set(device, 'A', 1, err)) || (code = set(device, 'B', 0, err)) || (code = set(device, 'G', 0, err)) ||
        (code = set(device, 'T', 0, err)) || (code = set(device, 'k', 1, err)) ||
        (code = ask(device, false, 'P', range, 4, NULL, 0, err)))
        return code;
    return 0;
}

/* ---- the class ----------------------------------------------------------------------------------------------- */

static void ocean_close(void *self)
{
    struct device *device = self;
    transport_close(device->transport);
    free(device);
}

static int ocean_open(void **ret_device, const struct spectrometer_settings *settings,
                      struct spectrometer_terms *ret_terms, struct err *err)
{
    struct transport *transport;
    int code = transport_open(&transport, settings->address, settings->answer_ms, err);
    if (code)
        return code;
    struct device *device = calloc(1, sizeof *device);
    assert(device);
    device->settings = settings;
    device->transport = transport;
    device->signature = (int)(clock_wall_ns() / NS_PER_MS % SIGNATURES); /* another than a late scan's, most likely */
    code = transport_baud(transport) ? line_find(device, ret_terms, err) : synchronise(device, err);
    if (code)
        err_prefix(err, "synchronising");
    else if ((code = window_choose(device, err)))
        err_prefix(err, "reading its calibration");
    else if ((code = set_up(device, err)))
        err_prefix(err, "setting it up");
    if (code)
        ocean_close(device);
    else
        *ret_device = device;
    return code;
}

/* Asks for one scan and feeds it to the parser. */
static int scan(struct device *device, struct err *err)
{
    struct ocean_window *window = &device->window;
    ocean_parser_start(&device->parser, window);
    size_t size_max = 32 + 4 * (size_t)(window->pixel_last - window->pixel_first + 1);
    int code = send(device, (const uint8_t *)"S", 1, err);
    int64_t deadline_wall_ns = clock_wall_ns() + window->exposure_ms * NS_PER_MS + 2 * answer_ns(device) +
                               transport_duration_ns(device->transport, size_max);
    while (code == 0) {
        uint8_t bytes[4096];
        int n = transport_read_some(device->transport, bytes, sizeof bytes, deadline_wall_ns, err);
        if (n < 0)
            return n;
        enum ocean_outcome outcome = OCEAN_MORE;
        for (int i = 0; i < n && outcome == OCEAN_MORE; i++)
            outcome = ocean_parser_feed(&device->parser, bytes[i]);
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
    return code;
}

/* No answer carries a number. So each scan is asked for with another exposure than the one before, which its header
 * repeats; and since the exposure is told in between, no scan follows on a scan. */
static int ocean_acquire(void *self, double exposure_s, struct spectrum *ret_spectrum, struct err *err)
{
    struct device *device = self;
    device->signature = (device->signature + 1) % SIGNATURES;
    int exposure_ms = (int)lround(exposure_s * 1e3) + device->signature;
    exposure_ms = exposure_ms > OCEAN_EXPOSURE_MS_MAX ? OCEAN_EXPOSURE_MS_MAX - device->signature : exposure_ms;
    if (set(device, 'I', (uint16_t)exposure_ms, err))
        return err_prefix(err, "setting the exposure");
    device->window.exposure_ms = exposure_ms;
    if (scan(device, err))
        return err_prefix(err, "taking a scan");
    ret_spectrum->n = device->parser.n_pixels;
    for (int i = 0; i < ret_spectrum->n; i++) {
        ret_spectrum->wavelength_nm[i] = wavelength_at(device, device->window.pixel_first + i);
        ret_spectrum->counts[i] = device->parser.counts[i];
    }
    ret_spectrum->exposure_s = exposure_ms * 1e-3;
    ret_spectrum->counts_saturation = OCEAN_COUNTS_MAX;
    return 0;
}

const struct spectrometer_class spectrometer_ocean_class = {
    .driver = "ocean-optics", .open = ocean_open, .acquire = ocean_acquire, .close = ocean_close};
