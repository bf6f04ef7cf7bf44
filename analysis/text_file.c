#include "analysis/text_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int text_file_read(const char *path, size_t n_bytes_max, char **ret_text, struct err *err)
{
    char *text = malloc(n_bytes_max);
    if (!text)
        return err_set(err, ERR_SYSTEM, "no memory for %zu bytes of %s", n_bytes_max, path);
    int code = 0;
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(text, 1, n_bytes_max, file) : 0;
    if (!file || ferror(file))
        code = err_set(err, ERR_IO, "%s cannot be read: %s", path, strerror(errno));
    else if (n == n_bytes_max || memchr(text, '\0', n))
        code = err_set(err, ERR_DATA, "%s is no text of less than %zu bytes", path, n_bytes_max);
    else
        text[n] = '\0';
    if (file)
        fclose(file);
    if (code)
        free(text);
    else
        *ret_text = text;
    return code;
}
