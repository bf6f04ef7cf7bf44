#include "analysis/spectrum_file.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

/* Finite and ascending, by turning a descending file round. */
static int order(const char *path, double *wavelength_nm, double *counts, int n, struct err *err)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(wavelength_nm[i]) || !isfinite(counts[i]))
            return err_set(err, ERR_DATA, "%s: point %d of %d, %g nm and %g counts, is not finite; save it anew", path,
                           i + 1, n, wavelength_nm[i], counts[i]);
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

/* ---- Raman shifts -------------------------------------------------------------------------------------------- */

static int unshift(const char *path, double laser_nm, double *axis, int n, struct err *err)
{
    for (int i = 0; i < n; i++) {
        double inv_cm = 1e7 / laser_nm - axis[i];
        if (!(inv_cm > 1000 && inv_cm < 100000))
            return err_set(
                err, ERR_DATA,
                "%s: a Raman shift of %g cm-1 from %g nm is no visible light; is the first column a shift in "
                "cm-1, and is this the laser?",
                path, axis[i], laser_nm);
        axis[i] = 1e7 / inv_cm;
    }
    return 0;
}

/* ---- SPE ----------------------------------------------------------------------------------------------------- */

#define SPE_HEADER 4100
#define SPE_BYTES_MAX (64 << 20)

struct spe {
    const char *path;
    unsigned char *bytes; /* one more than n_bytes, a 0 */
    size_t n_bytes;
    int n_columns, n_rows, type, n_bytes_value;
    float version;
};

/* Little endian, as this and every machine of its time. */
static double spe_number(const unsigned char *at, int type)
{
    float f;
    int32_t l;
    uint32_t ul;
    int16_t i;
    uint16_t u;
    switch (type) {
    case 0:
        memcpy(&f, at, sizeof f);
        return (double)f;
    case 1:
        memcpy(&l, at, sizeof l);
        return l;
    case 2:
        memcpy(&i, at, sizeof i);
        return i;
    case 3:
        memcpy(&u, at, sizeof u);
        return u;
    default:
        memcpy(&ul, at, sizeof ul);
        return ul;
    }
}

static int spe_header(struct spe *spe, struct err *err)
{
    static const int SIZES[] = {[0] = 4, [1] = 4, [2] = 2, [3] = 2, [8] = 4};
    memcpy(&spe->version, spe->bytes + 1992, sizeof spe->version);
    spe->n_columns = (int)spe_number(spe->bytes + 42, 3);
    spe->n_rows = (int)spe_number(spe->bytes + 656, 3);
    spe->type = (int)spe_number(spe->bytes + 108, 2);
    bool is_known = spe->type >= 0 && spe->type < (int)(sizeof SIZES / sizeof SIZES[0]) && SIZES[spe->type] > 0;
    if (!is_known)
        return err_set(err, ERR_DATA, "%s: SPE with data of type %d; expected 0 to 3 or 8", spe->path, spe->type);
    spe->n_bytes_value = SIZES[spe->type];
    if (spe->n_columns < POINTS_MIN || spe->n_rows < 1)
        return err_set(err, ERR_DATA, "%s: SPE of %d columns and %d rows; expected a spectrum of at least %d points",
                       spe->path, spe->n_columns, spe->n_rows, POINTS_MIN);
    size_t expected = SPE_HEADER + (size_t)spe->n_columns * (size_t)spe->n_rows * (size_t)spe->n_bytes_value;
    if (spe->n_bytes < expected)
        return err_set(err, ERR_DATA, "%s: SPE of %zu bytes, its first frame needs %zu: the file is cut", spe->path,
                       spe->n_bytes, expected);
    return 0;
}

static int spe_polynomial(const struct spe *spe, double *wavelength_nm, struct err *err)
{
    int order = spe->bytes[3101];
    double c[6];
    memcpy(c, spe->bytes + 3263, sizeof c);
    if (!spe->bytes[3098] || order < 1 || order > 5)
        return err_set(err, ERR_DATA,
                       "%s: SPE without a wavelength calibration (order %d); save it with one, or as text", spe->path,
                       order);
    for (int i = 0; i < spe->n_columns; i++) {
        double pixel = i + 1, nm = 0; /* the first pixel is 1 */
        for (int k = order; k >= 0; k--)
            nm = nm * pixel + c[k];
        wavelength_nm[i] = nm;
    }
    return 0;
}

