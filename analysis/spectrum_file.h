/*
 * Spectra in text files: two columns, wavelength in nm and counts, with or without a header; separated by tabs, spaces,
 * semicolons or commas; with decimal points or decimal commas. Reads what HR4000, SpectraSuite and CRAIC programs save.
 */
#ifndef ANALYSIS_SPECTRUM_FILE_H
#define ANALYSIS_SPECTRUM_FILE_H

#include "base/err.h"

/*
 * Reads `path`. Lines before the first pair of numbers are its header (at most 200); lines that begin with '#' or '>'
 * and empty lines are skipped anywhere.
 *   wavelength_nm, counts  [n_max], filled ascending in wavelength; may be partly filled on failure
 * Errors, with the line number: ERR_IO (cannot be read), ERR_DATA (binary, no numbers, fewer than 16 points, a line
 * that is not two finite numbers, wavelengths not in order), ERR_FULL (more than n_max points).
 */
int spectrum_file_read(const char *path, double *wavelength_nm, double *counts, int n_max, int *ret_n, struct err *err);

#endif
