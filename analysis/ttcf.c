#include "analysis/ttcf.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/pages.h"
#include "analysis/ttcf_run.h"

#define RANGES_PER_OCTAVE 10.0
#define POOL_BLOCKS_MAX 65535
#define AHEAD 48      /* events: a line takes longer to come than a dozen walks */
#define AHEAD_OLDER 8 /* by then the line itself has come, and says where the older photons are */
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default"))) /* the same sums, in wider registers */
#define CHOICE_FRAMES 16
/* What the walk takes for a pair, and planes for a photon that they hold: fits to measurements on one machine
 * (docs/benchmarks.md). A choice that they get wrong costs time, and nothing else. */
#define PAIR_NS 1.0
#define PUT_NS 13.0

void ttcf_lags_init(struct ttcf_lags *ret_lags, size_t n_frames)
{
    double ratio = pow(2.0, 1.0 / RANGES_PER_OCTAVE);
    ret_lags->n = 0;
    ret_lags->first[0] = 1;
    for (size_t first = 1; first < n_frames;) {
        size_t end = (size_t)ceil((double)first * ratio);
        end = end <= first ? first + 1 : end > n_frames ? n_frames : end;
        assert(ret_lags->n < TTCF_LAG_RANGES_MAX);
        ret_lags->first[ret_lags->n++] = first;
        ret_lags->first[ret_lags->n] = end;
        first = end;
    }
}

/* ---- the photons of the pixels ------------------------------------------------------------------------------- */

static bool grow_pool(struct ttcf_run *run, uint32_t block)
{
    if (block >= POOL_BLOCKS_MAX)
        return false;
    if (!run->pool[block]) {
        run->pool[block] = pages_map(POOL_BLOCK_LINES * sizeof(struct line));
        if (!run->pool[block])
            return false;
        run->pool[block]->n = 0; /* touched: asking for a line of a page that nobody has touched is slow */
    }
    return true;
}

/* A full line goes into the pool. */
static int move_out(struct ttcf_run *run, struct line *line, struct err *err)
{
    uint32_t index = run->n_pool;
    if (!grow_pool(run, index / POOL_BLOCK_LINES))
        return err_set(err, ERR_SYSTEM, "no memory for more than %.3g photons", (double)index * LINE_PHOTONS);
    run->n_pool++;
    *older_line(run, index) = *line;
    line->older = index;
    line->n = 0;
    return 0;
}

/* ---- one frame ----------------------------------------------------------------------------------------------- */

/* `count` photons of the present frame with each of the `n` photons in a line. */
static inline void pair_with(const struct line *line, size_t n, uint32_t count, uint32_t *row, const uint8_t *range,
                             uint64_t *group_pairs)
{
    for (size_t i = 0; i < n; i++) {
        ptrdiff_t earlier = line->row[i];
        row[earlier] += count;
        group_pairs[range[-earlier]] += count;
    }
}

/* The older photons of the pixels in the present frame, one line of each in turn: so the next one of every pixel is
 * known, and asked for, long before its turn. */
static void walk_older(const struct ttcf_run *run, struct bin *bin, uint32_t *row, size_t n_walks)
{
    const uint8_t *range = run->range_of_lag + run->n_rows;
    while (n_walks > 0) {
        size_t n_left = 0;
        for (size_t i = 0; i < n_walks; i++) {
            struct walk walk = run->walks[i];
            const struct line *line = older_line(run, walk.line);
            if (i + AHEAD < n_walks)
                __builtin_prefetch(older_line(run, run->walks[i + AHEAD].line));
            pair_with(line, LINE_PHOTONS, walk.count, row, range, bin->row_group_pairs[walk.group]);
            walk.line = line->older;
            run->walks[n_left] = walk;
            n_left += walk.line != 0;
        }
        n_walks = n_left;
    }
}

/* Of one frame and bin. */
struct frame_sums {
    size_t photons, squares;
    uint32_t group_photons[TTCF_GROUPS];
};

/* The photons of one event join the earlier ones of their pixel. */
static inline int keep_photons(struct ttcf_run *run, struct line *line, size_t group, uint32_t count,
                               struct frame_sums *sums, struct err *err)
{
    for (uint32_t k = 0; k < count; k++) {
        int code = line->n == LINE_PHOTONS ? move_out(run, line, err) : 0;
        if (code)
            return code;
        line->row[line->n++] = (uint16_t)run->n_rows;
    }
    sums->group_photons[group] += count;
    sums->photons += count;
    sums->squares += (size_t)count * count;
    return 0;
}

