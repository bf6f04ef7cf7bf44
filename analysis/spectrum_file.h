/*
 * Spectra on file, as people have them.
 *
 * Text: two columns, wavelength in nm and counts, with or without a header; separated by tabs, spaces, semicolons or
 * commas; with decimal points or decimal commas. Reads what HR4000, SpectraSuite and CRAIC programs save. With a laser
 * wavelength the first column is a Raman shift in cm-1 and becomes a wavelength: 1 / (1 / laser - shift).
 *
 * SPE 2 (WinSpec) and SPE 3 (LightField), told by their headers: the first frame and, of an image, the sum of its rows.
 * The axis is the calibration polynomial of the header (2) or the list of wavelengths in the XML footer (3). Offsets as
 * public readers of the format have them: 42 columns, 108 type of the data, 656 rows, 678 footer, 1446 frames, 1992
 * version, 3098 calibration is valid, 3101 order, 3263 coefficients, 4100 data.
 */
#ifndef ANALYSIS_SPECTRUM_FILE_H
#define ANALYSIS_SPECTRUM_FILE_H

#include "base/err.h"

/*
 * Reads `path`. Of a text, lines before the first pair of numbers are its header (at most 200); lines that begin with
 * '#' or '>' and empty lines are skipped anywhere. wavelength_nm, counts  [n_max], filled ascending in wavelength; may
 * be partly filled on failure laser_nm               0, or the laser of a Raman-shift axis (text only) Errors, with the
 * line number: ERR_IO (cannot be read), ERR_DATA (binary, no numbers, fewer than 16 points, a line that is not two
 * finite numbers, wavelengths not in order; SPE: cut, without a calibration, of an unknown type), ERR_FULL (more than
 * n_max points).
 */
int spectrum_file_read(const char *path, double laser_nm, double *wavelength_nm, double *counts, int n_max, int *ret_n,
                       struct err *err);

#endif
