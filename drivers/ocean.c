#include "drivers/ocean.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_BEGIN 0xffff
#define SCAN_END 0xfffd
#define HEADER_WORDS 7 /* before the parameters of the pixel mode */
#define MODE_RANGE 3   /* its parameters: first, last, every n-th */

/* Layout of the words of a scan, by index since STX. */
enum header {
    HEADER_BEGIN,
    HEADER_SIZE_FLAG,
    HEADER_SCANS,
    HEADER_EXPOSURE,
    HEADER_BASELINE_HIGH,
    HEADER_BASELINE_LOW,
    HEADER_MODE
};

static size_t put_word(uint8_t *bytes, uint16_t word)
{
    bytes[0] = (uint8_t)(word >> 8);
    bytes[1] = (uint8_t)(word & 0xff);
    return 2;
}

size_t ocean_pack_command(uint8_t ret_bytes[OCEAN_COMMAND_SIZE_MAX], bool is_query, char letter, const uint16_t *words,
                          int n_words)
{
    assert(n_words >= 0 && 2 + 2 * n_words <= OCEAN_COMMAND_SIZE_MAX);
    size_t size = 0;
    if (is_query)
        ret_bytes[size++] = '?';
    ret_bytes[size++] = (uint8_t)letter;
    for (int i = 0; i < n_words; i++)
        size += put_word(ret_bytes + size, words[i]);
    return size;
}

bool ocean_unpack_constant(const uint8_t *text, double *ret_value)
{
    char copy[OCEAN_CONSTANT_SIZE + 1] = {0};
    memcpy(copy, text, OCEAN_CONSTANT_SIZE);
    char *end;
    double value = strtod(copy, &end);
    if (end == copy || !isfinite(value))
        return false;
    for (; *end; end++)
        if (!isspace((unsigned char)*end))
            return false;
    *ret_value = value;
    return true;
}

#define BAUD_CODES_MAX 8

static const int baud_tables[OCEAN_BAUD_TABLE_COUNT][BAUD_CODES_MAX] = {
    [OCEAN_BAUD_SAD500] = {2400, 4800, 9600, 19200, 38400, 57600, 115200, -1},
    [OCEAN_BAUD_USB2000] = {115200, 38400, 19200, 9600, 4800, 2400, 1200, 600}};

int ocean_baud_code(enum ocean_baud_table table, int baud)
{
    for (int code = 0; code < BAUD_CODES_MAX; code++)
        if (baud > 0 && baud_tables[table][code] == baud)
            return code;
    return -1;
}

int ocean_baud_rate(enum ocean_baud_table table, int code)
{
    return code >= 0 && code < BAUD_CODES_MAX ? baud_tables[table][code] : -1;
}

enum ocean_baud_table ocean_baud_find_table(int baud, int code)
{
    int table = 0;
    while (table < OCEAN_BAUD_TABLE_COUNT && (code < 0 || ocean_baud_code((enum ocean_baud_table)table, baud) != code))
        table++;
    return (enum ocean_baud_table)table;
}

void ocean_parser_start(struct ocean_parser *parser, const struct ocean_window *window)
{
    assert(window->pixel_first >= 0 && window->pixel_last >= window->pixel_first &&
           window->pixel_last < OCEAN_PIXELS_MAX);
    parser->window = *window;
    parser->n_pixels = window->pixel_last - window->pixel_first + 1;
    parser->n_words = 0;
    parser->n_skipped = 0;
    parser->high = -1;
    parser->has_started = false;
    parser->is_double = false;
    parser->checksum = 0;
}

static bool header_fits(const struct ocean_parser *parser, int i, uint16_t word)
{
    const struct ocean_window *window = &parser->window;
    const int range[] = {window->pixel_first, window->pixel_last, 1};
    switch (i) {
    case HEADER_BEGIN:
        return word == SCAN_BEGIN;
    case HEADER_SIZE_FLAG:
        return word <= 1;
    case HEADER_SCANS:
        return word == 1;
    case HEADER_EXPOSURE:
        return word == window->exposure_ms;
    case HEADER_BASELINE_HIGH:
    case HEADER_BASELINE_LOW:
        return true;
    case HEADER_MODE:
        return word == (window->is_whole ? 0 : MODE_RANGE);
    default:
        return word == range[i - HEADER_WORDS];
    }
}

static enum ocean_outcome word_take(struct ocean_parser *parser, uint16_t word)
{
    int n_header = HEADER_WORDS + (parser->window.is_whole ? 0 : 3);
    int n_data = parser->n_pixels * (parser->is_double ? 2 : 1);
    int i = parser->n_words++;
    if (i < n_header) {
        if (i == HEADER_SIZE_FLAG)
            parser->is_double = word == 1;
        return header_fits(parser, i, word) ? OCEAN_MORE : OCEAN_FOREIGN;
    }
    i -= n_header;
    if (i < n_data) {
        parser->checksum = (uint16_t)(parser->checksum + word);
        uint32_t *pixel = &parser->counts[parser->is_double ? i / 2 : i];
        *pixel = parser->is_double && i % 2 ? *pixel << 16 | word : word;
        return OCEAN_MORE;
    }
    if (parser->window.has_checksum && i == n_data)
        return word == parser->checksum ? OCEAN_MORE : OCEAN_CHECKSUM;
    return word == SCAN_END ? OCEAN_SCAN : OCEAN_FOREIGN;
}

enum ocean_outcome ocean_parser_feed(struct ocean_parser *parser, uint8_t byte)
{
    if (!parser->has_started) {
        parser->has_started = byte == OCEAN_STX;
        if (byte == OCEAN_ETX)
            return OCEAN_FAILED;
        parser->n_skipped += !parser->has_started;
        return parser->n_skipped > OCEAN_SCAN_SIZE_MAX ? OCEAN_FOREIGN : OCEAN_MORE;
    }
    if (parser->high < 0) {
        parser->high = byte;
        return OCEAN_MORE;
    }
    uint16_t word = (uint16_t)(parser->high << 8 | byte);
    parser->high = -1;
    return word_take(parser, word);
}

size_t ocean_pack_scan(uint8_t *ret_bytes, const struct ocean_window *window, const uint16_t *counts)
{
    uint16_t header[HEADER_WORDS + 3] = {SCAN_BEGIN,
                                         0,
                                         1,
                                         (uint16_t)window->exposure_ms,
                                         0,
                                         0,
                                         window->is_whole ? 0 : MODE_RANGE,
                                         (uint16_t)window->pixel_first,
                                         (uint16_t)window->pixel_last,
                                         1};
    uint16_t checksum = 0;
    size_t size = 0;
    ret_bytes[size++] = OCEAN_STX;
    for (int i = 0; i < HEADER_WORDS + (window->is_whole ? 0 : 3); i++)
        size += put_word(ret_bytes + size, header[i]);
    for (int i = 0; i <= window->pixel_last - window->pixel_first; i++) {
        checksum = (uint16_t)(checksum + counts[i]);
        size += put_word(ret_bytes + size, counts[i]);
    }
    if (window->has_checksum)
        size += put_word(ret_bytes + size, checksum);
    return size + put_word(ret_bytes + size, SCAN_END);
}
