/*
 * Parser: answers of a PACE (drivers/pace): lines put together from bytes, and each line as the answer to every
 * question. Property: a line is printable and not too long; an answer holds a word or finite numbers, never both, and
 * the header of a question answers that question only.
 */
#include <math.h>
#include <string.h>

#include "drivers/pace.h"
#include "tests/fuzz.h"

const char *const fuzz_words[] = {"*IDN",     ":SYST", ":ERR",  ":UNIT", ":PRES", ":INST",   ":SENS", ":FULL",
                                  ":SOUR",    ":SLEW", ":MODE", ":OVER", ":OUTP", ":STAT",   ":COMP", ":SENSE1",
                                  ":LEV",     ":IMM",  ":AMPL", " ",     ",",     "\r\n",    "1e308", "-0",
                                  "Pressure", "nan",   "0x10",  "BAR",   "LIN",   "\"MAX\"", NULL};

void fuzz_plant_seeds(void)
{
    static const char *const LINES[] = {"*IDN GE Druck,Pace5000 User Interface,3213201,02.00.07\r\n",
                                        ":SYST:ERR 0,\"No error\"\r\n",
                                        ":UNIT:PRES BAR\r\n",
                                        ":INST:SENS:FULL 210.0, -1.0\r\n",
                                        ":SENS1:PRES 12.3456\n",
                                        ":SENSE:PRESSURE 12.3456\r",
                                        ":SOUR:PRES:LEV:IMM:AMPL 10.5\r\n",
                                        ":SOUR:PRES:SLEW:MODE LIN\r\n",
                                        ":SOUR:PRES:SLEW 0.0166\r\n",
                                        ":SOUR:PRES:SLEW:OVER:STAT 0\r\n",
                                        ":OUTP:STAT 1\r\n",
                                        ":SOUR:PRES:COMP 180.2\r\n"};
    char all[1000] = "";
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++) {
        fuzz_plant(LINES[i], strlen(LINES[i]));
        strncat(all, LINES[i], sizeof all - strlen(all) - 1);
    }
    fuzz_plant(all, strlen(all));
}

static void check_line(const char *line)
{
    int n_numbers = 0, n_words = 0;
    FUZZ_CHECK(strlen(line) <= PACE_LINE_MAX && line[strspn(line, " ")], "\"%s\"", line);
    for (int quantity = 0; quantity < PACE_QUANTITY_COUNT; quantity++) {
        struct pace_answer answer;
        struct err err = {0};
        int code = pace_unpack((enum pace_quantity)quantity, line, &answer, &err);
        FUZZ_CHECK((code == 0) == (err.message[0] == '\0'), "code %d, \"%s\"", code, err.message);
        if (code)
            continue;
        FUZZ_CHECK((answer.n_values > 0) != (answer.word[0] != '\0'), "%d values and \"%s\"", answer.n_values,
                   answer.word);
        FUZZ_CHECK(answer.n_values <= PACE_VALUES_MAX && strlen(answer.word) <= PACE_LINE_MAX, "%d values",
                   answer.n_values);
        for (int i = 0; i < answer.n_values; i++)
            FUZZ_CHECK(isfinite(answer.value[i]), "\"%s\" holds %g", line, answer.value[i]);
        n_numbers += answer.n_values > 0;
        n_words += answer.n_values == 0;
    }
    FUZZ_CHECK(n_numbers + n_words <= 1, "\"%s\" answers %d questions", line, n_numbers + n_words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pace_reader reader;
    struct err err;
    pace_reader_clear(&reader);
    for (size_t i = 0; i < size; i++)
        if (pace_reader_feed(&reader, (char)data[i], &err) == 1) {
            for (const char *c = reader.line; *c; c++)
                FUZZ_CHECK(*c >= ' ' && *c <= '~', "byte %d in a line", *c);
            check_line(reader.line);
        }
    return 0;
}