static void keep_sums(const struct ttcf_run *run, struct bin *bin, const struct frame_sums *sums)
{
    for (int g = 0; g < TTCF_GROUPS; g++)
        bin->group_photons[(size_t)g * run->n_rows_max + run->n_rows] += sums->group_photons[g];
    bin->photons_per_row[run->n_rows] += (double)sums->photons;
    bin->row_squares += sums->squares;
    bin->n_photons += sums->photons;
}

/* The pairs of the present frame's photons, in row t, with all earlier ones of the same pixels, and with themselves: n
 * events, behind which stand pixels of the next bin, n_ahead in all. Lines are asked for ahead, those of the next bin
 * too; so are, as soon as a line has come, the older photons that it names (line 0 of the pool, always near, where
 * there are none). That stands here and not in a function: gcc takes one that only asks for memory for one that does
 * nothing. */
static int walk_back(struct ttcf_run *run, struct bin *bin, size_t n, size_t n_ahead, struct err *err)
{
    const uint32_t *pixel = run->pixel + bin->first_event;
    const uint8_t *count = run->count + bin->first_event, *range = run->range_of_lag + run->n_rows;
    uint32_t *row = bin->row;
    struct walk *walks = run->walks;
    struct frame_sums sums = {0};
    size_t n_walks = 0;
    for (size_t i = 0; bin->number == 1 && i < n && i < AHEAD; i++) /* the first have nobody ahead of them */
        __builtin_prefetch(&run->lines[pixel[i]], 1);
    for (size_t i = 0; i < n; i++) {
        struct line *line = &run->lines[pixel[i]];
        size_t group = pixel[i] / TTCF_GROUP_PIXELS % TTCF_GROUPS;
        if (i + AHEAD < n_ahead)
            __builtin_prefetch(&run->lines[pixel[i + AHEAD]], 1);
        if (i + AHEAD_OLDER < n_ahead)
            __builtin_prefetch(older_line(run, run->lines[pixel[i + AHEAD_OLDER]].older));
        if (line->bin != bin->number)
            continue; /* in none */
        pair_with(line, line->n, count[i], row, range, bin->row_group_pairs[group]);
        if (line->older)
            walks[n_walks++] = (struct walk){line->older, count[i], (uint8_t)group};
        int code = keep_photons(run, line, group, count[i], &sums, err);
        if (code)
            return code;
    }
    walk_older(run, bin, row, n_walks);
    keep_sums(run, bin, &sums);
    return 0;
}

/* The sums of the row's counts, squared: of the frames themselves, and twice of each two of them. No cell of a row is
 * above the largest such number (Cauchy and Schwarz). */
static int check_row(const struct ttcf_run *run, const struct bin *bin, const uint32_t *row, struct err *err)
{
    double squares = 2.0 * row[run->n_rows] + (double)bin->row_squares;
    if (squares <= UINT32_MAX)
        return 0;
    return err_set(err, ERR_LIMIT,
                   "frame %zu: its counts squared sum to %.3g, above %.3g: too bright for photon correlation; "
                   "mask the brightest pixels or attenuate the beam",
                   run->n_frames + 1, squares, (double)UINT32_MAX);
}

/* The row's last frame is in. */
static void complete_row(const struct ttcf_run *run, struct bin *bin, uint32_t *row)
{
    size_t t = run->n_rows;
    double photons = bin->photons_per_row[t];
    row[t] = 2 * row[t] + (uint32_t)bin->row_squares;
    bin->row_squares = 0;
    bin->inverse[t] = photons > 0.0 ? 1.0 / photons : 0.0;
    for (int g = 0; bin->row_group_pairs != bin->group_pairs && g < TTCF_GROUPS; g++)
        for (size_t r = 0; r <= run->lags.n; r++) {
            bin->group_pairs[g][r] += bin->row_group_pairs[g][r];
            bin->row_group_pairs[g][r] = 0;
        }
}

/* Here C(t1, t2) is normalised: <I(t1) I(t2)>_p / (<I(t1)>_p <I(t2)>_p) = pairs * n_pixels / (photons1 * photons2). A
 * row without photons has C = 0 in the sums, where it is not counted. */
