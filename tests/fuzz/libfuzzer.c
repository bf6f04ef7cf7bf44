#include "tests/fuzz.h"

/* Under libFuzzer the seeds are read from the folder that replay.c's program has written; nothing plants them. */
void fuzz_plant(const void *bytes, size_t size)
{
    (void)bytes;
    (void)size;
    abort();
}
