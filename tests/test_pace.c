/*
 * Goal: the bytes to and from a PACE are those of its manual, and an answer to another question is never taken.
 * Method: known commands and answers written out here; lines put together from single bytes; garbage.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/pace.h"

static void commands(void **state)
{
    (void)state;
    char text[PACE_COMMAND_MAX];
    static const char *const queries[PACE_QUANTITY_COUNT] = {"*IDN?\r",
                                                             ":SYST:ERR?\r",
                                                             ":UNIT:PRES?\r",
                                                             ":INST:SENS:FULL?\r",
                                                             ":SENS:PRES?\r",
                                                             ":SOUR:PRES?\r",
                                                             ":SOUR:PRES:SLEW:MODE?\r",
                                                             ":SOUR:PRES:SLEW?\r",
                                                             ":SOUR:PRES:SLEW:OVER?\r",
                                                             ":OUTP:STAT?\r",
                                                             ":SOUR:PRES:COMP?\r"};
    for (int i = 0; i < PACE_QUANTITY_COUNT; i++) {
        assert_int_equal(pace_pack_query((enum pace_quantity)i, "\r", text), strlen(queries[i]));
        assert_string_equal(text, queries[i]);
    }
    pace_pack_number(PACE_SETPOINT, 12.345, "\r\n", text);
    assert_string_equal(text, ":SOUR:PRES 12.345000\r\n");
    pace_pack_number(PACE_SETPOINT, 0, "\r\n", text);
    assert_string_equal(text, ":SOUR:PRES 0.000000\r\n");
    pace_pack_number(PACE_OUTPUT, 0, "\r", text);
    assert_string_equal(text, ":OUTP:STAT 0\r");
    pace_pack_word(PACE_SLEW_MODE, PACE_LINEAR, "\r", text);
    assert_string_equal(text, ":SOUR:PRES:SLEW:MODE LIN\r");
}

static void answers(void **state)
{
    (void)state;
    static const struct {
        enum pace_quantity quantity;
        const char *line;
        double value;
    } good[] = {
        {PACE_MEASURED, ":SENS:PRES 12.3456", 12.3456},
        {PACE_MEASURED, ":SENS1:PRES 12.3456", 12.3456},
        {PACE_MEASURED, ":sense:pressure  -0.0123", -0.0123},
        {PACE_MEASURED, "SENS:PRES 1.5E-02", 0.015},
        {PACE_SETPOINT, ":SOUR:PRES:LEV:IMM:AMPL 10.5", 10.5},
        {PACE_SETPOINT, ":SOURCE:PRESSURE:LEVEL:IMMEDIATE:AMPLITUDE 10.5", 10.5},
        {PACE_FULL_SCALE, ":INST:SENS:FULL 210.0, 0.0", 210},
        {PACE_OUTPUT, ":OUTP:STAT 1", 1},
        {PACE_OUTPUT, ":OUTP 1", 1},
        {PACE_OVERSHOOT, ":SOUR:PRES:SLEW:OVER:STAT 0", 0},
        {PACE_SUPPLY, ":SOUR:PRES:COMP1 180.2", 180.2},
    };
    static const struct {
        enum pace_quantity quantity;
        const char *line;
    } bad[] = {
        {PACE_MEASURED, ":SOUR:PRES 12.3456"}, /* another question's */
        {PACE_SETPOINT, ":SENS:PRES 12.3456"},
        {PACE_SETPOINT, ":SOUR:PRES:SLEW 0.0667"},
        {PACE_SLEW, ":SOUR:PRES:SLEW:MODE LIN"},
        {PACE_SLEW, ":SOUR:PRES 12"},
        {PACE_MEASURED, "12.3456"}, /* no echo */
        {PACE_MEASURED, ":SENS:PRES"},
        {PACE_MEASURED, ":SENS:PRES "},
        {PACE_MEASURED, ":SENS:PRES NAN"},
        {PACE_MEASURED, ":SENS:PRES INF"},
        {PACE_MEASURED, ":SENS:PRES 1e999"},
        {PACE_MEASURED, ":SENS:PRES 0x10"},
        {PACE_MEASURED, ":SENS:PRES 12.3 bar"},
        {PACE_MEASURED, ":SENS:PRES 12,3,4"},
        {PACE_MEASURED, ":SENS:PRES 12.3.4"},
        {PACE_MEASURED, ":SENS::PRES 12.3"},
        {PACE_MEASURED, "*SENS:PRES 12.3"},
        {PACE_IDENTITY, ":IDN GE Druck"},
        {PACE_UNIT, ":UNIT:PRES"},
    };
    struct pace_answer answer;
    struct err err = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (pace_unpack(good[i].quantity, good[i].line, &answer, &err))
            fail_msg("%s: %s", good[i].line, err.message);
        assert_true(answer.value[0] == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        answer.value[0] = -7;
        if (pace_unpack(bad[i].quantity, bad[i].line, &answer, &err) != ERR_PROTOCOL)
            fail_msg("%s was taken", bad[i].line);
        assert_true(answer.value[0] == -7);
    }
    assert_int_equal(pace_unpack(PACE_MEASURED, ":SOUR:PRES 12.3456", &answer, &err), ERR_PROTOCOL);
    assert_string_equal(err.message,
                        "asked :SENS:PRES?, but \":SOUR:PRES 12.3456\" answers another question; link closed");
    assert_int_equal(
        pace_unpack(PACE_IDENTITY, "*IDN GE Druck,Pace5000 User Interface,3213201,02.00.07", &answer, &err), 0);
    assert_non_null(strstr(answer.word, "PACE5000"));
    assert_int_equal(pace_unpack(PACE_ERROR, ":SYST:ERR -113,\"Undefined header\"", &answer, &err), 0);
    assert_string_equal(answer.word, "-113,UNDEFINED HEADER");
    assert_int_equal(pace_unpack(PACE_UNIT, ":UNIT:PRES BAR", &answer, &err), 0);
    assert_string_equal(answer.word, PACE_BAR);
    assert_int_equal(pace_unpack(PACE_SLEW_MODE, ":SOUR:PRES:SLEW:MODE LIN", &answer, &err), 0);
    assert_string_equal(answer.word, PACE_LINEAR);
}