WIDE static void fold_row(const struct ttcf_run *run, struct bin *bin, size_t t2)
{
    ptrdiff_t t1 = 0, last = (ptrdiff_t)t2;
    double scale = (double)bin->n_pixels_begun * bin->inverse[t2];
    double *restrict sum_c = bin->sum_c + t2;
    const double *restrict inverse = bin->inverse;
    uint32_t *restrict row = bin->row;
    float *restrict row_c = run->c;
    for (int a = 0; a < run->n_ages; a++) {
        uint64_t *restrict pairs = bin->pairs + (size_t)a * run->n_rows_max + t2;
        ptrdiff_t end = (ptrdiff_t)run->age_first[a + 1] <= last ? (ptrdiff_t)run->age_first[a + 1] : last + 1;
        for (; t1 < end; t1++) {
            double c = row[t1] * scale * inverse[t1];
            pairs[-t1] += row[t1];
            sum_c[-t1] += c;
            row_c[t1] = (float)c;
            row[t1] = 0;
        }
    }
}

WIDE static void map_row(const struct ttcf_run *run, struct bin *bin, size_t t2)
{
    size_t binning = run->map_binning, line = t2 / binning;
    size_t n_cells = t2 + (binning == 1); /* shot noise only where a cell is one row */
    if (line >= run->map_n)
        return;
    double *sum = bin->map_sum + line * run->map_n;
    for (size_t t1 = 0, cell = 0; t1 < n_cells; t1 += binning, cell++) {
        size_t end = t1 + binning < n_cells ? t1 + binning : n_cells;
        double c = 0.0;
        for (size_t k = t1; k < end; k++)
            c += (double)run->c[k];
        sum[cell] += c;
    }
}

static void keep_row(const struct ttcf_run *run, struct bin *bin, size_t t2)
{
    float *row = bin->matrix + t2 * (t2 + 1) / 2;
    memcpy(row, run->c, (t2 + 1) * sizeof *row);
    for (size_t t1 = 0; t1 <= t2; t1++)
        if (bin->inverse[t1] == 0.0 || bin->inverse[t2] == 0.0)
            row[t1] = NAN;
}

/* The pairs of row t2 are in bin->row. */
static void take_row(const struct ttcf_run *run, struct bin *bin, size_t t2)
{
    fold_row(run, bin, t2);
    map_row(run, bin, t2);
    if (bin->matrix)
        keep_row(run, bin, t2);
}

static inline uint8_t bin_of(const struct ttcf_run *run, uint32_t pixel)
{
    struct block block = run->blocks[pixel / BLOCK_PIXELS];
    if (block.change == BLOCK_MIXED)
        return run->bin_of_pixel[pixel];
    return pixel % BLOCK_PIXELS < block.change ? block.first : block.second;
}

/* The frame's events to their bins; ret_n [n_bins + 1], how many each has. With one bin nothing need be looked up: its
 * lines know. */
static void sort_events(struct ttcf_run *run, const struct event_frame *frame, size_t *ret_n)
{
    size_t next[TTCF_BINS_MAX + 1] = {0}, next_bright = 0;
    bool is_single = run->n_bins == 1;
    for (int b = 1; b <= run->n_bins; b++)
        next[b] = run->bins[b - 1].first_event;
    for (size_t i = 0; i < frame->n_events; i++) {
        uint32_t pixel = event_pixel(frame, i), count = event_count(frame, i, &next_bright);
        uint8_t bin = is_single ? 1 : bin_of(run, pixel);
        if (bin == 0)
            continue;
        if (count > TTCF_COUNT_MAX) {
            run->is_bright[pixel] = 1;
            count = 0;
        }
        run->pixel[next[bin]] = pixel;
        run->count[next[bin]++] = (uint8_t)count;
    }
    for (int b = 1; b <= run->n_bins; b++)
        ret_n[b] = next[b] - run->bins[b - 1].first_event;
}

/* Behind a bin's events, so that their lines are on the way when its turn comes; returns how many. */
static size_t put_next_pixels(struct ttcf_run *run, int b, const size_t *n)
{
    if (b == run->n_bins)
        return 0;
    size_t n_next = n[b + 1] < AHEAD ? n[b + 1] : AHEAD;
    memcpy(run->pixel + run->bins[b - 1].first_event + n[b], run->pixel + run->bins[b].first_event,
           n_next * sizeof *run->pixel);
    return n_next;
}

