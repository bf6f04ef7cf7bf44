#include "controller/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void program_path(const char *name, char *ret_path, size_t size)
{
    char self[4000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    snprintf(ret_path, size, "%s/%s", self, name);
}
