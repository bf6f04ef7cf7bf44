#include "sim/spectrometer_server.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/spectrum.h"
#include "sim/wire.h"

#define PIXELS 3648
#define EXPOSURE_MS_DEFAULT 100
#define DEAF_NS (50 * NS_PER_MS)
#define CONFIRM_NS (1 * NS_PER_S)
#define WORDS_MAX 4
#define DIGITS_MAX 5

/* C0 to C3 as the instrument's memory holds them, 15 characters each. */
static const char *const coefficients[4] = {"646.0000", "0.03105000", "-5.0000e-07", "1.0000e-12"};

/* What has come of a command. */
struct command {
    char letter; /* 0: nothing yet */
    bool is_query;
    int n_words;
    uint16_t words[WORDS_MAX];
    int n_partial;               /* bytes of the next word */
    char digits[DIGITS_MAX + 1]; /* of the next word, in ASCII mode */
    uint8_t high;
};

struct instrument {
    struct world *world;
    struct clock *clock;
    struct wire *wire;
    struct random random;
    enum ocean_baud_table table;
    int baud, baud_before;     /* before: while a change waits to be confirmed; 0: none does */
    int64_t baud_told_wall_ns; /* when the change was asked for */
    bool is_ascii;
    struct command command;
    struct ocean_window window;
    bool is_stuck;
    double wavelength_nm[PIXELS];
    double photons[PIXELS];
    uint16_t counts[PIXELS];
    uint8_t *answer; /* of the request that is being taken */
    size_t n_answer;
};

