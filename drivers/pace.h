/*
 * Commands and answers of a Druck PACE5000 or PACE6000 pressure controller. Pure: bytes in, values out.
 *
 * Source: SCPI manual K0472. Every query is answered by its own header and the value, as in
 *
 *   :SENS:PRES?                ->  :SENS:PRES 12.3456
 *   *IDN?                      ->  *IDN GE Druck,Pace5000 User Interface,3213201,02.00.07
 *   :SYST:ERR?                 ->  :SYST:ERR 0,"No error"
 *
 * so that an answer to another question is noticed. The echo may be spelt out (SENSE, PRESSURE), may name the channel
 * (SENS1), and may or may not hold the nodes that SCPI lets one leave out (LEV, IMM, AMPL, STAT). A command has no
 * answer. Lines end with CR, LF or both.
 */
#ifndef DRIVERS_PACE_H
#define DRIVERS_PACE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* name, header, whether it is a word (else numbers), what it is */
#define PACE_LIST(X)                                                                                                   \
    X(IDENTITY, "*IDN", true, "maker, model, serial number, version")                                                  \
    X(ERROR, ":SYST:ERR", true, "oldest error: number and text")                                                       \
    X(UNIT, ":UNIT:PRES", true, "of every pressure")                                                                   \
    X(FULL_SCALE, ":INST:SENS:FULL", false, "upper end of the range in use, and the lower")                            \
    X(MEASURED, ":SENS:PRES", false, "pressure at the outlet")                                                         \
    X(SETPOINT, ":SOUR:PRES", false, "pressure it is told to reach")                                                   \
    X(SLEW_MODE, ":SOUR:PRES:SLEW:MODE", true, "LIN: at the slew rate, MAX: as fast as it can")                        \
    X(SLEW, ":SOUR:PRES:SLEW", false, "rate, in units per second")                                                     \
    X(OVERSHOOT, ":SOUR:PRES:SLEW:OVER", false, "1: it may overshoot to be quicker")                                   \
    X(OUTPUT, ":OUTP:STAT", false, "1: regulates, 0: valves shut")                                                     \
    X(SUPPLY, ":SOUR:PRES:COMP", false, "of the positive source")

enum pace_quantity {
#define X(name, header, is_word, what) PACE_##name,
    PACE_LIST(X)
#undef X
        PACE_QUANTITY_COUNT
};

#define PACE_COMMAND_MAX 64 /* bytes of one command with its end and the NUL */
#define PACE_LINE_MAX 200   /* characters of one answer */
#define PACE_VALUES_MAX 2

/* "LIN" as a word of SLEW_MODE, "BAR" of UNIT; MAX is the other mode. */
#define PACE_LINEAR "LIN"
#define PACE_BAR "BAR"

struct pace_answer {
    char word[PACE_LINE_MAX + 1]; /* what followed the header, capitals, without quotes */
    double value[PACE_VALUES_MAX];
    int n_values; /* 0 for words */
};

/* ":SENS:PRES?" and the line's end. Returns the length. */
int pace_pack_query(enum pace_quantity quantity, const char *line_end, char ret_text[PACE_COMMAND_MAX]);
/* ":SOUR:PRES 12.345000"; the value must be finite. */
int pace_pack_number(enum pace_quantity quantity, double value, const char *line_end, char ret_text[PACE_COMMAND_MAX]);
int pace_pack_word(enum pace_quantity quantity, const char *word, const char *line_end,
                   char ret_text[PACE_COMMAND_MAX]);

/* The answer to the query of `quantity`. Errors: ERR_PROTOCOL (the answer to another question, or no number where one
 * is expected: err quotes it). */
int pace_unpack(enum pace_quantity quantity, const char *line, struct pace_answer *ret_answer, struct err *err);

/* Puts lines together from bytes as they come. */
struct pace_reader {
    char line[PACE_LINE_MAX + 1];
    size_t n;
    bool is_spoilt; /* too long, or bytes that no answer has: said at the line's end */
};

void pace_reader_clear(struct pace_reader *reader);
/* 1 when `line` is whole (terminated; valid until the next byte), 0 when more is needed. Empty lines are skipped.
 * Errors: ERR_PROTOCOL (the line that ends here is no text; the next begins anew). */
int pace_reader_feed(struct pace_reader *reader, char byte, struct err *err);

/* The rate in bar/s that is sent for a slew: whole microbars per second, never faster than asked. */
double pace_slew_bar_per_s(double slew_bar_per_min);

#endif