/* The numbers between <Wavelength ...> and its end, with commas between them. */
static int spe_footer(const struct spe *spe, double *wavelength_nm, struct err *err)
{
    uint64_t offset;
    memcpy(&offset, spe->bytes + 678, sizeof offset);
    const char *xml = offset < spe->n_bytes ? (const char *)spe->bytes + offset : NULL;
    const char *at = xml ? strstr(xml, "<Wavelength ") : NULL;
    at = at ? at : xml ? strstr(xml, "<Wavelength>") : NULL;
    at = at ? strchr(at, '>') : NULL;
    int n = 0;
    while (at && n < spe->n_columns) {
        char *end;
        wavelength_nm[n] = strtod(at + 1, &end);
        if (end == at + 1 || !isfinite(wavelength_nm[n]))
            break;
        n++;
        at = *end == ',' ? end : NULL;
    }
    if (n != spe->n_columns || at)
        return err_set(
            err, ERR_DATA,
            "%s: SPE 3 with %d columns but %s%d wavelengths in its footer; save it with a calibration, or as "
            "text",
            spe->path, spe->n_columns, at ? "more than " : "", n);
    return 0;
}

static int spe_read(const struct spe *header, double *wavelength_nm, double *counts, int n_max, int *ret_n,
                    struct err *err)
{
    struct spe spe = *header;
    int code = spe_header(&spe, err);
    if (code < 0)
        return code;
    if (spe.n_columns > n_max)
        return err_set(err, ERR_FULL, "%s: %d points, at most %d expected", spe.path, spe.n_columns, n_max);
    code = spe.version >= 3 ? spe_footer(&spe, wavelength_nm, err) : spe_polynomial(&spe, wavelength_nm, err);
    if (code < 0)
        return code;
    const unsigned char *at = spe.bytes + SPE_HEADER;
    for (int i = 0; i < spe.n_columns; i++)
        counts[i] = 0;
    for (int row = 0; row < spe.n_rows; row++)
        for (int i = 0; i < spe.n_columns; i++, at += spe.n_bytes_value)
            counts[i] += spe_number(at, spe.type);
    *ret_n = spe.n_columns;
    return 0;
}

/* 1 when it was an SPE and is read, 0 when it is not one. */
static int spe_try(FILE *file, const char *path, double *wavelength_nm, double *counts, int n_max, int *ret_n,
                   struct err *err)
{
    struct spe spe = {.path = path, .bytes = malloc(SPE_HEADER + 1)};
    if (!spe.bytes)
        return err_set(err, ERR_SYSTEM, "no memory for %s", path);
    spe.n_bytes = fread(spe.bytes, 1, SPE_HEADER, file);
    struct stat about;
    bool is_small = fstat(fileno(file), &about) == 0 && about.st_size < SPE_BYTES_MAX;
    size_t size = is_small && about.st_size > SPE_HEADER ? (size_t)about.st_size : SPE_BYTES_MAX;
    int code = 0;
    if (spe.n_bytes == SPE_HEADER) {
        memcpy(&spe.version, spe.bytes + 1992, sizeof spe.version);
        int is_spe = memchr(spe.bytes, 0, 256) && spe.version >= 1 && spe.version < 4;
        unsigned char *all = is_spe ? realloc(spe.bytes, size + 1) : NULL;
        if (is_spe && !all)
            code = err_set(err, ERR_SYSTEM, "no memory for %s", path);
        if (all) {
            spe.bytes = all;
            spe.n_bytes += fread(all + SPE_HEADER, 1, size - SPE_HEADER, file);
            all[spe.n_bytes] = 0;
            code = spe_read(&spe, wavelength_nm, counts, n_max, ret_n, err);
            code = code < 0 ? code : 1;
        }
    }
    free(spe.bytes);
    rewind(file);
    return code;
}

int spectrum_file_read(const char *path, double laser_nm, double *wavelength_nm, double *counts, int n_max, int *ret_n,
                       struct err *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return err_set(err, ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
    int n = 0, code = spe_try(file, path, wavelength_nm, counts, n_max, &n, err);
    if (code == 0) {
        code = points_read(file, path, wavelength_nm, counts, n_max, &n, err);
        if (code == 0 && laser_nm > 0)
            code = unshift(path, laser_nm, wavelength_nm, n, err);
    }
    fclose(file);
    if (code >= 0)
        code = order(path, wavelength_nm, counts, n, err);
    if (code >= 0)
        *ret_n = n;
    return code < 0 ? code : 0;
}
