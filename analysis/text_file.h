/*
 * A small text file as a whole: what operators write by hand or other programs write for them.
 */
#ifndef ANALYSIS_TEXT_FILE_H
#define ANALYSIS_TEXT_FILE_H

#include <stddef.h>

#include "base/err.h"

/*
 *   ret_text  terminated; free
 * Errors: ERR_IO (missing, unreadable), ERR_DATA (n_bytes_max or more bytes, or a byte 0: no text), ERR_SYSTEM
 * (memory).
 */
int text_file_read(const char *path, size_t n_bytes_max, char **ret_text, struct err *err);

#endif
