/*
 * Parser: polygons that leave out pixels (analysis/polygon). Property: what is accepted masks pixels of the detector
 * only, and the same pixels when a second pass reads it over the first.
 */
#include <string.h>

#include "analysis/polygon.h"
#include "tests/fuzz.h"

#define ROWS 40
#define COLUMNS 60

const char *const fuzz_words[] = {"\n",     "\n\n", "#",  ",",  " ",   "-",   "1e6",
                                  "999999", "0.5",  "59", "39", "nan", "inf", NULL};

void fuzz_plant_seeds(void)
{
    static const char *const SEEDS[] = {"9.5 19.5\n29.5 19.5\n29.5 24.5\n9.5 24.5\n",
                                        "# a shadow\n-50,-50\n4.5, -50\n4.5 1e3\n-50 1e3\n\n\n50 10\n70 10\n50 30\n",
                                        "50 10\n62 46\n31 24\n69 24\n38 46\n\n1 1\n"};
    for (size_t i = 0; i < sizeof SEEDS / sizeof SEEDS[0]; i++)
        fuzz_plant(SEEDS[i], strlen(SEEDS[i]));
}

/* The mask, between two stretches of memory that are nobody's. */
struct guarded {
    uint8_t before[COLUMNS], mask[ROWS * COLUMNS], after[COLUMNS];
};

static int read_once(const uint8_t *data, size_t size, struct guarded *guarded, struct err *err)
{
    static char text[1 << 17];
    memcpy(text, data, size);
    text[size] = '\0';
    return polygon_mask(text, ROWS, COLUMNS, guarded->mask, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guarded guarded = {0};
    static uint8_t first[sizeof guarded.mask];
    struct err err = {0};
    if (size >= 1 << 17 || memchr(data, 0, size))
        return 0;
    if (read_once(data, size, &guarded, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    memcpy(first, guarded.mask, sizeof first);
    FUZZ_CHECK(read_once(data, size, &guarded, &err) == 0, "refused when read again: %s", err.message);
    FUZZ_CHECK(memcmp(first, guarded.mask, sizeof first) == 0, "another mask when read again");
    for (size_t i = 0; i < COLUMNS; i++)
        FUZZ_CHECK(guarded.before[i] == 0 && guarded.after[i] == 0, "a pixel beside the detector");
    for (size_t p = 0; p < sizeof first; p++)
        FUZZ_CHECK(first[p] <= 1, "pixel %zu is %d", p, first[p]);
    return 0;
}
