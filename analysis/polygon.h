/*
 * Polygons that leave out pixels: a shadow, a beam stop, a Kossel line. Text, one corner per line: column and row in
 * pixels, whole numbers are centres of pixels; an empty line ends a polygon; `#` begins a comment. A pixel is in a
 * polygon when its centre is (even-odd rule; which of two polygons a centre on their common edge is in is not stated).
 * Polygons may cross each other and reach over the detector's edge.
 */
#ifndef ANALYSIS_POLYGON_H
#define ANALYSIS_POLYGON_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define POLYGON_BYTES_MAX (1 << 20)
#define POLYGON_CORNERS_MAX 4096 /* of one polygon */

/*
 *   text       cut up
 *   is_masked  [n_rows * n_columns], set to 1 in the polygons, else left alone; on failure some may be set
 * Errors: ERR_DATA, with the line: no two numbers, fewer than three corners, no polygon; ERR_SYSTEM (memory).
 */
int polygon_mask(char *text, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err);

/* Errors: those of text_file_read and of polygon_mask; each names the file. */
int polygon_read(const char *path, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err);

#endif