/* ---- bit planes for bright bins ------------------------------------------------------------------------------ */

/* Photons that the planes do not hold walk back. */
static void walk_surplus(struct ttcf_run *run, struct bin *bin, uint32_t *row, size_t n)
{
    const struct planes_surplus *surplus = run->surplus;
    size_t n_walks = 0;
    for (size_t i = 0; i < n; i++) {
        const struct line *line = &run->lines[surplus[i].pixel];
        size_t group = surplus[i].pixel / TTCF_GROUP_PIXELS % TTCF_GROUPS;
        __builtin_prefetch(&run->lines[surplus[i + AHEAD < n ? i + AHEAD : i].pixel]);
        pair_with(line, line->n, surplus[i].photons, row, run->range_of_lag + run->n_rows, bin->group_pairs[group]);
        if (line->older)
            run->walks[n_walks++] = (struct walk){line->older, (uint8_t)surplus[i].photons, (uint8_t)group};
    }
    walk_older(run, bin, row, n_walks);
}

/* What walk_back does, for a bin that has planes. */
static int add_to_planes(struct ttcf_run *run, struct bin *bin, size_t n, struct err *err)
{
    const uint32_t *pixel = run->pixel + bin->first_event;
    const uint8_t *count = run->count + bin->first_event;
    struct frame_sums sums = {0};
    size_t n_surplus = 0;
    int code = planes_add_frame(bin->planes, pixel, count, n, run->surplus, &n_surplus, bin->group_pairs, err);
    if (code == 0)
        walk_surplus(run, bin, planes_row(bin->planes, run->n_rows), n_surplus);
    for (size_t i = 0; i < n && code == 0; i++) {
        struct line *line = &run->lines[pixel[i]];
        __builtin_prefetch(&run->lines[pixel[i + AHEAD < n ? i + AHEAD : i]], 1);
        if (line->bin == bin->number)
            code = keep_photons(run, line, pixel[i] / TTCF_GROUP_PIXELS % TTCF_GROUPS, count[i], &sums, err);
    }
    keep_sums(run, bin, &sums);
    return code;
}

void ttcf_take_waiting_rows(const struct ttcf_run *run, struct bin *bin)
{
    size_t n = bin->planes ? planes_n_waiting(bin->planes) : 0;
    if (n)
        planes_count(bin->planes, bin->group_pairs);
    for (size_t t2 = run->n_frames - n; t2 < run->n_frames; t2++) {
        memcpy(run->row, planes_row(bin->planes, t2), (t2 + 1) * sizeof *run->row);
        take_row(run, bin, t2);
    }
}

/* After 16 frames, 32, 64 and on. */
static bool is_time_to_choose(size_t n_frames) { return n_frames >= CHOICE_FRAMES && (n_frames & (n_frames - 1)) == 0; }

/* The share of a bin's pairs so far that planes of 1 to PLANES_DIGITS_MAX digits leave to the walk: of n photons of a
 * pixel, s beyond what they hold, n^2 - (n - s)^2 of n^2. */
static void measure_surplus(const struct ttcf_run *run, const struct bin *bin, double *ret_share)
{
    double all = 0.0, left[PLANES_DIGITS_MAX + 1] = {0.0};
    for (size_t p = 0; p < run->n_pixels; p++) {
        double n = 0.0, surplus[PLANES_DIGITS_MAX + 1] = {0.0};
        if (run->bin_of_pixel[p] != bin->number)
            continue;
        int frame = -1, count = 0;
        for (const struct line *line = &run->lines[p]; line; line = next_line(run, line))
            for (size_t i = line->n; i-- > 0; n++) { /* from the newest photon back */
                count = line->row[i] == frame ? count + 1 : 1;
                frame = line->row[i];
                for (int k = 1; k <= PLANES_DIGITS_MAX && count >> k; k++)
                    surplus[k]++;
            }
        all += n * n;
        for (int k = 1; k <= PLANES_DIGITS_MAX; k++)
            left[k] += n * n - (n - surplus[k]) * (n - surplus[k]);
    }
    for (int k = 1; k <= PLANES_DIGITS_MAX; k++)
        ret_share[k] = all > 0.0 ? left[k] / all : 0.0;
}

static size_t size_of(struct planes_size size, int n_digits)
{
    return size.other_bytes + (size_t)n_digits * size.digit_bytes;
}