static void reset(struct instrument *instrument)
{
    instrument->window =
        (struct ocean_window){.pixel_last = PIXELS - 1, .is_whole = true, .exposure_ms = EXPOSURE_MS_DEFAULT};
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

static void say(struct instrument *instrument, const void *bytes, size_t n_bytes)
{
    assert(instrument->n_answer + n_bytes <= WIRE_ANSWER_MAX);
    memcpy(instrument->answer + instrument->n_answer, bytes, n_bytes);
    instrument->n_answer += n_bytes;
}

static void say_whether(struct instrument *instrument, bool is_good) { say(instrument, is_good ? "\x06" : "\x15", 1); }

static void say_word(struct instrument *instrument, int word)
{
    const uint8_t bytes[2] = {(uint8_t)(word >> 8), (uint8_t)(word & 0xff)};
    char text[16];
    say_whether(instrument, true);
    if (instrument->is_ascii)
        say(instrument, text, (size_t)snprintf(text, sizeof text, "%d\r\n", word));
    else
        say(instrument, bytes, sizeof bytes);
}

static void say_constant(struct instrument *instrument, int index)
{
    char text[OCEAN_CONSTANT_SIZE + 1] = {0};
    if (index != OCEAN_CONSTANT_SERIAL && (index < OCEAN_CONSTANT_C0 || index >= OCEAN_CONSTANT_C0 + 4)) {
        say_whether(instrument, false);
        return;
    }
    snprintf(text, sizeof text, "%s",
             index == OCEAN_CONSTANT_SERIAL ? "SIM00001" : coefficients[index - OCEAN_CONSTANT_C0]);
    say_whether(instrument, true);
    say(instrument, text, OCEAN_CONSTANT_SIZE);
}

/* ---- scans --------------------------------------------------------------------------------------------------- */

/* Partly in place shows nothing: the focus is on the ruby at the end of the stage's way only. */
static bool is_lit(const struct world_state *state) { return state->ruby.optics >= 1.0 && state->ruby.laser > 0.0; }

/* False when nobody waits for it any more. */
static bool scan(struct instrument *instrument)
{
    struct world_state before, state;
    world_read(instrument->world, &before);
    int64_t end_ns = clock_now_ns(instrument->clock) + instrument->window.exposure_ms * NS_PER_MS;
    if (!wire_wait(instrument->wire, instrument->clock, end_ns))
        return false;
    world_read(instrument->world, &state);
    struct spectrum_scene scene = {.pressure_gpa = state.pressure_gpa,
                                   .temperature_k = state.temperature_k,
                                   .exposure_s = instrument->window.exposure_ms * 1e-3,
                                   .is_lit = is_lit(&before) && is_lit(&state)};
    bool is_stuck = state.troubles[WORLD_SPECTROMETER].fault == WORLD_FAULT_STUCK;
    int first = instrument->window.pixel_first, n = instrument->window.pixel_last - first + 1;
    if (!is_stuck || !instrument->is_stuck) {
        spectrum_expect(&scene, instrument->wavelength_nm + first, n, instrument->photons);
        spectrum_draw(&instrument->random, instrument->photons, n, instrument->counts);
    }
    instrument->is_stuck = is_stuck;
    instrument->n_answer +=
        ocean_pack_scan(instrument->answer + instrument->n_answer, &instrument->window, instrument->counts);
    return true;
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

/* ---- the rate of the line ------------------------------------------------------------------------------------ */

static void fall_back(struct instrument *instrument)
{
    if (instrument->baud_before)
        instrument->baud = instrument->baud_before;
    instrument->baud_before = 0;
}

/* ACK at the rate at which it was asked; the rate is changed behind it, or confirmed. */
static void change_baud(struct instrument *instrument, int code)
{
    int baud = ocean_baud_rate(instrument->table, code);
    say_whether(instrument, baud > 0);
    if (baud <= 0)
        return;
    if (instrument->baud_before && baud == instrument->baud) {
        instrument->baud_before = 0;
        return;
    }
    instrument->baud_before = instrument->baud;
    instrument->baud = baud;
    instrument->baud_told_wall_ns = clock_wall_ns();
}

static uint8_t noise(struct instrument *instrument) { return (uint8_t)random_bits(&instrument->random); }

/* ---- commands ------------------------------------------------------------------------------------------------ */

/* Words that a command needs, as far as it is known. */
static int words_needed(const struct command *command)
{
    if (command->is_query)
        return command->letter == 'x';
    switch (command->letter) {
    case 'A':
    case 'B':
    case 'G':
    case 'I':
    case 'J':
    case 'T':
    case 'k':
    case 'K':
        return 1;
    case 'P':
        return command->n_words > 0 && command->words[0] == 3 ? 4 : 1;
    default:
        return 0;
    }
}

static void answer_query(struct instrument *instrument, const struct command *command)
{
    switch (command->letter) {
    case 'x':
        say_constant(instrument, command->words[0]);
        break;
    case 'A':
        say_word(instrument, 1);
        break;
    case 'B':
        say_word(instrument, 0);
        break;
    case 'I':
        say_word(instrument, instrument->window.exposure_ms);
        break;
    case 'K':
        say_word(instrument, ocean_baud_code(instrument->table, instrument->baud));
        break;
    default:
        say_whether(instrument, false);
        break;
    }
}

/* Obeys one whole command. False when nobody waits for its answer any more. */
static bool obey(struct instrument *instrument, const struct command *command)
{
    const uint16_t *words = command->words;
    if (command->is_query) {
        answer_query(instrument, command);
        return true;
    }
    bool is_good = false;
    switch (command->letter) {
    case 'S':
        if (!instrument->is_ascii)
            return scan(instrument);
        break;
    case 'v':
        say_word(instrument, 1000);
        return true;
    case 'K':
        change_baud(instrument, words[0]);
        return true;
    case 'I':
        is_good = words[0] >= 1 && words[0] <= OCEAN_EXPOSURE_MS_MAX;
        if (is_good)
            instrument->window.exposure_ms = words[0];
        break;
    case 'P':
        is_good = choose_pixels(instrument, words);
        break;
    case 'k':
        instrument->window.has_checksum = words[0] != 0;
        is_good = true;
        break;
    case 'A':
        is_good = words[0] == 1;
        break;
    case 'B':
    case 'G':
    case 'T':
    case 'J':
        is_good = words[0] == 0;
        break;
    case 'Q':
        reset(instrument);
        is_good = true;
        break;
    }
    say_whether(instrument, is_good);
    return true;
}

/* A mode's letter comes twice, small and capital, and without a line end: so it is not set by accident. */
static bool choose_mode(struct instrument *instrument, uint8_t byte)
{
    bool is_good = toupper(instrument->command.letter) == byte;
    if (is_good)
        instrument->is_ascii = byte == 'A';
    say_whether(instrument, is_good);
    instrument->command.letter = '\0';
    return true;
}

/* The next byte of a word; false while more of the word is to come. */
static bool take_value(struct instrument *instrument, uint8_t byte)
{
    struct command *command = &instrument->command;
    if (!instrument->is_ascii) {
        if (command->n_partial++ == 0) {
            command->high = byte;
            return false;
        }
        command->words[command->n_words++] = (uint16_t)(command->high << 8 | byte);
    } else if (byte == '\r' || byte == '\n') {
        command->digits[command->n_partial] = '\0';
        command->words[command->n_words++] = (uint16_t)strtoul(command->digits, NULL, 10);
    } else {
        if (isdigit(byte) && command->n_partial < DIGITS_MAX)
            command->digits[command->n_partial++] = (char)byte;
        return false;
    }
    command->n_partial = 0;
    return true;
}

/* One byte as the instrument hears it. False when the client is to be dropped. */
static bool hear(struct instrument *instrument, uint8_t byte)
{
    struct command *command = &instrument->command;
    if (instrument->is_ascii)
        say(instrument, &byte, 1);
    if (command->letter == 'a' || command->letter == 'b')
        return choose_mode(instrument, byte);
    if (command->letter == '\0' || (command->letter == '?' && !command->is_query)) {
        if (instrument->is_ascii && (byte == '\r' || byte == '\n'))
            return true;
        command->is_query = command->letter == '?';
        command->letter = (char)byte;
        if (byte == 'a' || byte == 'b' || (byte == '?' && !command->is_query))
            return true;
    } else if (!take_value(instrument, byte)) {
        return true;
    }
    if (command->n_words < words_needed(command))
        return true;
    struct command whole = *command;
    *command = (struct command){0};
    if (instrument->baud_before && (whole.letter != 'K' || whole.is_query)) { /* instead of the confirmation */
        fall_back(instrument);
        return true;
    }
    return obey(instrument, &whole);
}

static int take(void *self, const uint8_t *bytes, size_t n_bytes, uint8_t ret_answer[WIRE_ANSWER_MAX],
                size_t *ret_n_answer)
{
    struct instrument *instrument = self;
    int line_baud = wire_baud(instrument->wire);
    int64_t since_ns = clock_wall_ns() - instrument->baud_told_wall_ns;
    assert(n_bytes > 0);
    if (line_baud && instrument->baud_before && since_ns < DEAF_NS)
        return 1;
    if (since_ns > CONFIRM_NS)
        fall_back(instrument);
    instrument->answer = ret_answer;
    instrument->n_answer = 0;
    bool is_understood = line_baud == 0 || line_baud == instrument->baud;
    bool is_kept = hear(instrument, is_understood ? bytes[0] : noise(instrument));
    for (size_t i = 0; i < instrument->n_answer && !is_understood; i++)
        ret_answer[i] = noise(instrument);
    *ret_n_answer = instrument->n_answer;
    return is_kept ? 1 : -1;
}

static void begin(void *self, struct wire *wire)
{
    struct instrument *instrument = self;
    instrument->wire = wire;
}

int spectrometer_server_run(struct world *world, struct clock *clock, const char *address, enum ocean_baud_table table,
                            struct err *err)
{
    struct instrument *instrument = calloc(1, sizeof *instrument);
    assert(instrument);
    *instrument = (struct instrument){.world = world, .clock = clock, .table = table, .baud = OCEAN_BAUD_POWER_UP};
    instrument->random.state = world_seed(world) ^ 0x7370656374727521;
    for (int pixel = 0; pixel < PIXELS; pixel++)
        instrument->wavelength_nm[pixel] = 646.0 + pixel * (0.03105 + pixel * (-5.0e-7 + pixel * 1.0e-12));
    reset(instrument);
    const struct wire_service service = {
        .self = instrument, .component = WORLD_SPECTROMETER, .begin = begin, .take = take};
    int code = wire_run(&service, world, address, err);
    free(instrument);
    return code;
}
