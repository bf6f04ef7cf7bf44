/*
 * A geometry from pyFAI: the .poni file that its calibration writes. The only file that includes jansson.h.
 *
 * Understood: poni_version 1 (or none), 2, 2.1, and 3 without its parallax correction. Lines `Key: value`, keys in any
 * case, the last of a kind counts, `#` begins a comment: Distance, Poni1, Poni2 (m), Rot1, Rot2, Rot3 (rad), Wavelength
 * (m; may be missing), PixelSize1, PixelSize2 (m), Detector, Detector_config (JSON: pixel1, pixel2, max_shape,
 * orientation). A detector of the Eiger or Pilatus families needs no pixel size. What a flat detector does not have is
 * refused, not passed over: a spline, a NeXus file of pixel positions, parallax.
 *
 * Source: pyFAI, io/ponifile.py, as its documentation describes the versions.
 */
#ifndef ANALYSIS_PONI_H
#define ANALYSIS_PONI_H

#include "analysis/qmap.h"

#define PONI_BYTES_MAX 65536 /* a calibration is ten lines; a file that grew over years is a hundred */

struct poni {
    struct qmap_geometry geometry; /* wavelength and pixel sizes 0 where they are not stated */
    size_t n_rows, n_columns;      /* of the image; 0, 0: not stated */
};

/* `text` is cut up. Errors: ERR_DATA, with the line, what was expected and what was seen. */
int poni_parse(char *text, struct poni *ret_poni, struct err *err);

/* Errors: those of text_file_read and of poni_parse; each names the file. */
int poni_read(const char *path, struct poni *ret_poni, struct err *err);

#endif
