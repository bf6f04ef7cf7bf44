/*
 * The part of libFuzzer that needs no clang. Plants the seeds of a fuzz target, or replays them with a few thousand
 * mutations of each kind, drawn from one fixed seed: a smoke test, not a search.
 *
 *   fuzz_x                 every seed, and mutations of them until MUTATIONS or SECONDS are used up
 *   fuzz_x FILE ...        these inputs, such as a finding of `make fuzz`
 *   fuzz_x --seeds FOLDER  writes the seeds, and words.dict beside them in the form libFuzzer reads
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "tests/fuzz.h"

#define SEEDS_MAX 64
#define INPUT_MAX (1 << 17)
#define MUTATIONS 20000
#define SECONDS 0.4

struct seed {
    uint8_t *bytes;
    size_t size;
};

static struct seed seeds[SEEDS_MAX];
static int n_seeds, n_words;
static uint64_t chance = UINT64_C(0x9e3779b97f4a7c15);

void fuzz_plant(const void *bytes, size_t size)
{
    struct seed *seed = &seeds[n_seeds++];
    if (n_seeds > SEEDS_MAX || size > INPUT_MAX || !(seed->bytes = malloc(size + 1)))
        abort();
    memcpy(seed->bytes, bytes, size);
    seed->size = size;
}

static size_t draw(size_t below) /* xorshift64*: Vigna, ACM Trans. Math. Softw. 42, 30 (2016) */
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (size_t)(chance * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}

/* Puts bytes in at a place, over what is there or before it. Returns the new size. */
static size_t insert(uint8_t *input, size_t size, size_t at, const void *bytes, size_t n)
{
    bool is_over = draw(2) && at + n <= size;
    if (!is_over) {
        if (size + n > INPUT_MAX)
            return size;
        memmove(input + at + n, input + at, size - at);
        size += n;
    }
    memcpy(input + at, bytes, n);
    return size;
}

static size_t mutate(uint8_t *input, size_t size)
{
    static const uint8_t EDGES[] = {0, 1, 0x7f, 0x80, 0xff, '-', '9', '\n', '.', '"'};
    uint8_t piece[64];
    size_t at = draw(size + 1), n;
    switch (draw(6)) {
    case 0: /* one bit */
        if (at < size)
            input[at] ^= (uint8_t)(1 << draw(8));
        return size;
    case 1: /* cut */
        return draw(4) ? size : at;
    case 2: /* a part is missing */
        n = draw(16) < size - at ? draw(16) : 0;
        n = n < size - at ? n : size - at;
        memmove(input + at, input + at + n, size - at - n);
        return size - n;
    case 3: /* a part of another seed, or of its own */
        n = 1 + draw(sizeof piece);
        const struct seed *other = &seeds[draw((size_t)n_seeds)];
        if (other->size < n)
            return size;
        memcpy(piece, other->bytes + draw(other->size - n + 1), n);
        return insert(input, size, at, piece, n);
    case 4:
        if (n_words == 0)
            return size;
        const char *word = fuzz_words[draw((size_t)n_words)];
        return insert(input, size, at, word, strlen(word));
    default:
        for (n = 0; n < 1 + draw(4); n++)
            piece[n] = EDGES[draw(sizeof EDGES)];
        return insert(input, size, at, piece, n);
    }
}

static double used_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A copy of exactly this size, so that a byte read beyond it is noticed by the sanitizer. */
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact)
        abort();
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static int replay(void)
{
    static uint8_t input[INPUT_MAX];
    double end_s = used_s() + SECONDS;
    int n = 0;
    for (int i = 0; i < n_seeds; i++)
        run(seeds[i].bytes, seeds[i].size);
    for (; !&fuzz_is_brittle && n < MUTATIONS && used_s() < end_s; n++) {
        const struct seed *seed = &seeds[n % n_seeds];
        size_t size = seed->size;
        memcpy(input, seed->bytes, size);
        for (size_t k = 1 + draw(4); k > 0; k--)
            size = mutate(input, size);
        run(input, size);
    }
    printf("%d seeds and %d mutations replayed\n", n_seeds, n);
    return 0;
}

static FILE *create(const char *folder, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        fprintf(stderr, "%s cannot be written: %s\n", path, strerror(errno));
    return file;
}

static int plant_all(const char *folder)
{
    for (int i = 0; i < n_seeds; i++) {
        char name[32];
        snprintf(name, sizeof name, "seed-%02d", i);
        FILE *file = create(folder, name);
        if (!file || fwrite(seeds[i].bytes, 1, seeds[i].size, file) != seeds[i].size || fclose(file) != 0)
            return 1;
    }
    FILE *words = create(folder, "../words.dict");
    if (!words)
        return 1;
    for (int i = 0; i < n_words; i++) {
        fputc('"', words);
        for (const char *c = fuzz_words[i]; *c; c++)
            fprintf(words, isalnum((unsigned char)*c) ? "%c" : "\\x%02x", (unsigned char)*c);
        fprintf(words, "\"\n");
    }
    return fclose(words) == 0 ? 0 : 1;
}

static int replay_file(const char *path)
{
    static uint8_t input[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "%s cannot be opened: %s\n", path, strerror(errno));
        return 1;
    }
    size_t size = fread(input, 1, sizeof input, file);
    fclose(file);
    run(input, size);
    printf("%s: %zu bytes, no complaint\n", path, size);
    return 0;
}

int main(int argc, char **argv)
{
    while (fuzz_words[n_words])
        n_words++;
    fuzz_plant_seeds();
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return plant_all(argv[2]);
    int code = argc > 1 ? 0 : replay();
    for (int i = 1; i < argc && code == 0; i++)
        code = replay_file(argv[i]);
    return code;
}
