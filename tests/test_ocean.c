/*
 * Goal: the parser takes a good scan and nothing else, however it is cut up and whatever stands around it.
 * Method: a scan written out byte by byte from the manual's layout; each single byte of it broken in turn; random
 * garbage; the manual's checksum example.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/ocean.h"

static struct ocean_parser parser;

/* The ten pixels of the manual's example, whose checksum it gives as 0x2586. */
static const uint16_t pixels[10] = {15, 23, 46, 98, 231, 509, 1023, 2432, 3245, 1984};
static const struct ocean_window window = {
    .pixel_first = 1500, .pixel_last = 1509, .has_checksum = true, .exposure_ms = 500};
static const uint8_t scan[] = {0x02, 0xff, 0xff, 0,    0,    0,    1,    0x01, 0xf4, 0,    0,    0,
                               0,    0,    3,    0x05, 0xdc, 0x05, 0xe5, 0,    1,    0,    15,   0,
                               23,   0,    46,   0,    98,   0,    231,  0x01, 0xfd, 0x03, 0xff, 0x09,
                               0x80, 0x0c, 0xad, 0x07, 0xc0, 0x25, 0x86, 0xff, 0xfd};

static enum ocean_outcome feed(const uint8_t *bytes, size_t n, size_t *ret_used)
{
    enum ocean_outcome outcome = OCEAN_MORE;
    size_t i = 0;
    while (i < n && outcome == OCEAN_MORE)
        outcome = ocean_parser_feed(&parser, bytes[i++]);
    if (ret_used)
        *ret_used = i;
    return outcome;
}

static void good_scan(void **state)
{
    (void)state;
    size_t used;
    ocean_parser_start(&parser, &window);
    assert_int_equal(feed(scan, sizeof scan, &used), OCEAN_SCAN);
    assert_int_equal(used, sizeof scan);
    for (int i = 0; i < 10; i++)
        assert_int_equal(parser.counts[i], pixels[i]);
}

static void every_cut(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof scan; n++) {
        ocean_parser_start(&parser, &window);
        assert_int_equal(feed(scan, n, NULL), OCEAN_MORE);
        assert_int_equal(feed(scan + n, sizeof scan - n, NULL), OCEAN_SCAN);
    }
}

/* Baseline words (9 to 12) are information; a broken STX is silence; all else must be noticed. */
static void every_broken_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scan; i++) {
        uint8_t broken[sizeof scan];
        memcpy(broken, scan, sizeof scan);
        broken[i] ^= 0x10;
        ocean_parser_start(&parser, &window);
        enum ocean_outcome outcome = feed(broken, sizeof broken, NULL);
        if (i >= 9 && i <= 12)
            assert_int_equal(outcome, OCEAN_SCAN);
        else if (i >= 21 && i <= 42)
            assert_int_equal(outcome, OCEAN_CHECKSUM);
        else
            assert_true(i == 0 ? outcome != OCEAN_SCAN : outcome == OCEAN_FOREIGN);
    }
}

static void garbage_before(void **state)
{
    (void)state;
    const uint8_t garbage[] = {0x00, 0xff, 0x15, 0x06, 'S', 0xfd};
    ocean_parser_start(&parser, &window);
    assert_int_equal(feed(garbage, sizeof garbage, NULL), OCEAN_MORE);
    assert_int_equal(feed(scan, sizeof scan, NULL), OCEAN_SCAN);
    ocean_parser_start(&parser, &window);
    for (int i = 0; i < OCEAN_SCAN_SIZE_MAX; i++)
        assert_int_equal(ocean_parser_feed(&parser, 0x55), OCEAN_MORE);
    assert_int_equal(ocean_parser_feed(&parser, 0x55), OCEAN_FOREIGN); /* it does not wait for ever */
}

static void random_bytes_are_no_scan(void **state)
{
    (void)state;
    uint32_t seed = 20240611;
    for (int round = 0; round < 2000; round++) {
        ocean_parser_start(&parser, &window);
        for (int i = 0; i < 200; i++) {
            seed = seed * 1664525 + 1013904223;
            enum ocean_outcome outcome = ocean_parser_feed(&parser, (uint8_t)(seed >> 24));
            assert_int_not_equal(outcome, OCEAN_SCAN);
            if (outcome != OCEAN_MORE)
                break;
        }
    }
}

static void refusals(void **state)
{
    (void)state;
    const uint8_t etx = OCEAN_ETX;
    ocean_parser_start(&parser, &window);
    assert_int_equal(feed(&etx, 1, NULL), OCEAN_FAILED);
    struct ocean_window other = window;
    other.exposure_ms = 499; /* an earlier scan that comes late */
    ocean_parser_start(&parser, &other);
    assert_int_equal(feed(scan, sizeof scan, NULL), OCEAN_FOREIGN);
    other = window;
    other.pixel_last++;
    ocean_parser_start(&parser, &other);
    assert_int_equal(feed(scan, sizeof scan, NULL), OCEAN_FOREIGN);
}

