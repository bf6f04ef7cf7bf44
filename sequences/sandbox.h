/*
 * The sandbox: evaluates a Lua 5.4 text in a child process and brings back, as plain data, what its constructors were
 * called with. The only includer of lua.h.
 *
 * The text can compute (string, table, math), but it has no file, clock, process, chance, metatable, coroutine, loader
 * or handler of errors; pairs() goes in sorted order and nothing shows an address, so the same text always builds the
 * same. The child has 2 s of processor time, 96 MB for Lua and 5 s of wall time, inherits no descriptor but its pipe,
 * and can open none. What it sends is bounded and checked before it is believed.
 */
#ifndef SEQUENCES_SANDBOX_H
#define SEQUENCES_SANDBOX_H

#include <stddef.h>

#include "base/err.h"
#include "sequences/record.h"

struct sandbox_rules {
    const char *what;                /* "sequence": how sentences call the file */
    const char *const *constructors; /* the functions it may call, each with one table */
    int n_constructors;
    int n_calls_max;
};

/* Reads a whole text file of fewer than `size` bytes; NUL terminated. Errors: ERR_IO (unreadable, not a regular file),
 * ERR_CONFIG (too long, binary). */
int sandbox_read_file(char *ret_text, size_t size, const char *path, struct err *err);

/* Evaluates `text`; `path` is its name in sentences and must outlive the list. Free *ret_list with free(). Errors:
 * ERR_CONFIG (Lua's own complaint, with file and line; unknown name; too many calls), ERR_LIMIT (time or memory used
 * up), ERR_SYSTEM (no child could be had, or it ended by a signal). */
int sandbox_evaluate(struct record_list **ret_list, const char *text, const char *path,
                     const struct sandbox_rules *rules, struct err *err);

#endif