static bool has_room(const struct ttcf_run *run, struct planes_size size, int n_digits)
{
    return size_of(size, n_digits) <= run->planes_bytes_max - run->planes_bytes;
}

/* Digits of the planes that cost least for the frames to come, 0: the walk does. They are taken to be like those so
 * far. */
static int choose_digits(const struct ttcf_run *run, const struct bin *bin, struct planes_settings settings)
{
    double n = (double)run->n_frames, n_end = (double)run->n_frames_max, so_far = n * (n - 1.0) / 2.0;
    double to_come = n_end * (n_end - 1.0) / 2.0 - so_far, photons = (double)bin->n_photons, pairs = 0.0;
    for (int a = 0; a < run->n_ages; a++)
        for (size_t lag = 1; lag < run->n_frames; lag++)
            pairs += (double)bin->pairs[(size_t)a * run->n_rows_max + lag];
    pairs *= to_come / so_far;
    double put_ns = photons * n_end / n * PUT_NS, share[PLANES_DIGITS_MAX + 1];
    double cheapest_ns = run->counting == TTCF_PLANES ? INFINITY : pairs * PAIR_NS;
    int n_digits = 0;
    settings.n_digits = 1; /* in no more rows than its pixels need: without a look at any */
    if (put_ns + planes_cost_ns(&settings, bin->n_pixels / (TTCF_GROUPS * TTCF_GROUP_PIXELS), to_come) > cheapest_ns)
        return 0;
    struct planes_size size = planes_measure(&settings);
    measure_surplus(run, bin, share);
    for (settings.n_digits = 1; settings.n_digits <= PLANES_DIGITS_MAX; settings.n_digits++) {
        double surplus_ns = share[settings.n_digits] * pairs * PAIR_NS;
        double ns = put_ns + planes_cost_ns(&settings, size.n_rows, to_come) + surplus_ns;
        if (ns < cheapest_ns && has_room(run, size, settings.n_digits)) {
            cheapest_ns = ns;
            n_digits = settings.n_digits;
        }
    }
    return n_digits;
}

/* The frames so far go into planes. Without memory for them the walk goes on. */
static void begin_planes(struct ttcf_run *run, struct bin *bin, const struct planes_settings *settings)
{
    struct planes_size size = planes_measure(settings);
    if (!has_room(run, size, settings->n_digits) || planes_begin(&bin->planes, settings, NULL) != 0)
        return;
    int code = 0;
    for (size_t p = 0; p < run->n_pixels; p++)
        for (const struct line *line = run->bin_of_pixel[p] == bin->number ? &run->lines[p] : NULL; line;
             line = next_line(run, line))
            for (size_t i = 0; i < line->n && code == 0; i++)
                code = planes_put_photon(bin->planes, line->row[i], (uint32_t)p, NULL);
    if (code) {
        planes_end(bin->planes);
        bin->planes = NULL;
        return;
    }
    bin->n_digits = settings->n_digits;
    run->planes_bytes += size_of(size, settings->n_digits);
}

static void choose_planes(struct ttcf_run *run)
{
    for (int b = 0; b < run->n_bins; b++) {
        struct bin *bin = &run->bins[b];
        struct planes_settings settings = {.n_frames = run->n_frames_max,
                                           .n_frames_before = run->n_frames,
                                           .n_pixels = run->n_pixels,
                                           .bin_of_pixel = run->bin_of_pixel,
                                           .bin = bin->number,
                                           .range_of_lag = run->range_of_lag,
                                           .path = planes_best_path()};
        if (bin->planes || bin->n_pixels == 0 || run->counting == TTCF_LISTS)
            continue;
        if (run->counting == TTCF_PLANES)
            settings.path = (enum planes_path)run->planes_path;
        settings.n_digits = run->n_digits ? run->n_digits : choose_digits(run, bin, settings);
        if (settings.n_digits)
            begin_planes(run, bin, &settings);
    }
}

