#include "analysis/polygon.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/text_file.h"

#define COORDINATE_MAX 1e6 /* pixels; beyond it a number is no corner */
#define CORNERS_MIN 3

struct polygon {
    int n, line; /* corners; of the text */
    double column[POLYGON_CORNERS_MAX], row[POLYGON_CORNERS_MAX];
    double crossing[POLYGON_CORNERS_MAX]; /* columns where the present row crosses an edge */
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The columns at which a row's centres pass an edge, ascending; returns how many: an even number. */
static int find_crossings(struct polygon *polygon, double row)
{
    int n = 0;
    for (int i = 0, j = polygon->n - 1; i < polygon->n; j = i++) {
        double above = polygon->row[i], below = polygon->row[j];
        if ((above > row) == (below > row))
            continue;
        polygon->crossing[n++] =
            polygon->column[i] + (row - above) / (below - above) * (polygon->column[j] - polygon->column[i]);
    }
    qsort(polygon->crossing, (size_t)n, sizeof polygon->crossing[0], compare);
    return n;
}

static double limit(double value, double max) { return value < 0.0 ? 0.0 : value > max ? max : value; }

static void fill(struct polygon *polygon, size_t n_rows, size_t n_columns, uint8_t *is_masked)
{
    double first = polygon->row[0], last = first;
    for (int i = 1; i < polygon->n; i++) {
        first = fmin(first, polygon->row[i]);
        last = fmax(last, polygon->row[i]);
    }
    size_t end_row = (size_t)limit(floor(last) + 1.0, (double)n_rows);
    for (size_t row = (size_t)limit(ceil(first), (double)n_rows); row < end_row; row++) {
        int n = find_crossings(polygon, (double)row);
        for (int i = 0; i + 1 < n; i += 2) {
            size_t end = (size_t)limit(floor(polygon->crossing[i + 1]) + 1.0, (double)n_columns);
            for (size_t c = (size_t)limit(ceil(polygon->crossing[i]), (double)n_columns); c < end; c++)
                is_masked[row * n_columns + c] = 1;
        }
    }
}

/* "column row", with a comma between them or without. */
static bool parse_corner(const char *line, double *ret_column, double *ret_row)
{
    char *rest;
    *ret_column = strtod(line, &rest);
    if (rest == line)
        return false;
    rest += strspn(rest, " \t");
    const char *second = rest + (*rest == ',');
    *ret_row = strtod(second, &rest);
    return rest > second && rest[strspn(rest, " \t\r")] == '\0' && fabs(*ret_column) < COORDINATE_MAX &&
           fabs(*ret_row) < COORDINATE_MAX;
}

/* `line` is cut at its comment. */
static int take_line(struct polygon *polygon, char *line, struct err *err)
{
    line[strcspn(line, "#")] = '\0';
    if (polygon->n == POLYGON_CORNERS_MAX)
        return err_set(err, ERR_DATA, "line %d: more than %d corners in one polygon", polygon->line,
                       POLYGON_CORNERS_MAX);
    if (!parse_corner(line, &polygon->column[polygon->n], &polygon->row[polygon->n]))
        return err_set(err, ERR_DATA,
                       "line %d is '%.60s', expected column and row of a corner in pixels, such as "
                       "'120 44.5'",
                       polygon->line, line);
    polygon->n++;
    return 0;
}

static int end_polygon(struct polygon *polygon, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err)
{
    if (polygon->n < CORNERS_MIN)
        return err_set(err, ERR_DATA, "the polygon that ends in line %d has %d corners, expected at least %d",
                       polygon->line, polygon->n, CORNERS_MIN);
    fill(polygon, n_rows, n_columns, is_masked);
    polygon->n = 0;
    return 0;
}

int polygon_mask(char *text, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err)
{
    struct polygon *polygon = calloc(1, sizeof *polygon);
    int code = polygon ? 0 : err_set(err, ERR_SYSTEM, "no memory for a polygon"), n_polygons = 0;
    for (char *line; code == 0 && (line = strsep(&text, "\n"));) {
        polygon->line++;
        if (line[0] == '#')
            continue;
        if (line[strspn(line, " \t\r")] != '\0')
            code = take_line(polygon, line, err);
        if (code == 0 && polygon->n > 0 && (!text || line[strspn(line, " \t\r")] == '\0')) {
            code = end_polygon(polygon, n_rows, n_columns, is_masked, err);
            n_polygons++;
        }
    }
    if (code == 0 && n_polygons == 0)
        code = err_set(err, ERR_DATA, "no polygon in %d lines", polygon->line);
    free(polygon);
    return code;
}

int polygon_read(const char *path, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err)
{
    char *text;
    int code = text_file_read(path, POLYGON_BYTES_MAX, &text, err);
    if (code)
        return code;
    code = polygon_mask(text, n_rows, n_columns, is_masked, err);
    if (code)
        err_prefix(err, "%s", path);
    free(text);
    return code;
}
