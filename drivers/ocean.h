/*
 * The classic serial command set of Ocean Optics spectrometers (S2000, USB2000, HR4000, Flame), binary mode. Pure:
 * commands to bytes, and a parser that is fed a scan byte by byte; shared by the driver and the simulated spectrometer.
 *
 * Source: "SAD500 serial port A/D converter", pp. 2-18, and "Flame installation and operation manual",
 * 225-00000-000-11-201604, pp. 81-115. Words are sent high byte first. A command is a letter and its words; the answer
 * is ACK or NAK, then the value asked for. A scan is STX and then words: 0xffff, size flag (1: pixels are double
 * words), scans accumulated, integration time in ms, baseline (2), pixel mode, the mode's parameters, pixels, checksum
 * (if it was switched on), 0xfffd. The checksum is the sum of the pixels' words, modulo 65536. Compression is never
 * used. A constant (`?x`) is answered by ACK and 15 characters of text, or fewer and a line end.
 *
 * On RS-232 (8N1) a device speaks at 9600 baud after power-up. `K code` changes the rate in three steps: ACK at the old
 * rate; more than 50 ms later the same command at the new one; ACK there, or the device falls back. The codes are those
 * of one of two tables that contradict each other (code 3 is 19200 in one and 9600 in the other), and no manual says
 * which models have which. But no rate has the same code in both, so that `?K` at a rate that is known tells the table.
 */
#ifndef DRIVERS_OCEAN_H
#define DRIVERS_OCEAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OCEAN_STX 0x02
#define OCEAN_ETX 0x03
#define OCEAN_ACK 0x06
#define OCEAN_NAK 0x15

#define OCEAN_PIXELS_MAX 4096
#define OCEAN_CONSTANT_SIZE 15
#define OCEAN_CONSTANT_SERIAL 0 /* index of `x`: serial number */
#define OCEAN_CONSTANT_C0 1     /* first of four coefficients: wavelength in nm = sum over k of C_k pixel^k */
#define OCEAN_EXPOSURE_MS_MAX 65000
#define OCEAN_COUNTS_MAX 65535 /* of a word; a single accumulated scan cannot hold more */
#define OCEAN_COMMAND_SIZE_MAX 32
#define OCEAN_SCAN_SIZE_MAX (32 + 4 * OCEAN_PIXELS_MAX)

/* A letter (two for `?x`: pass 'x' as `letter` and true as `is_query`) and its words. Returns the size in bytes. */
size_t ocean_pack_command(uint8_t ret_bytes[OCEAN_COMMAND_SIZE_MAX], bool is_query, char letter, const uint16_t *words,
                          int n_words);

/* Text of a constant as a number. False when it is none. `text`: [OCEAN_CONSTANT_SIZE], padded with NULs or spaces. */
bool ocean_unpack_constant(const uint8_t *text, double *ret_value);

/* Which pixels a scan covers, and how it comes. Fixed before the scan is asked for; a header that says otherwise is a
 * scan nobody asked for. */
struct ocean_window {
    int pixel_first, pixel_last; /* pixel mode 3: from first to last, every one; or 0 and the last of all: mode 0 */
    bool is_whole;               /* pixel mode 0 */
    bool has_checksum;
    int exposure_ms;
};

#define OCEAN_BAUD_POWER_UP 9600
#define OCEAN_BAUD_SETTLE_MS 60 /* between the two commands of a change: more than 50 */

enum ocean_baud_table {
    OCEAN_BAUD_SAD500,  /* 0 to 6: 2400, 4800, 9600, 19200, 38400, 57600, 115200 */
    OCEAN_BAUD_USB2000, /* 0 to 7: 115200, 38400, 19200, 9600, 4800, 2400, 1200, 600 */
    OCEAN_BAUD_TABLE_COUNT
};

/* The code of `K` for a rate; -1 when the table has none. */
int ocean_baud_code(enum ocean_baud_table table, int baud);

/* The rate of a code; -1 when the table has none. */
int ocean_baud_rate(enum ocean_baud_table table, int code);

/* The table of a device that calls `baud` by `code`; OCEAN_BAUD_TABLE_COUNT when neither does. */
enum ocean_baud_table ocean_baud_find_table(int baud, int code);

enum ocean_outcome {
    OCEAN_MORE,     /* feed the next byte */
    OCEAN_SCAN,     /* counts[] holds a whole scan */
    OCEAN_FAILED,   /* the device says that it could not scan (ETX) */
    OCEAN_FOREIGN,  /* not the scan that was asked for, or garbage inside it */
    OCEAN_CHECKSUM, /* the pixels did not arrive as they were sent */
    OCEAN_OUTCOME_COUNT
};

struct ocean_parser {
    struct ocean_window window;
    int n_pixels;
    int n_words;      /* taken since STX */
    int n_skipped;    /* bytes before STX */
    int high;         /* first byte of a word, or -1 */
    bool has_started; /* STX seen */
    bool is_double;   /* pixels are double words */
    uint16_t checksum;
    uint32_t counts[OCEAN_PIXELS_MAX];
};

/* Forgets everything and waits for STX. `window` within 0 to OCEAN_PIXELS_MAX - 1. */
void ocean_parser_start(struct ocean_parser *parser, const struct ocean_window *window);

/* Takes one byte. After any outcome but OCEAN_MORE the parser must be started again. */
enum ocean_outcome ocean_parser_feed(struct ocean_parser *parser, uint8_t byte);

/* The scan as a device sends it; counts: [pixel_last - pixel_first + 1]. ret_bytes: [OCEAN_SCAN_SIZE_MAX].
 * Returns the size in bytes. */
size_t ocean_pack_scan(uint8_t *ret_bytes, const struct ocean_window *window, const uint16_t *counts);

#endif
