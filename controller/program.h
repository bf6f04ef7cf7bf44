/* Where the programs of one build stand: beside each other. */
#ifndef CONTROLLER_PROGRAM_H
#define CONTROLLER_PROGRAM_H

#include <stddef.h>

/* The path of the program `name` beside this one; cut when it is longer than `size`. */
void program_path(const char *name, char *ret_path, size_t size);

#endif