int ttcf_add_frame(struct ttcf_run *run, const struct event_frame *frame, struct err *err)
{
    size_t n[TTCF_BINS_MAX + 1];
    if (run->n_frames == run->n_frames_max)
        return err_set(err, ERR_LIMIT, "more frames than the %zu that were expected", run->n_frames_max);
    bool is_row_whole = (run->n_frames + 1) % run->frames_per_row == 0;
    sort_events(run, frame, n);
    for (int b = 1; b <= run->n_bins; b++) {
        struct bin *bin = &run->bins[b - 1];
        int code = bin->planes ? add_to_planes(run, bin, n[b], err)
                               : walk_back(run, bin, n[b], n[b] + put_next_pixels(run, b, n), err);
        uint32_t *row = bin->planes ? planes_row(bin->planes, run->n_rows) : bin->row;
        if (code == 0)
            code = check_row(run, bin, row, err);
        if (code == 0 && run->short_lags)
            code = short_lags_add(run->short_lags, b - 1, run->pixel + bin->first_event, run->count + bin->first_event,
                                  n[b], run->bin_of_pixel, err);
        if (code)
            return code;
        if (is_row_whole)
            complete_row(run, bin, row);
        if (is_row_whole && !bin->planes)
            take_row(run, bin, run->n_rows);
    }
    if (run->short_lags)
        short_lags_end_frame(run->short_lags);
    run->n_frames++;
    run->n_rows += is_row_whole;
    for (int b = 0; b < run->n_bins; b++)
        if (run->bins[b].planes && planes_n_waiting(run->bins[b].planes) == PLANES_BATCH)
            ttcf_take_waiting_rows(run, &run->bins[b]);
    if (!run->short_lags && is_time_to_choose(run->n_frames))
        choose_planes(run);
    return 0;
}

int ttcf_n_digits(const struct ttcf_run *run, int bin) { return run->bins[bin - 1].n_digits; }

/* ---- memory -------------------------------------------------------------------------------------------------- */

static bool allocate_bin(struct ttcf_run *run, int b, bool with_matrix)
{
    struct bin *bin = &run->bins[b];
    size_t n = run->n_rows_max;
    bin->number = b + 1;
    bin->row = run->short_lags ? run->row + (size_t)b * n : run->row;
    bin->photons_per_row = calloc(n, sizeof *bin->photons_per_row);
    bin->inverse = calloc(n, sizeof *bin->inverse);
    bin->pairs = calloc((size_t)run->n_ages * n, sizeof *bin->pairs);
    bin->sum_c = calloc(n, sizeof *bin->sum_c);
    bin->map_sum = calloc(run->map_n * run->map_n + 1, sizeof *bin->map_sum);
    bin->group_photons = calloc(TTCF_GROUPS * n, sizeof *bin->group_photons);
    bin->group_pairs = calloc(TTCF_GROUPS, sizeof *bin->group_pairs);
    bin->row_group_pairs = run->short_lags ? calloc(TTCF_GROUPS, sizeof *bin->row_group_pairs) : bin->group_pairs;
    bin->matrix = with_matrix ? malloc(ttcf_matrix_bytes(n)) : NULL;
    return bin->photons_per_row && bin->inverse && bin->pairs && bin->sum_c && bin->map_sum && bin->group_photons &&
           bin->group_pairs && bin->row_group_pairs && (!with_matrix || bin->matrix);
}

size_t ttcf_matrix_bytes(size_t n_rows) { return n_rows * (n_rows + 1) / 2 * sizeof(float); }

static bool allocate_run(struct ttcf_run *run, const struct ttcf_settings *settings)
{
    size_t n = run->n_pixels;
    run->bin_of_pixel = malloc(n);
    run->blocks = calloc(n / BLOCK_PIXELS + 1, sizeof *run->blocks);
    run->photons = calloc(n, sizeof *run->photons);
    run->is_bright = calloc(n, 1);
    run->range_of_lag = malloc(run->n_rows_max);
    run->bins = calloc((size_t)run->n_bins, sizeof *run->bins);
    run->profiles = calloc((size_t)run->n_bins, sizeof *run->profiles);
    run->lines = pages_map(n * sizeof *run->lines);
    run->pool = calloc(POOL_BLOCKS_MAX, sizeof *run->pool);
    run->pixel = malloc((n + (size_t)run->n_bins * AHEAD) * sizeof *run->pixel);
    run->count = malloc(n + (size_t)run->n_bins * AHEAD);
    run->walks = malloc(n * sizeof *run->walks);
    run->surplus = malloc(n * sizeof *run->surplus);
    run->row = calloc(run->n_rows_max * (run->short_lags ? (size_t)run->n_bins : 1), sizeof *run->row);
    run->c = calloc(run->n_rows_max, sizeof *run->c);
    if (settings->part_of_pixel)
        run->part_of_pixel = malloc(n * sizeof *run->part_of_pixel);
    if (settings->sensitivity)
        run->sensitivity = malloc(n * sizeof *run->sensitivity);
    bool is_whole = (run->part_of_pixel || !settings->part_of_pixel) && (run->sensitivity || !settings->sensitivity) &&
                    run->bin_of_pixel && run->blocks && run->photons && run->is_bright && run->range_of_lag &&
                    run->bins && run->profiles && run->lines && run->pool && run->pixel && run->count && run->walks &&
                    run->surplus && run->row && run->c && grow_pool(run, 0);
    size_t n_matrices = settings->with_matrix ? TTCF_BINS_MAX : 0;
    if (settings->with_matrix && settings->matrix_bytes_max)
        n_matrices = settings->matrix_bytes_max / ttcf_matrix_bytes(run->n_rows_max);
    for (int b = 0; is_whole && b < run->n_bins; b++)
        is_whole = allocate_bin(run, b, (size_t)b < n_matrices);
    return is_whole;
}

