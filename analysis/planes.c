#include "analysis/planes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/pages.h"
#include "analysis/planes_chunk.h"

#define CELL_PHOTONS 13
#define POOL_CELLS 4096 /* the pool grows by doubling, from so many on */
#define AHEAD 24        /* events: a cell is asked for before its turn */

/* 64 pixels of the detector. */
struct word {
    size_t at;        /* in `bits`: of digit 0 of frame 0 */
    uint64_t members; /* which are in the planes */
    size_t first_cell;
};

/* The newest surplus photons of one pixel, by their frames; older ones in full cells of the pool, 0: none. */
struct cell {
    uint8_t n;
    uint16_t frame[CELL_PHOTONS];
    uint32_t older;
};

_Static_assert(sizeof(struct cell) == 32, "two cells are a line of the cache");

/* Where the words of a bin stand. */
struct layout {
    size_t first_word, n_words;      /* of the detector, from the bin's first to its last */
    size_t n_members;                /* words that have pixels of the bin */
    size_t n_rows, n_chunks;         /* of 16 columns; a chunk has both halves */
    size_t chunk_rows, frame_words;  /* of one half of a chunk */
    size_t n_frames;                 /* with what fills the last tile */
    size_t digit_words, chunk_words; /* of one half of a chunk, all frames; all digits */
};

struct planes {
    struct layout layout;
    planes_count_chunk *count_chunk;
    int n_digits;
    size_t n_frames, n_waiting;
    const uint8_t *range_of_lag;
    uint64_t *bits;     /* [n_chunks][2][n_digits][n_frames][chunk_rows][PLANES_CHUNK_COLUMNS] */
    struct word *words; /* [n_words] */
    struct cell *cells; /* [n_members * 64] */
    struct cell *pool;  /* [pool_size] */
    size_t n_pool, pool_size;
    uint32_t *rows;                       /* [PLANES_BATCH][n_frames] */
    uint64_t (*group_pairs)[TTCF_GROUPS]; /* [TTCF_LAG_RANGES_MAX] of the frames that are being counted */
};

/* ---- paths --------------------------------------------------------------------------------------------------- */

#ifdef __x86_64__
static planes_count_chunk *const chunk_counters[PLANES_PATH_COUNT] = {planes_portable_chunk, planes_avx2_chunk,
                                                                      planes_avx512_chunk};

