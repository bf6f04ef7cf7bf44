/*
 * Goal: bytes on the wire are those of the manual, whatever a library thinks of floats.
 * Method: known bytes, the table against itself, conversions at their limits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/elpress.h"

static void float_bytes(void **state)
{
    (void)state;
    uint16_t words[2];
    registers_pack_float(12.345f, REGISTERS_HIGH_FIRST, words);
    assert_int_equal(words[0], 0x4145);
    assert_int_equal(words[1], 0x851f);
    assert_true(registers_unpack_float(words, REGISTERS_HIGH_FIRST) == 12.345f);
    const float values[] = {0.0f, -0.0f, 200.0f, -1e-30f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        registers_pack_float(values[i], REGISTERS_HIGH_FIRST, words);
        assert_true(registers_unpack_float(words, REGISTERS_HIGH_FIRST) == values[i]);
    }
    registers_pack_float(NAN, REGISTERS_HIGH_FIRST, words);
    assert_true(isnan(registers_unpack_float(words, REGISTERS_HIGH_FIRST)));
}

static void strings(void **state)
{
    (void)state;
    uint16_t words[4];
    char text[9];
    registers_pack_string("bar", words, 4);
    assert_int_equal(words[0], 0x6261);
    assert_int_equal(words[1], 0x7220);
    registers_unpack_string(words, 4, text);
    assert_string_equal(text, "bar");
    registers_pack_string("millibars!", words, 4);
    registers_unpack_string(words, 4, text);
    assert_string_equal(text, "millibar");
    const uint16_t nul_padded[4] = {0x6261, 0x7200, 0, 0};
    registers_unpack_string(nul_padded, 4, text);
    assert_string_equal(text, "bar");
}

static void table_is_ascending_without_overlap(void **state)
{
    (void)state;
    int end = 0;
    for (int i = 0; i < ELPRESS_PARAMETER_COUNT; i++) {
        const struct registers_entry *r = &elpress_registers[i];
        assert_true(r->address >= end);
        assert_in_range(r->n_registers, 1, REGISTERS_ENTRY_MAX);
        assert_int_equal(r->n_registers == 2, r->type == REGISTERS_F32);
        end = r->address + r->n_registers;
    }
    assert_int_equal(elpress_registers[ELPRESS_FMEASURE].address, 0xa100);
    assert_int_equal(elpress_registers[ELPRESS_FSETPOINT].address, 0xa118);
    assert_int_equal(elpress_registers[ELPRESS_CAPACITY].address, 0x8168);
    assert_int_equal(elpress_registers[ELPRESS_CONTROL_MODE].address, 0x0024);
}

static void slopes(void **state)
{
    (void)state;
    assert_int_equal(elpress_slope_from_rate(6, 200), 20000);
    assert_int_equal(elpress_slope_from_rate(4, 200), 30000);
    assert_int_equal(elpress_slope_from_rate(0.5, 200), 30000);
    assert_int_equal(elpress_slope_from_rate(1e9, 200), 1);
    assert_true(fabs(elpress_rate_from_slope(30000, 200) - 4) < 1e-12);
    assert_true(isinf(elpress_rate_from_slope(0, 200)));
    for (double rate = 4.0; rate < 2000; rate *= 1.037) {
        double programmed = elpress_rate_from_slope(elpress_slope_from_rate(rate, 200), 200);
        assert_true(programmed <= rate * (1 + 1e-9)); /* never faster than asked */
        assert_true(programmed > rate * (1 - rate / 120000 * 1.01));
    }
}

static void runs(void **state)
{
    (void)state;
    int n;
    assert_int_equal(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0xa100, 2, &n), ELPRESS_FMEASURE);
    assert_int_equal(n, 1);
    assert_int_equal(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0x0020, 3, &n), ELPRESS_MEASURE);
    assert_int_equal(n, 3);
    assert_true(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0xa100, 1, &n) < 0);
    assert_true(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0xa101, 1, &n) < 0);
    assert_true(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0xa100, 3, &n) < 0);
    assert_true(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0x0020, 5, &n) <
                0); /* 0x0023 is not in the map */
    assert_true(registers_find_run(elpress_registers, ELPRESS_PARAMETER_COUNT, 0x7777, 1, &n) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(float_bytes), cmocka_unit_test(strings),
                                       cmocka_unit_test(table_is_ascending_without_overlap), cmocka_unit_test(slopes),
                                       cmocka_unit_test(runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