static struct block describe_block(const uint8_t *bin_of_pixel, size_t n)
{
    struct block block = {.change = (uint8_t)n, .first = bin_of_pixel[0], .second = bin_of_pixel[n - 1]};
    size_t n_changes = 0;
    for (size_t i = 1; i < n; i++)
        if (bin_of_pixel[i] != bin_of_pixel[i - 1]) {
            n_changes++;
            block.change = (uint8_t)i;
        }
    if (n_changes > 1)
        block.change = BLOCK_MIXED;
    return block;
}

/* Bins and parts of the pixels, ranges of the lags, slices of the waiting time. */
static void set_tables(struct ttcf_run *run, const struct ttcf_settings *settings)
{
    memcpy(run->bin_of_pixel, settings->bin_of_pixel, run->n_pixels);
    if (run->part_of_pixel)
        memcpy(run->part_of_pixel, settings->part_of_pixel, run->n_pixels * sizeof *run->part_of_pixel);
    if (run->sensitivity)
        memcpy(run->sensitivity, settings->sensitivity, run->n_pixels * sizeof *run->sensitivity);
    for (size_t p = 0; p < run->n_pixels; p++) {
        run->lines[p].bin = run->bin_of_pixel[p];
        if (run->bin_of_pixel[p] == 0)
            continue;
        assert(!run->part_of_pixel || (run->part_of_pixel[p] >= 1 && run->part_of_pixel[p] <= run->n_parts));
        run->bins[run->bin_of_pixel[p] - 1].n_pixels++;
        run->bins[run->bin_of_pixel[p] - 1].n_pixels_begun++;
    }
    for (size_t p = 0; p < run->n_pixels; p += BLOCK_PIXELS) {
        size_t n = run->n_pixels - p < BLOCK_PIXELS ? run->n_pixels - p : BLOCK_PIXELS;
        run->blocks[p / BLOCK_PIXELS] = describe_block(run->bin_of_pixel + p, n);
    }
    for (int b = 1; b < run->n_bins; b++)
        run->bins[b].first_event = run->bins[b - 1].first_event + run->bins[b - 1].n_pixels_begun + AHEAD;
    run->range_of_lag[0] = (uint8_t)run->lags.n;
    for (size_t r = 0; r < run->lags.n; r++)
        memset(run->range_of_lag + run->lags.first[r], (int)r, run->lags.first[r + 1] - run->lags.first[r]);
}

/* As many frames per row as there must be; where rows are sums, the lags that they cannot tell. */
static int plan_rows(struct ttcf_run *run, size_t frames_per_row, struct err *err)
{
    size_t n_frames = run->n_frames_max, age_first[TTCF_AGES_MAX + 1];
    size_t per_row = frames_per_row ? frames_per_row : (n_frames + TTCF_ROWS_MAX - 1) / TTCF_ROWS_MAX;
    run->frames_per_row = per_row;
    run->n_rows_max = (n_frames + per_row - 1) / per_row;
    run->map_binning = (run->n_rows_max + TTCF_MAP_MAX - 1) / TTCF_MAP_MAX;
    run->map_n = run->n_rows_max / run->map_binning;
    ttcf_lags_init(&run->lags, run->n_rows_max);
    for (int a = 0; a <= run->n_ages; a++) {
        run->age_first[a] = (size_t)a * run->n_rows_max / (size_t)run->n_ages;
        age_first[a] = run->age_first[a] * per_row;
    }
    assert(run->lags.n < TTCF_LAG_RANGES_MAX); /* lag 0 has a place behind them */
    if (per_row == 1)
        return 0;
    while (run->coarse_range < run->lags.n && run->lags.first[run->coarse_range] < TTCF_ROWS_COARSE)
        run->coarse_range++;
    const struct short_lags_settings settings = {.n_pixels = run->n_pixels,
                                                 .n_lags = run->lags.first[run->coarse_range] * per_row - 1,
                                                 .group_pixels = TTCF_GROUP_PIXELS,
                                                 .n_bins = run->n_bins,
                                                 .n_groups = TTCF_GROUPS,
                                                 .n_ages = run->n_ages,
                                                 .age_first = age_first};
    return short_lags_open(&run->short_lags, &settings, err);
}