enum planes_path planes_best_path(void)
{
    if (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl"))
        return PLANES_AVX512;
    return __builtin_cpu_supports("avx2") ? PLANES_AVX2 : PLANES_PORTABLE;
}
#else
static planes_count_chunk *const chunk_counters[PLANES_PATH_COUNT] = {planes_portable_chunk};

enum planes_path planes_best_path(void) { return PLANES_PORTABLE; }
#endif

const char *planes_path_name(enum planes_path path)
{
    static const char *const names[PLANES_PATH_COUNT] = {"portable", "avx2", "avx512"};
    return names[path];
}

double planes_cost_ns(const struct planes_settings *settings, size_t n_rows, double n_frame_pairs)
{
    static const double row_ns[PLANES_PATH_COUNT] = {
        [PLANES_PORTABLE] = 8.0, [PLANES_AVX2] = 2.4, [PLANES_AVX512] = 0.55};
    static const double sum_ns = 1.0; /* of the lanes, once a pair of frames and chunk */
    double n_chunks = (double)(n_rows / PLANES_CHUNK_ROWS + 1), n_digits = settings->n_digits;
    return n_frame_pairs * n_digits * n_digits * ((double)n_rows * row_ns[settings->path] + n_chunks * sum_ns);
}

/* ---- layout -------------------------------------------------------------------------------------------------- */

static uint64_t members_of(const struct planes_settings *settings, size_t word)
{
    size_t first = word * TTCF_GROUP_PIXELS, n = settings->n_pixels - first;
    uint64_t members = 0;
    for (size_t i = 0; i < n && i < TTCF_GROUP_PIXELS; i++)
        members |= (uint64_t)(settings->bin_of_pixel[first + i] == settings->bin) << i;
    return members;
}

static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

static struct layout lay_out(const struct planes_settings *settings)
{
    struct layout layout = {.n_frames = round_up(settings->n_frames, PLANES_TILE_MAX)};
    size_t n_rows[TTCF_GROUPS] = {0}, end = 0;
    for (size_t w = 0; w * TTCF_GROUP_PIXELS < settings->n_pixels; w++) {
        if (!members_of(settings, w))
            continue;
        if (layout.n_members++ == 0)
            layout.first_word = w;
        end = w + 1;
        if (++n_rows[w % TTCF_GROUPS] > layout.n_rows)
            layout.n_rows = n_rows[w % TTCF_GROUPS];
    }
    layout.n_words = end - layout.first_word;
    layout.n_chunks = (layout.n_rows + PLANES_CHUNK_ROWS - 1) / PLANES_CHUNK_ROWS;
    layout.chunk_rows = layout.n_chunks ? (layout.n_rows + layout.n_chunks - 1) / layout.n_chunks : 0;
    layout.frame_words = layout.chunk_rows * PLANES_CHUNK_COLUMNS;
    layout.digit_words = layout.n_frames * layout.frame_words;
    layout.chunk_words = (size_t)settings->n_digits * layout.digit_words;
    return layout;
}

static size_t bits_bytes(const struct layout *layout)
{
    return 2 * layout->n_chunks * layout->chunk_words * sizeof(uint64_t);
}

static size_t cells_bytes(const struct layout *layout)
{
    return layout->n_members * TTCF_GROUP_PIXELS * sizeof(struct cell);
}

struct planes_size planes_measure(const struct planes_settings *settings)
{
    struct layout layout = lay_out(settings);
    return (struct planes_size){.n_rows = layout.n_rows,
                                .digit_bytes = 2 * layout.n_chunks * layout.digit_words * sizeof(uint64_t),
                                .other_bytes = cells_bytes(&layout) + layout.n_words * sizeof(struct word) +
                                               PLANES_BATCH * layout.n_frames * sizeof(uint32_t)};
}

/* A word's column is its group, and its row the number of words of the bin in that column before it. */
static void place_words(struct planes *planes, const struct planes_settings *settings)
{
    const struct layout *layout = &planes->layout;
    size_t n_rows[TTCF_GROUPS] = {0}, n_cells = 0;
    for (size_t i = 0; i < layout->n_words; i++) {
        struct word *word = &planes->words[i];
        size_t column = (layout->first_word + i) % TTCF_GROUPS;
        word->members = members_of(settings, layout->first_word + i);
        if (!word->members)
            continue;
        size_t row = n_rows[column]++, half = column / PLANES_CHUNK_COLUMNS;
        word->at = (row / layout->chunk_rows * 2 + half) * layout->chunk_words +
                   row % layout->chunk_rows * PLANES_CHUNK_COLUMNS + column % PLANES_CHUNK_COLUMNS;
        word->first_cell = n_cells;
        n_cells += TTCF_GROUP_PIXELS;
    }
}

int planes_begin(struct planes **ret_planes, const struct planes_settings *settings, struct err *err)
{
    assert(settings->n_digits >= 1 && settings->n_digits <= PLANES_DIGITS_MAX);
    assert(settings->path <= planes_best_path());
    struct planes *planes = calloc(1, sizeof *planes);
    assert(planes);
    planes->layout = lay_out(settings);
    planes->count_chunk = chunk_counters[settings->path];
    planes->n_digits = settings->n_digits;
    planes->n_frames = settings->n_frames_before;
    planes->range_of_lag = settings->range_of_lag;
    planes->n_pool = 1; /* cell 0 stays empty */
    planes->bits = pages_map(bits_bytes(&planes->layout) + 1);
    planes->cells = pages_map(cells_bytes(&planes->layout) + 1);
    planes->words = calloc(planes->layout.n_words + 1, sizeof *planes->words);
    planes->rows = calloc(PLANES_BATCH * planes->layout.n_frames, sizeof *planes->rows);
    planes->group_pairs = aligned_alloc(64, TTCF_LAG_RANGES_MAX * sizeof *planes->group_pairs);
    if (!planes->bits || !planes->cells || !planes->words || !planes->rows || !planes->group_pairs) {
        planes_end(planes);
        return err_set(err, ERR_SYSTEM, "no memory for planes of %zu frames of %zu pixels", settings->n_frames,
                       planes->layout.n_members * TTCF_GROUP_PIXELS);
    }
    memset(planes->group_pairs, 0, TTCF_LAG_RANGES_MAX * sizeof *planes->group_pairs);
    place_words(planes, settings);
    *ret_planes = planes;
    return 0;
}

void planes_end(struct planes *planes)
{
    if (!planes)
        return;
    if (planes->bits)
        munmap(planes->bits, bits_bytes(&planes->layout) + 1);
    if (planes->cells)
        munmap(planes->cells, cells_bytes(&planes->layout) + 1);
    free(planes->words);
    free(planes->pool);
    free(planes->rows);
    free(planes->group_pairs);
    free(planes);
}

/* ---- photons ------------------------------------------------------------------------------------------------- */

/* The word of a pixel, NULL where it is not in the planes. */
static struct word *word_of(const struct planes *planes, uint32_t pixel)
{
    size_t i = pixel / TTCF_GROUP_PIXELS - planes->layout.first_word; /* a word before the first one: far beyond */
    if (i >= planes->layout.n_words || !(planes->words[i].members >> pixel % TTCF_GROUP_PIXELS & 1))
        return NULL;
    return &planes->words[i];
}

static struct cell *cell_of(const struct planes *planes, const struct word *word, uint32_t pixel)
{
    return &planes->cells[word->first_cell + pixel % TTCF_GROUP_PIXELS];
}

static int move_out(struct planes *planes, struct cell *cell, struct err *err)
{
    if (planes->n_pool >= planes->pool_size) {
        size_t size = planes->pool_size ? 2 * planes->pool_size : POOL_CELLS;
        struct cell *pool = size <= UINT32_MAX ? realloc(planes->pool, size * sizeof *pool) : NULL;
        if (!pool)
            return err_set(err, ERR_SYSTEM,
                           "no memory for more than %.3g photons beyond the first ones of a pixel and frame",
                           (double)planes->n_pool * CELL_PHOTONS);
        planes->pool = pool;
        planes->pool_size = size;
    }
    planes->pool[planes->n_pool] = *cell;
    cell->older = (uint32_t)planes->n_pool++;
    cell->n = 0;
    return 0;
}

static int put_surplus(struct planes *planes, struct cell *cell, size_t frame, uint32_t surplus, struct err *err)
{
    int code = 0;
    for (uint32_t i = 0; i < surplus && code == 0; i++) {
        if (cell->n == CELL_PHOTONS)
            code = move_out(planes, cell, err);
        if (code == 0)
            cell->frame[cell->n++] = (uint16_t)frame;
    }
    return code;
}

int planes_put_photon(struct planes *planes, size_t frame, uint32_t pixel, struct err *err)
{
    struct word *word = word_of(planes, pixel);
    const struct layout *layout = &planes->layout;
    assert(frame < planes->n_frames);
    if (!word)
        return 0;
    uint64_t *bits = planes->bits + word->at + frame * layout->frame_words;
    uint64_t bit = UINT64_C(1) << pixel % TTCF_GROUP_PIXELS;
    int k = 0;
    while (k < planes->n_digits && (bits[(size_t)k * layout->digit_words] & bit)) /* the carry's way */
        k++;
    if (k == planes->n_digits)
        return put_surplus(planes, cell_of(planes, word, pixel), frame, 1, err);
    for (int i = 0; i <= k; i++)
        bits[(size_t)i * layout->digit_words] ^= bit;
    return 0;
}

static void pair_with(const struct cell *cell, uint32_t held, uint32_t *row, const uint8_t *range,
                      uint64_t *group_pairs)
{
    for (size_t i = 0; i < cell->n; i++) {
        ptrdiff_t frame = cell->frame[i];
        row[frame] += held;
        group_pairs[range[-frame]] += held;
    }
}

/* Also brings its words near, before photons come here and there. */
static void clear_frame(struct planes *planes, size_t t)
{
    const struct layout *layout = &planes->layout;
    for (size_t c = 0; c < 2 * layout->n_chunks; c++)
        for (size_t k = 0; k < (size_t)planes->n_digits; k++)
            memset(planes->bits + c * layout->chunk_words + k * layout->digit_words + t * layout->frame_words, 0,
                   layout->frame_words * sizeof *planes->bits);
    memset(planes_row(planes, t), 0, layout->n_frames * sizeof *planes->rows);
}

int planes_add_frame(struct planes *planes, const uint32_t *pixel, const uint8_t *count, size_t n_events,
                     struct planes_surplus *ret_surplus, size_t *ret_n_surplus,
                     uint64_t (*group_pairs)[TTCF_LAG_RANGES_MAX], struct err *err)
{
    size_t t = planes->n_frames++, n_surplus = 0, digit_words = planes->layout.digit_words;
    uint64_t *bits_of_frame = planes->bits + t * planes->layout.frame_words;
    uint32_t *row = planes_row(planes, t), held_max = (UINT32_C(1) << planes->n_digits) - 1;
    const uint8_t *range = planes->range_of_lag + t;
    assert(planes->n_waiting < PLANES_BATCH && t < planes->layout.n_frames);
    planes->n_waiting++;
    clear_frame(planes, t);
    for (size_t i = 0; i < n_events; i++) {
        const struct word *ahead = i + AHEAD < n_events ? word_of(planes, pixel[i + AHEAD]) : NULL;
        const struct word *word = word_of(planes, pixel[i]);
        if (ahead)
            __builtin_prefetch(cell_of(planes, ahead, pixel[i + AHEAD]), 1);
        if (!word)
            continue;
        struct cell *cell = cell_of(planes, word, pixel[i]);
        uint32_t held = count[i] < held_max ? count[i] : held_max;
        uint64_t *of_group = group_pairs[pixel[i] / TTCF_GROUP_PIXELS % TTCF_GROUPS];
        pair_with(cell, held, row, range, of_group);
        for (uint32_t index = cell->older; index; index = planes->pool[index].older)
            pair_with(&planes->pool[index], held, row, range, of_group);
        for (int k = 0; k < planes->n_digits; k++)
            bits_of_frame[word->at + (size_t)k * digit_words] |= (uint64_t)(held >> k & 1)
                                                                 << pixel[i] % TTCF_GROUP_PIXELS;
        if (count[i] <= held_max)
            continue;
        ret_surplus[n_surplus++] = (struct planes_surplus){pixel[i], count[i] - held};
        int code = put_surplus(planes, cell, t, count[i] - held, err);
        if (code)
            return code;
    }
    *ret_n_surplus = n_surplus;
    return 0;
}

void planes_drop_pixel(struct planes *planes, uint32_t pixel)
{
    struct word *word = word_of(planes, pixel);
    if (word)
        word->members &= ~(UINT64_C(1) << pixel % TTCF_GROUP_PIXELS);
}

/* ---- pairs --------------------------------------------------------------------------------------------------- */

uint32_t *planes_row(struct planes *planes, size_t t)
{
    return planes->rows + t % PLANES_BATCH * planes->layout.n_frames;
}

size_t planes_n_waiting(const struct planes *planes) { return planes->n_waiting; }

void planes_count(struct planes *planes, uint64_t (*group_pairs)[TTCF_LAG_RANGES_MAX])
{
    const struct layout *layout = &planes->layout;
    uint64_t(*of_range)[TTCF_GROUPS] = planes->group_pairs;
    for (size_t c = 0; c < 2 * layout->n_chunks && planes->n_waiting; c++) {
        const struct planes_chunk chunk = {.words = planes->bits + c * layout->chunk_words,
                                           .digit_words = layout->digit_words,
                                           .n_rows = layout->chunk_rows,
                                           .n_digits = planes->n_digits,
                                           .first = planes->n_frames - planes->n_waiting,
                                           .end = planes->n_frames,
                                           .range_of_lag = planes->range_of_lag,
                                           .rows = planes->rows,
                                           .row_words = layout->n_frames,
                                           .group_pairs =
                                               (uint64_t(*)[TTCF_GROUPS])(of_range[0] + c % 2 * PLANES_CHUNK_COLUMNS)};
        planes->count_chunk(&chunk);
    }
    for (size_t r = 0; r < TTCF_LAG_RANGES_MAX; r++)
        for (size_t g = 0; g < TTCF_GROUPS; g++) {
            group_pairs[g][r] += of_range[r][g];
            of_range[r][g] = 0;
        }
    planes->n_waiting = 0;
}
