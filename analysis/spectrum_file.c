#include "analysis/spectrum_file.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LINES_MAX 200
#define LINE_SIZE 1024
#define POINTS_MIN 16

/* The whole of `text` as a number, with decimal point or comma. */
static bool number_parse(const char *text, size_t length, double *ret_value)
{
    char copy[64];
    if (length == 0 || length >= sizeof copy)
        return false;
    for (size_t i = 0; i < length; i++) {
        copy[i] = text[i] == ',' ? '.' : text[i];
        if (!strchr("+-.eE0123456789", copy[i]))
            return false;
    }
    copy[length] = '\0';
    char *end;
    *ret_value = strtod(copy, &end);
    return *end == '\0' && isfinite(*ret_value);
}

/* Two numbers and nothing else. Commas are decimal when another separator stands between the columns, or when there are
 * three of them. */
static bool pair_parse(const char *line, double *ret_first, double *ret_second)
{
    const char *begin = line + strspn(line, " \t");
    size_t length = strlen(begin);
    while (length > 0 && isspace((unsigned char)begin[length - 1]))
        length--;
    const char *gap = memchr(begin, ';', length);
    for (size_t i = 0; i < length && !gap; i++)
        if (isspace((unsigned char)begin[i]))
            gap = begin + i;
    int n_commas = 0;
    const char *commas[3] = {NULL};
    for (size_t i = 0; i < length; i++)
        if (begin[i] == ',' && n_commas++ < 3)
            commas[n_commas - 1] = begin + i;
    if (!gap)
        gap = n_commas == 1 ? commas[0] : n_commas == 3 ? commas[1] : NULL;
    if (!gap)
        return false;
    const char *end = begin + length, *second = gap;
    size_t first_length = (size_t)(gap - begin);
    while (second < end && (isspace((unsigned char)*second) || *second == ';' || second == gap))
        second++;
    while (first_length > 0 && isspace((unsigned char)begin[first_length - 1]))
        first_length--;
    if (first_length > 1 && begin[first_length - 1] == ',')
        first_length--; /* "694.25, 1034" */
    return number_parse(begin, first_length, ret_first) && number_parse(second, (size_t)(end - second), ret_second);
}

static bool is_text(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < ' ' && c != '\t' && c != '\r' && c != '\n' && c != '\f')
            return false;
    }
    return true;
}

/* 1 with a line, 0 at the end of the file, negative on error. Byte order marks and line ends are taken off. */
static int line_read(FILE *file, const char *path, int line_index, char line[LINE_SIZE], struct err *err)
{
    size_t n = 0;
    int c;
    while ((c = getc(file)) != EOF && c != '\n') {
        if (n == LINE_SIZE - 1)
            return err_set(err, ERR_DATA, "%s:%d: longer than %d characters; is it a spectrum?", path, line_index,
                           LINE_SIZE);
        line[n++] = (char)c;
    }
    if (ferror(file))
        return err_set(err, ERR_IO, "%s:%d cannot be read: %s", path, line_index, strerror(errno));
    if (!is_text(line, n))
        return err_set(err, ERR_DATA, "%s:%d: binary data, expected text in two columns", path, line_index);
    line[n] = '\0';
    if (line_index == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
        memmove(line, line + 3, n - 2);
    return n > 0 || c != EOF;
}

static void swap(double *a, double *b)
{
    double kept = *a;
    *a = *b;
    *b = kept;
}

/* Ascending, by turning a descending file round. */
static int order(const char *path, double *wavelength_nm, double *counts, int n, struct err *err)
{
    if (wavelength_nm[0] > wavelength_nm[n - 1])
        for (int i = 0; i < n / 2; i++) {
            swap(&wavelength_nm[i], &wavelength_nm[n - 1 - i]);
            swap(&counts[i], &counts[n - 1 - i]);
        }
    for (int i = 1; i < n; i++)
        if (!(wavelength_nm[i] > wavelength_nm[i - 1]))
            return err_set(err, ERR_DATA, "%s: wavelengths are not in order: %g nm beside %g nm, point %d of %d", path,
                           wavelength_nm[i - 1], wavelength_nm[i], i + 1, n);
    return 0;
}

static int points_read(FILE *file, const char *path, double *wavelength_nm, double *counts, int n_max, int *ret_n,
                       struct err *err)
{
    char line[LINE_SIZE];
    int n = 0, line_index = 1, code;
    for (; (code = line_read(file, path, line_index, line, err)) > 0; line_index++) {
        const char *text = line + strspn(line, " \t\r\f");
        double first, second;
        if (*text == '\0' || *text == '#' || *text == '>')
            continue;
        if (!pair_parse(line, &first, &second)) {
            if (n == 0 && line_index <= HEADER_LINES_MAX)
                continue;
            return err_set(err, ERR_DATA,
                           "%s:%d: \"%.40s\" is not a wavelength and a count; %d points were read before", path,
                           line_index, text, n);
        }
        if (n == n_max)
            return err_set(err, ERR_FULL, "%s:%d: more than %d points", path, line_index, n_max);
        wavelength_nm[n] = first;
        counts[n++] = second;
    }
    if (code == 0 && n < POINTS_MIN)
        return err_set(err, ERR_DATA, "%s: only %d points in %d lines, expected at least %d; is it a spectrum?", path,
                       n, line_index - 1, POINTS_MIN);
    *ret_n = n;
    return code;
}

int spectrum_file_read(const char *path, double *wavelength_nm, double *counts, int n_max, int *ret_n, struct err *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return err_set(err, ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
    int n;
    int code = points_read(file, path, wavelength_nm, counts, n_max, &n, err);
    fclose(file);
    if (!code)
        code = order(path, wavelength_nm, counts, n, err);
    if (!code)
        *ret_n = n;
    return code;
}