/* Lines of the reader from `bytes`, "!" for a line refused, joined by "|". */
static void read_lines(const char *bytes, size_t n, char *ret_text, size_t size)
{
    struct pace_reader reader;
    struct err err;
    pace_reader_clear(&reader);
    ret_text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        int code = pace_reader_feed(&reader, bytes[i], &err);
        if (code == 0)
            continue;
        strncat(ret_text, code > 0 ? reader.line : "!", size - strlen(ret_text) - 1);
        strncat(ret_text, "|", size - strlen(ret_text) - 1);
    }
}

static void lines(void **state)
{
    (void)state;
    char text[600], long_line[PACE_LINE_MAX + 4];
    static const struct {
        const char *bytes, *lines;
    } cases[] = {
        {":SENS:PRES 1.5\r\n", ":SENS:PRES 1.5|"},
        {":SENS:PRES 1.5\r:SENS:PRES 2.5\r", ":SENS:PRES 1.5|:SENS:PRES 2.5|"},
        {"\n\r\n  \r:SENS:PRES 1.5\n", ":SENS:PRES 1.5|"},
        {"\x80\xff:SENS:PRES 1.5\r:SENS:PRES 2.5\r", "!|:SENS:PRES 2.5|"},
        {":SENS:PRES 1.5", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        read_lines(cases[i].bytes, strlen(cases[i].bytes), text, sizeof text);
        assert_string_equal(text, cases[i].lines);
    }
    memset(long_line, 'x', sizeof long_line);
    long_line[PACE_LINE_MAX] = '\r';
    read_lines(long_line, PACE_LINE_MAX + 1, text, sizeof text);
    assert_int_equal(strlen(text), PACE_LINE_MAX + 1);
    long_line[PACE_LINE_MAX] = 'x';
    long_line[PACE_LINE_MAX + 1] = '\r';
    read_lines(long_line, PACE_LINE_MAX + 2, text, sizeof text);
    assert_string_equal(text, "!|");
}

static void slews(void **state)
{
    (void)state;
    assert_true(pace_slew_bar_per_s(6) == 0.1);
    assert_true(pace_slew_bar_per_s(4) == 0.066666); /* not 0.066667 */
    for (double rate = 0.01; rate < 100; rate *= 1.013) {
        assert_true(pace_slew_bar_per_s(rate) * 60 <= rate * (1 + 1e-9)); /* never faster than asked */
        assert_true(pace_slew_bar_per_s(rate) * 60 > rate - 6.1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(commands), cmocka_unit_test(answers), cmocka_unit_test(lines),
                                       cmocka_unit_test(slews)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
