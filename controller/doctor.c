#include "controller/doctor.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word, *asked;
} PARTS[DOCTOR_PART_COUNT] = {
#define X(name, word, asked) [DOCTOR_##name] = {word, asked},
    DOCTOR_PART_LIST(X)
#undef X
};

static const char *const VERDICTS[DOCTOR_VERDICT_COUNT] = {"good", "doubt", "BAD"};

void doctor_add(struct doctor_report *report, enum doctor_part part, enum doctor_verdict verdict, const char *check,
                const char *format, ...)
{
    assert(report->n < DOCTOR_PART_COUNT && part < DOCTOR_PART_COUNT);
    struct doctor_line *line = &report->lines[report->n++];
    va_list arguments;
    *line = (struct doctor_line){.part = part, .verdict = verdict};
    va_start(arguments, format);
    vsnprintf(line->seen, sizeof line->seen, format, arguments);
    va_end(arguments);
    snprintf(line->check, sizeof line->check, "%s", check);
}

static const char *advise_epics(enum doctor_part part, int code)
{
    switch (code) {
    case ERR_REFUSED:
        return "the record's limits, and whether its IOC lets this computer write";
    case ERR_STATE:
        return part == DOCTOR_SPECTROMETER ? "who else takes spectra with it, and the alarms of its records"
                                           : "the alarms of the record, at its IOC";
    case ERR_DATA:
        return part == DOCTOR_SPECTROMETER ? "which records the PVs in the beamline file name, and the window "
                                             "wavelength_nm_min to wavelength_nm_max"
                                           : "which record the PV in the beamline file names";
    case ERR_ARG:
        return "the beamline file";
    default: /* no connection, no answer */
        return "whether the IOC runs, ca_address, and the PV names in the beamline file";
    }
}

/* What a person looks at first, by the kind of failure. */
static const char *advise(enum doctor_part part, enum doctor_wire wire, int code)
{
    bool is_membrane = part == DOCTOR_MEMBRANE;
    if (wire == DOCTOR_EPICS)
        return advise_epics(part, code);
    switch (code) {
    case ERR_LINK:
        return "power, cable, and the address in the beamline file; whether another program holds the line";
    case ERR_TIMEOUT:
        return is_membrane ? "unit_id, baud rate, parity and terminator; power and cable behind the serial server"
                           : "baud rate of the line or its serial server (9600 at power-up), power and cable behind it";
    case ERR_PROTOCOL:
        return "whether it is the device that the beamline file names; baud rate, parity and terminator of the line";
    case ERR_REFUSED:
        return is_membrane ? "driver and unit_id in the beamline file: the device answers, but has no such registers"
                           : "driver and model: the device answers, but refuses";
    case ERR_DATA:
        return is_membrane ? "model, unit and full scale of the controller; driver and unit_id in the beamline file"
                           : "model, and the window wavelength_nm_min to wavelength_nm_max in the beamline file";
    case ERR_STATE:
        return "what the sentence names, at the controller itself: unit, alarm set point, watchdog, control mode";
    case ERR_ARG:
        return "the beamline file";
    default:
        return "the log";
    }
}

void doctor_add_failure(struct doctor_report *report, enum doctor_part part, enum doctor_wire wire,
                        const struct err *err)
{
    doctor_add(report, part, DOCTOR_BAD, advise(part, wire, err->code), "%s", err->message);
}

enum doctor_verdict doctor_worst(const struct doctor_report *report)
{
    enum doctor_verdict worst = DOCTOR_GOOD;
    for (int i = 0; i < report->n; i++)
        worst = report->lines[i].verdict > worst ? report->lines[i].verdict : worst;
    return worst;
}

/* Appends a text as JSON wants it between quotes: what is no plain character is a blank. */
static size_t put_escaped(char *text, size_t used, size_t size, const char *from)
{
    for (; *from && used + 2 < size; from++) {
        if (*from == '"' || *from == '\\')
            text[used++] = '\\';
        text[used++] = *from >= ' ' && *from <= '~' ? *from : ' ';
    }
    text[used] = '\0';
    return used;
}

static size_t put_plain(char *text, size_t used, size_t size, const char *from)
{
    int n = snprintf(text + used, size - used, "%s", from);
    return used + (size_t)n < size ? used + (size_t)n : size - 1;
}

static size_t put_json(const struct doctor_line *line, char *text, size_t size)
{
    const char *const pairs[][2] = {
        {"{\"part\":\"", PARTS[line->part].word},
        {"\",\"asked\":\"", PARTS[line->part].asked},
        {"\",\"seen\":\"", line->seen},
        {"\",\"verdict\":\"", line->verdict == DOCTOR_BAD ? "bad" : VERDICTS[line->verdict]},
        {"\",\"check\":\"", line->check}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        used = put_plain(text, used, size, pairs[i][0]);
        used = put_escaped(text, used, size, pairs[i][1]);
    }
    return put_plain(text, used, size, "\"}");
}

static size_t put_line(const struct doctor_line *line, char *text, size_t size)
{
    int n = snprintf(text, size, "%-5s  %-12s  %s: %s%s%s\n", VERDICTS[line->verdict], PARTS[line->part].word,
                     PARTS[line->part].asked, line->seen, line->check[0] ? "; check " : "", line->check);
    return (size_t)n < size ? (size_t)n : size - 1;
}

void doctor_print(const struct doctor_report *report, bool is_json, char *ret_text, size_t size)
{
    char text[3000];
    size_t used = 0;
    ret_text[0] = '\0';
    if (is_json)
        used = put_plain(ret_text, used, size, "{\"lines\":[");
    for (int i = 0; i < report->n; i++) {
        size_t n =
            is_json ? put_json(&report->lines[i], text, sizeof text) : put_line(&report->lines[i], text, sizeof text);
        if (used + n + 40 > size) {
            ret_text[is_json ? 0 : used] = '\0';
            return;
        }
        if (is_json && i > 0)
            ret_text[used++] = ',';
        memcpy(ret_text + used, text, n + 1);
        used += n;
    }
    if (is_json) {
        enum doctor_verdict worst = doctor_worst(report);
        snprintf(ret_text + used, size - used, "],\"verdict\":\"%s\"}", worst == DOCTOR_BAD ? "bad" : VERDICTS[worst]);
    } else if (used > 0) {
        ret_text[used - 1] = '\0'; /* the last line's end is the caller's */
    }
}