static void pack_agrees_with_the_manual(void **state)
{
    (void)state;
    static uint8_t bytes[OCEAN_SCAN_SIZE_MAX];
    assert_int_equal(ocean_pack_scan(bytes, &window, pixels), sizeof scan);
    assert_memory_equal(bytes, scan, sizeof scan);
    const uint16_t words[] = {3, 1500, 1509, 1};
    const uint8_t expected[] = {'P', 0, 3, 0x05, 0xdc, 0x05, 0xe5, 0, 1};
    assert_int_equal(ocean_pack_command(bytes, false, 'P', words, 4), sizeof expected);
    assert_memory_equal(bytes, expected, sizeof expected);
    const uint16_t one = 1;
    assert_int_equal(ocean_pack_command(bytes, true, 'x', &one, 1), 4);
    assert_memory_equal(bytes, "?x\0\1", 4);
}

static void double_words(void **state)
{
    (void)state;
    const struct ocean_window two = {.pixel_last = 1, .is_whole = true, .exposure_ms = 7};
    const uint8_t bytes[] = {2, 0xff, 0xff, 0, 1, 0, 1, 0, 7,    0,    0,    0,   0,
                             0, 0,    0,    1, 0, 2, 0, 0, 0xff, 0xff, 0xff, 0xfd};
    ocean_parser_start(&parser, &two);
    assert_int_equal(feed(bytes, sizeof bytes, NULL), OCEAN_SCAN);
    assert_int_equal(parser.counts[0], 65538);
    assert_int_equal(parser.counts[1], 65535);
    const struct ocean_window summed = {.pixel_last = 1, .is_whole = true, .has_checksum = true, .exposure_ms = 7};
    uint8_t with[sizeof bytes + 2];
    memcpy(with, bytes, sizeof bytes - 2);
    memcpy(with + sizeof bytes - 2, "\0\2\xff\xfd", 4); /* 1 + 2 + 0 + 65535, modulo 65536 */
    for (size_t cut = 0; cut <= sizeof with; cut++) {
        ocean_parser_start(&parser, &summed);
        enum ocean_outcome outcome = feed(with, cut, NULL);
        assert_int_equal(outcome, cut < sizeof with ? OCEAN_MORE : OCEAN_SCAN);
        assert_int_equal(cut < sizeof with ? feed(with + cut, sizeof with - cut, NULL) : outcome, OCEAN_SCAN);
    }
    with[sizeof bytes - 1] = 3;
    ocean_parser_start(&parser, &summed);
    assert_int_equal(feed(with, sizeof with, NULL), OCEAN_CHECKSUM);
}

static void constants(void **state)
{
    (void)state;
    double value = 0;
    assert_true(ocean_unpack_constant((const uint8_t *)"-5.0000e-07\0\0\0\0", &value));
    assert_true(value == -5.0e-7);
    assert_true(ocean_unpack_constant((const uint8_t *)"646.0          ", &value));
    assert_false(ocean_unpack_constant((const uint8_t *)"HR4C5088\0\0\0\0\0\0\0", &value));
    assert_false(ocean_unpack_constant((const uint8_t *)"646.0x\0\0\0\0\0\0\0\0\0", &value));
    assert_false(ocean_unpack_constant((const uint8_t *)"nan\0\0\0\0\0\0\0\0\0\0\0\0", &value));
    assert_false(ocean_unpack_constant((const uint8_t *)"               ", &value));
}

/* Both tables as the manuals have them, and that one answer to ?K tells them apart at every rate. */
static void two_tables_of_rates(void **state)
{
    (void)state;
    static const int rates[] = {600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200};
    static const int codes[2][9] = {{-1, -1, 0, 1, 2, 3, 4, 5, 6}, {7, 6, 5, 4, 3, 2, 1, -1, 0}};
    for (int table = 0; table < OCEAN_BAUD_TABLE_COUNT; table++)
        for (int i = 0; i < 9; i++) {
            int code = codes[table][i];
            assert_int_equal(ocean_baud_code((enum ocean_baud_table)table, rates[i]), code);
            if (code < 0)
                continue;
            assert_int_equal(ocean_baud_rate((enum ocean_baud_table)table, code), rates[i]);
            assert_int_equal(ocean_baud_find_table(rates[i], code), table);
        }
    assert_int_equal(ocean_baud_find_table(9600, 0), OCEAN_BAUD_TABLE_COUNT);
    assert_int_equal(ocean_baud_find_table(9600, -1), OCEAN_BAUD_TABLE_COUNT);
    assert_int_equal(ocean_baud_find_table(123456, 3), OCEAN_BAUD_TABLE_COUNT);
    assert_int_equal(ocean_baud_code(OCEAN_BAUD_SAD500, -1), -1);
    const int beyond[] = {-1, 8, 65535};
    for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++)
        assert_int_equal(ocean_baud_rate(OCEAN_BAUD_USB2000, beyond[i]), -1);
    const uint16_t six = 6;
    uint8_t bytes[OCEAN_COMMAND_SIZE_MAX];
    assert_int_equal(ocean_pack_command(bytes, false, 'K', &six, 1), 3);
    assert_memory_equal(bytes, "K\0\6", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good_scan),
                                       cmocka_unit_test(every_cut),
                                       cmocka_unit_test(every_broken_byte),
                                       cmocka_unit_test(garbage_before),
                                       cmocka_unit_test(random_bytes_are_no_scan),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(pack_agrees_with_the_manual),
                                       cmocka_unit_test(double_words),
                                       cmocka_unit_test(two_tables_of_rates),
                                       cmocka_unit_test(constants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
