#include "drivers/pace.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLEW_STEPS_PER_BAR 1e6 /* the six digits that a number is sent with */

struct command {
    const char *header;
    bool is_word;
};

static const struct command commands[PACE_QUANTITY_COUNT] = {
#define X(name, header, is_word, what) [PACE_##name] = {header, is_word},
    PACE_LIST(X)
#undef X
};

int pace_pack_query(enum pace_quantity quantity, const char *line_end, char ret_text[PACE_COMMAND_MAX])
{
    int n = snprintf(ret_text, PACE_COMMAND_MAX, "%s?%s", commands[quantity].header, line_end);
    assert(n > 0 && n < PACE_COMMAND_MAX);
    return n;
}

int pace_pack_number(enum pace_quantity quantity, double value, const char *line_end, char ret_text[PACE_COMMAND_MAX])
{
    assert(isfinite(value));
    int n = quantity == PACE_OUTPUT || quantity == PACE_OVERSHOOT
                ? snprintf(ret_text, PACE_COMMAND_MAX, "%s %d%s", commands[quantity].header, value != 0, line_end)
                : snprintf(ret_text, PACE_COMMAND_MAX, "%s %.6f%s", commands[quantity].header, value, line_end);
    assert(n > 0 && n < PACE_COMMAND_MAX);
    return n;
}

int pace_pack_word(enum pace_quantity quantity, const char *word, const char *line_end, char ret_text[PACE_COMMAND_MAX])
{
    int n = snprintf(ret_text, PACE_COMMAND_MAX, "%s %s%s", commands[quantity].header, word, line_end);
    assert(n > 0 && n < PACE_COMMAND_MAX);
    return n;
}

/* ---- headers: SENSE1:PRESSURE and SENS:PRES are one -----------------------------------------------------------------
 */

#define NODES_MAX 8
#define NODE_LETTERS 4 /* SCPI's short form, or fewer letters when the fourth is a vowel */

struct header {
    char nodes[NODES_MAX][NODE_LETTERS + 1];
    int n_nodes;
};

static bool may_be_left_out(const char *node)
{
    static const char *const names[] = {"LEV", "LEVE", "IMM", "IMME", "AMPL", "STAT"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], node) == 0)
            return true;
    return false;
}

/* Nodes of the `n` characters at `text`, capitals, at most four letters, without channel and without what may be left
 * out. False when it is no header. */
static bool header_read(const char *text, size_t n, struct header *ret_header)
{
    struct header header = {.n_nodes = 0};
    size_t i = n > 0 && (text[0] == ':' || text[0] == '*');
    while (i < n && header.n_nodes < NODES_MAX) {
        char *node = header.nodes[header.n_nodes];
        size_t n_letters = 0;
        for (; i < n && isalpha((unsigned char)text[i]); i++)
            if (n_letters < NODE_LETTERS)
                node[n_letters++] = (char)toupper((unsigned char)text[i]);
        while (i < n && isdigit((unsigned char)text[i]))
            i++;
        if (n_letters == 0 || (i < n && text[i] != ':'))
            return false;
        i++;
        node[n_letters] = '\0';
        header.n_nodes += !may_be_left_out(node);
    }
    *ret_header = header;
    return i >= n;
}

/* The long form of a three-letter node has four letters here: "ERRO" begins with "ERR". */
static bool nodes_agree(const char *asked, const char *seen)
{
    return strcmp(asked, seen) == 0 || (strlen(asked) == NODE_LETTERS - 1 && strncmp(asked, seen, strlen(asked)) == 0);
}

static bool headers_agree(const char *asked_text, const char *seen_text, size_t n_seen)
{
    struct header asked, seen;
    if (!header_read(asked_text, strlen(asked_text), &asked) || !header_read(seen_text, n_seen, &seen) ||
        asked.n_nodes != seen.n_nodes || (asked_text[0] == '*') != (n_seen > 0 && seen_text[0] == '*'))
        return false;
    for (int i = 0; i < asked.n_nodes; i++)
        if (!nodes_agree(asked.nodes[i], seen.nodes[i]))
            return false;
    return true;
}

/* ---- answers ------------------------------------------------------------------------------------------------------
 */

static void word_take(const char *text, char *ret_word)
{
    size_t n = 0;
    for (; *text && n < PACE_LINE_MAX; text++)
        if (*text != '"')
            ret_word[n++] = (char)toupper((unsigned char)*text);
    while (n > 0 && ret_word[n - 1] == ' ')
        n--;
    ret_word[n] = '\0';
}

/* "12.5, 1": plain decimal numbers, separated by commas; no infinity, no NaN, no hexadecimal. */
static int numbers_take(const char *text, double ret_value[PACE_VALUES_MAX])
{
    int n = 0;
    if (text[strspn(text, "0123456789+-.eE, ")] != '\0')
        return -1;
    for (const char *next = text; n < PACE_VALUES_MAX; n++) {
        char *end;
        double value = strtod(next, &end);
        if (end == next || !isfinite(value))
            return -1;
        ret_value[n] = value;
        end += strspn(end, " ");
        if (*end == '\0')
            return n + 1;
        if (*end != ',')
            return -1;
        next = end + 1;
    }
    return -1;
}

int pace_unpack(enum pace_quantity quantity, const char *line, struct pace_answer *ret_answer, struct err *err)
{
    const struct command *command = &commands[quantity];
    struct pace_answer answer = {.n_values = 0};
    size_t n_header = strcspn(line, " ");
    const char *rest = line + n_header + strspn(line + n_header, " ");
    if (!headers_agree(command->header, line, n_header))
        return err_set(err, ERR_PROTOCOL, "asked %s?, but \"%s\" answers another question; link closed",
                       command->header, line);
    if (command->is_word)
        word_take(rest, answer.word);
    else
        answer.n_values = numbers_take(rest, answer.value);
    if (command->is_word ? !answer.word[0] : answer.n_values < 1)
        return err_set(err, ERR_PROTOCOL, "asked %s?, but \"%s\" holds no %s; link closed", command->header, line,
                       command->is_word ? "word" : "number");
    *ret_answer = answer;
    return 0;
}

void pace_reader_clear(struct pace_reader *reader)
{
    reader->n = 0;
    reader->is_spoilt = false;
}

int pace_reader_feed(struct pace_reader *reader, char byte, struct err *err)
{
    if (byte != '\r' && byte != '\n') {
        if (byte < ' ' || byte > '~' || reader->n >= PACE_LINE_MAX)
            reader->is_spoilt = true;
        else
            reader->line[reader->n++] = byte;
        return 0;
    }
    reader->line[reader->n] = '\0';
    bool is_spoilt = reader->is_spoilt, is_empty = reader->line[strspn(reader->line, " ")] == '\0';
    pace_reader_clear(reader);
    if (is_spoilt)
        return err_set(err, ERR_PROTOCOL, "an answer that is no line of text came; check baud rate and parity");
    return !is_empty;
}

double pace_slew_bar_per_s(double slew_bar_per_min)
{
    /* A rate that six digits hold exactly must not be rounded past it. */
    return floor(slew_bar_per_min / 60 * SLEW_STEPS_PER_BAR * (1 + 1e-12)) / SLEW_STEPS_PER_BAR;
}