int ttcf_begin(struct ttcf_run **ret_run, const struct ttcf_settings *settings, struct err *err)
{
    size_t n_frames = settings->n_frames;
    if (n_frames < 2 || n_frames > TTCF_FRAMES_MAX)
        return err_set(err, ERR_ARG, "%zu frames: a correlation needs 2 to %d", n_frames, TTCF_FRAMES_MAX);
    assert(settings->n_bins >= 1 && settings->n_bins <= TTCF_BINS_MAX);
    assert(settings->n_ages >= 0 && settings->n_ages <= TTCF_AGES_MAX);
    assert(settings->frames_per_row == 0 || n_frames <= settings->frames_per_row * TTCF_ROWS_MAX);
    struct ttcf_run *run = calloc(1, sizeof *run);
    assert(run);
    *run = (struct ttcf_run){.n_frames_max = n_frames,
                             .n_pixels = settings->n_pixels,
                             .n_bins = settings->n_bins,
                             .n_parts = settings->part_of_pixel ? settings->n_parts : settings->n_bins,
                             .n_ages = settings->n_ages ? settings->n_ages : 1,
                             .n_pool = 1,
                             .counting = settings->counting,
                             .planes_path = settings->planes_path,
                             .n_digits = settings->n_digits,
                             .planes_bytes_max = settings->planes_bytes_max};
    if (run->planes_bytes_max == 0)
        run->planes_bytes_max = pages_available() / 2;
    int code = plan_rows(run, settings->frames_per_row, err);
    if (code) {
        ttcf_end(run);
        return code;
    }
    if (!allocate_run(run, settings)) {
        ttcf_end(run);
        return err_set(err, ERR_SYSTEM, "no memory to correlate %zu frames of %zu pixels in %d bins", n_frames,
                       settings->n_pixels, settings->n_bins);
    }
    set_tables(run, settings);
    size_t n_pixels = 0;
    for (int b = 0; b < run->n_bins; b++)
        n_pixels += run->bins[b].n_pixels;
    if (n_pixels == 0) {
        ttcf_end(run);
        return err_set(err, ERR_ARG, "0 valid pixels in any bin: nothing to correlate; check the mask");
    }
    *ret_run = run;
    return 0;
}

void ttcf_end(struct ttcf_run *run)
{
    if (!run)
        return;
    for (int b = 0; run->bins && b < run->n_bins; b++) {
        struct bin *bin = &run->bins[b];
        void *const memory[] = {bin->photons_per_row, bin->inverse,       bin->pairs,       bin->sum_c,
                                bin->map_sum,         bin->group_photons, bin->group_pairs, bin->matrix};
        if (bin->row_group_pairs != bin->group_pairs)
            free(bin->row_group_pairs);
        for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
            free(memory[i]);
        planes_end(bin->planes);
    }
    for (size_t block = 0; run->pool && block < POOL_BLOCKS_MAX && run->pool[block]; block++)
        munmap(run->pool[block], POOL_BLOCK_LINES * sizeof(struct line));
    if (run->lines)
        munmap(run->lines, run->n_pixels * sizeof *run->lines);
    void *const memory[] = {run->bin_of_pixel, run->blocks,    run->part_of_pixel, run->sensitivity,
                            run->photons,      run->is_bright, run->range_of_lag,  run->bins,
                            run->profiles,     run->pool,      run->pixel,         run->count,
                            run->row,          run->c,         run->walks,         run->surplus};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
    short_lags_close(run->short_lags);
    free(run);
}
