/*
 * What a fuzz target is made of. Each tests/fuzz_<parser>.c feeds one parser with bytes that nobody can be trusted to
 * have sent, under AddressSanitizer and UBSan, and checks a property of what the parser accepts: "no crash" alone would
 * let nonsense through. A target has
 *
 *   LLVMFuzzerTestOneInput  one input through the parser; anything wrong ends the process
 *   fuzz_plant_seeds        the corpus to begin with, made by the project's own code, never stored
 *   fuzz_words              what the parser's language is made of, for the mutations; NULL at the end
 *
 * `make fuzz` links it with libFuzzer (clang). Everywhere else it is linked with tests/fuzz/replay.c, which plants the
 * seeds into a folder, or replays them, mutates them a little, and is part of `make test`.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Calls fuzz_plant for every seed. */
void fuzz_plant_seeds(void);
extern const char *const fuzz_words[];

/* Defined by a target whose parser stands on a library that does not bear damage: only its seeds are replayed. */
extern const int fuzz_is_brittle __attribute__((weak));

/* Given by tests/fuzz/replay.c; libFuzzer reads the folder instead. */
void fuzz_plant(const void *bytes, size_t size);

/* A property of what was accepted. Not assert: the sentence says what was seen, and no build leaves it out. */
#define FUZZ_CHECK(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: property broken: %s; ", __FILE__, __LINE__, #condition);                           \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A file in memory with these bytes, for parsers that take a path: the path lives until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size);

#endif
