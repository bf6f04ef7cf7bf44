#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/ttcf_run.h"

#define BRIGHT_SHARE 0.01 /* of a bin's pixels with more than TTCF_COUNT_MAX photons: then it is not a few hot ones */
#define AHEAD_PIXELS 16

/* Asks for the older photons of a pixel that a walk over all pixels will soon come to. */
static inline void prefetch_older(const struct ttcf_run *run, size_t pixel)
{
    size_t ahead = pixel + AHEAD_PIXELS < run->n_pixels ? pixel + AHEAD_PIXELS : pixel;
    __builtin_prefetch(older_line(run, run->lines[ahead].older));
}

/* ---- photons, hot pixels ------------------------------------------------------------------------------------- */

/* Photons of every pixel so far, [n_pixels], from one walk over the lines for all who ask; 0 where it is in no bin. */
const uint32_t *ttcf_photons(struct ttcf_run *run)
{
    if (run->n_frames_counted == run->n_frames)
        return run->photons;
    for (size_t p = 0; p < run->n_pixels; p++) {
        prefetch_older(run, p);
        run->photons[p] = 0;
        for (const struct line *line = &run->lines[p]; line; line = next_line(run, line))
            run->photons[p] += line->n;
    }
    run->n_frames_counted = run->n_frames;
    return run->photons;
}

/* A hot pixel lifts the mean that it is measured by: again without it, until none is found any more. */
size_t ttcf_find_hot(struct ttcf_run *run, uint8_t *ret_is_hot)
{
    const uint32_t *photons = ttcf_photons(run);
    size_t n[TTCF_BINS_MAX + 1] = {0}, sum[TTCF_BINS_MAX + 1] = {0}, n_hot = 0;
    for (size_t p = 0; p < run->n_pixels; p++) {
        uint8_t bin = run->bin_of_pixel[p];
        ret_is_hot[p] = bin && run->is_bright[p];
        n_hot += ret_is_hot[p];
        n[bin] += !ret_is_hot[p];
        sum[bin] += ret_is_hot[p] ? 0 : photons[p];
    }
    for (bool is_new = true; is_new;) {
        is_new = false;
        for (size_t p = 0; p < run->n_pixels; p++) {
            uint8_t bin = run->bin_of_pixel[p];
            if (bin == 0 || ret_is_hot[p] || photons[p] <= TTCF_HOT_PHOTONS ||
                photons[p] * n[bin] <= TTCF_HOT_MEANS * sum[bin])
                continue;
            ret_is_hot[p] = is_new = true;
            n_hot++;
            n[bin]--;
            sum[bin] -= photons[p];
        }
    }
    return n_hot;
}

/* ---- the profile of the mean intensity ----------------------------------------------------------------------- */

/* What analysis/profile needs; photons only where there is a profile, or `with_photons`. */
static struct profile_pixels gather_pixels(struct ttcf_run *run, bool with_photons)
{
    bool is_counted = with_photons || run->part_of_pixel || run->sensitivity;
    return (struct profile_pixels){.n_pixels = run->n_pixels,
                                   .bin = run->bin_of_pixel,
                                   .part = run->part_of_pixel,
                                   .sensitivity = run->sensitivity,
                                   .photons = is_counted ? ttcf_photons(run) : NULL,
                                   .n_bins = run->n_bins,
                                   .n_parts = run->n_parts};
}

int ttcf_drop_dead(struct ttcf_run *run, uint8_t *ret_is_dead, size_t *ret_n, struct err *err)
{
    struct profile_pixels pixels = gather_pixels(run, true);
    int code = profile_mark_dead(&pixels, ret_is_dead, err);
    if (code)
        return code;
    *ret_n = 0;
    for (size_t p = 0; p < run->n_pixels; p++) {
        if (!ret_is_dead[p])
            continue;
        struct bin *bin = &run->bins[run->bin_of_pixel[p] - 1];
        bin->n_pixels--;
        if (bin->planes)
            planes_drop_pixel(bin->planes, (uint32_t)p);
        run->bin_of_pixel[p] = run->lines[p].bin = 0;
        run->blocks[p / BLOCK_PIXELS].change = BLOCK_MIXED;
        (*ret_n)++;
    }
    run->n_frames_profiled = 0;
    return 0;
}

void ttcf_count_segments(const struct ttcf_run *run, uint64_t *ret_photons)
{
    size_t n_parts = (size_t)run->n_parts;
    size_t n_rows = (run->n_frames + run->frames_per_row - 1) / run->frames_per_row;
    uint8_t segment[TTCF_ROWS_MAX];
    for (size_t t = 0; t < n_rows; t++)
        segment[t] = (uint8_t)(t * TTCF_SEGMENTS / n_rows);
    memset(ret_photons, 0, TTCF_SEGMENTS * n_parts * sizeof *ret_photons);
    for (size_t p = 0; p < run->n_pixels; p++) {
        prefetch_older(run, p);
        if (run->bin_of_pixel[p] == 0)
            continue;
        uint32_t n[TTCF_SEGMENTS] = {0};
        for (const struct line *line = &run->lines[p]; line; line = next_line(run, line))
            for (size_t i = 0; i < line->n; i++)
                n[segment[line->row[i]]]++;
        uint64_t *of_part = ret_photons + (run->part_of_pixel ? run->part_of_pixel[p] : run->bin_of_pixel[p]) - 1;
        for (size_t s = 0; s < TTCF_SEGMENTS; s++)
            of_part[s * n_parts] += n[s];
    }
}

static const struct profile *profile_of(const struct ttcf_run *run, const struct bin *bin)
{
    return &run->profiles[bin->number - 1];
}

/* Once for all bins. */
static int measure_profiles(struct ttcf_run *run, struct err *err)
{
    if (run->n_frames_profiled == run->n_frames)
        return 0;
    struct profile_pixels pixels = gather_pixels(run, false);
    int code = profile_measure(&pixels, run->profiles, err);
    if (code == 0)
        run->n_frames_profiled = run->n_frames;
    return code;
}

/* ---- the result ---------------------------------------------------------------------------------------------- */

/* In frames: first those that are counted frame by frame, then those that rows tell. */
static void list_lags(const struct ttcf_run *run, struct ttcf *ttcf)
{
    struct ttcf_lags *lags = &ttcf->lags;
    size_t end = run->lags.first[run->coarse_range] * run->frames_per_row;
    ttcf_lags_init(lags, run->short_lags ? (end < run->n_frames ? end : run->n_frames) : 0);
    ttcf->n_short = lags->n;
    for (size_t r = run->coarse_range; r < run->lags.n && run->lags.first[r] < run->n_rows; r++) {
        size_t row_end = run->lags.first[r + 1] < run->n_rows ? run->lags.first[r + 1] : run->n_rows;
        lags->first[lags->n++] = run->lags.first[r] * run->frames_per_row;
        lags->first[lags->n] = row_end * run->frames_per_row;
    }
}

/* sum over t of x[t] x[t + lag], exact for whole numbers; four sums at a time, which may be added in any order. */
static double autocorrelation(const double *x, size_t n, size_t lag)
{
    double sum[4] = {0.0};
    size_t t = 0;
    for (; t + lag + 3 < n; t += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += x[t + k] * x[t + k + lag];
    for (; t + lag < n; t++)
        sum[0] += x[t] * x[t + lag];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

/* Pairs of rows `lag` apart of which both have photons. */
static double filled_pairs(const struct ttcf *ttcf, size_t lag)
{
    size_t n = 0;
    if (ttcf->n_empty_rows == 0)
        return (double)(ttcf->n_rows - lag);
    for (size_t t = 0; t + lag < ttcf->n_rows; t++)
        n += ttcf->photons_per_row[t] > 0.0 && ttcf->photons_per_row[t + lag] > 0.0;
    return (double)n;
}

/* sum over the first rows t of one slice of the waiting time of x[t] x[t + lag]. */
static double age_autocorrelation(const struct ttcf *ttcf, int age, size_t lag)
{
    size_t first = ttcf->age_first[age] / ttcf->frames_per_row, end = ttcf->age_first[age + 1] / ttcf->frames_per_row;
    size_t n = ttcf->n_rows;
    if (first + lag >= n)
        return 0.0;
    return autocorrelation(ttcf->photons_per_row + first, (end + lag < n ? end + lag : n) - first, lag);
}

static void add_range(struct ttcf_range *range, double pairs, double pairs_expected, double lag_expected)
{
    range->pairs += pairs;
    range->pairs_expected += pairs_expected;
    range->lag += lag_expected;
}

/* Every lag in rows, and the ranges of lags that rows can tell: `range` stands at lag 1. */
static void finish_lags(const struct ttcf_run *run, struct ttcf *ttcf, const struct bin *bin)
{
    double n_effective = profile_of(run, bin)->n_effective, scale = n_effective / (double)bin->n_pixels_begun;
    size_t first_coarse = run->lags.first[run->coarse_range], shift = ttcf->n_short - run->coarse_range;
    for (size_t lag = 0; lag < ttcf->n_rows; lag++) {
        size_t r = lag >= first_coarse ? shift + run->range_of_lag[lag] : 0;
        double n = filled_pairs(ttcf, lag);
        ttcf->pairs[lag] = ttcf->pairs_expected[lag] = 0.0;
        for (int a = 0; a < ttcf->n_ages; a++) {
            double pairs = (double)bin->pairs[(size_t)a * run->n_rows_max + lag];
            double expected = age_autocorrelation(ttcf, a, lag) / n_effective;
            ttcf->pairs[lag] += pairs;
            ttcf->pairs_expected[lag] += expected;
            if (lag >= first_coarse)
                add_range(&ttcf->age[a][r], pairs, expected, 0.0);
        }
        if (lag >= first_coarse)
            add_range(&ttcf->range[r], ttcf->pairs[lag], ttcf->pairs_expected[lag],
                      ttcf->pairs_expected[lag] * (double)(lag * ttcf->frames_per_row));
        ttcf->g2[lag] = ttcf->pairs_expected[lag] > 0.0 ? ttcf->pairs[lag] / ttcf->pairs_expected[lag] : NAN;
        ttcf->g2_mean[lag] = n > 0.0 ? bin->sum_c[lag] * scale / n : NAN;
    }
}

/* sum over the lags from first to end - 1, and over t, of x[t] x[t + lag]; until [n + 1]: sums of x before t. */
static double range_autocorrelation(const double *x, const double *until, size_t n, size_t first, size_t end)
{
    double sum = 0.0;
    for (size_t t = 0; t + first < n; t++)
        sum += x[t] * (until[t + end < n ? t + end : n] - until[t + first]);
    return sum;
}

/* Without the pixels of one group: pairs, and the pairs expected of what the others have. */
static void leave_out(const struct ttcf_run *run, const struct bin *bin, struct ttcf *ttcf, size_t group, double *rest,
                      double *until)
{
    size_t n = ttcf->n_rows, shift = ttcf->n_short - run->coarse_range;
    double n_pixels = profile_of(run, bin)->n_effective_without[group];
    until[0] = 0.0;
    for (size_t t = 0; t < n; t++) {
        rest[t] = ttcf->photons_per_row[t] - bin->group_photons[group * run->n_rows_max + t];
        until[t + 1] = until[t] + rest[t];
    }
    for (size_t r = ttcf->n_short; r < ttcf->lags.n; r++) {
        size_t first = ttcf->lags.first[r] / ttcf->frames_per_row, end = ttcf->lags.first[r + 1] / ttcf->frames_per_row;
        ttcf->without[group][r].pairs = ttcf->range[r].pairs - (double)bin->group_pairs[group][r - shift];
        if (n_pixels > 0.0)
            ttcf->without[group][r].pairs_expected = range_autocorrelation(rest, until, n, first, end) / n_pixels;
    }
}

/* The ranges of lags that rows cannot tell. */
static void finish_short_lags(const struct ttcf_run *run, struct ttcf *ttcf, const struct bin *bin)
{
    const struct profile *profile = profile_of(run, bin);
    for (size_t r = 0; r < ttcf->n_short; r++) {
        size_t first = ttcf->lags.first[r], end = ttcf->lags.first[r + 1];
        for (int a = 0; a < ttcf->n_ages; a++) {
            struct short_lags_sum sum = short_lags_of_age(run->short_lags, bin->number - 1, a, first, end);
            double expected = sum.products / profile->n_effective;
            add_range(&ttcf->age[a][r], sum.pairs, expected, 0.0);
            add_range(&ttcf->range[r], sum.pairs, expected, sum.lag_products / profile->n_effective);
        }
        for (int g = 0; g < TTCF_GROUPS; g++) {
            struct short_lags_sum sum = short_lags_of_group(run->short_lags, bin->number - 1, g, first, end);
            ttcf->without[g][r].pairs = ttcf->range[r].pairs - sum.pairs;
            if (profile->n_effective_without[g] > 0.0)
                ttcf->without[g][r].pairs_expected = sum.products / profile->n_effective_without[g];
        }
    }
}

static void finish_map(const struct ttcf_run *run, const struct bin *bin, struct ttcf *ttcf)
{
    size_t n = ttcf->map_n, binning = ttcf->map_binning;
    double filled[TTCF_MAP_MAX] = {0.0}, scale = profile_of(run, bin)->n_effective / (double)bin->n_pixels_begun;
    for (size_t t = 0; t < n * binning; t++)
        filled[t / binning] += ttcf->photons_per_row[t] > 0.0;
    for (size_t t2 = 0; t2 < n; t2++)
        for (size_t t1 = 0; t1 <= t2; t1++) {
            bool is_square = t1 < t2 || binning == 1;
            double n_cells = is_square ? filled[t1] * filled[t2] : filled[t1] * (filled[t1] - 1.0) / 2.0;
            double sum = bin->map_sum[t2 * run->map_n + t1];
            ttcf->map[t1 * n + t2] = n_cells > 0.0 ? (float)(sum * scale / n_cells) : NAN;
        }
}

/* Handed over. The sums were made with as many pixels as there were at the beginning, and without a profile. */
static void finish_matrix(const struct ttcf_run *run, struct bin *bin, struct ttcf *ttcf)
{
    double scale = profile_of(run, bin)->n_effective / (double)bin->n_pixels_begun;
    size_t n_cells = bin->matrix ? ttcf->n_rows * (ttcf->n_rows + 1) / 2 : 0;
    ttcf->matrix = bin->matrix;
    bin->matrix = NULL;
    for (size_t i = 0; scale != 1.0 && i < n_cells; i++)
        ttcf->matrix[i] = (float)((double)ttcf->matrix[i] * scale);
}

static int allocate_result(struct ttcf *ttcf, struct err *err)
{
    size_t n = ttcf->n_rows;
    ttcf->photons_per_row = calloc(n, sizeof(double));
    ttcf->g2 = calloc(n, sizeof(double));
    ttcf->g2_mean = calloc(n, sizeof(double));
    ttcf->pairs = calloc(n, sizeof(double));
    ttcf->pairs_expected = calloc(n, sizeof(double));
    ttcf->age = calloc((size_t)ttcf->n_ages, sizeof *ttcf->age);
    ttcf->map = calloc(ttcf->map_n * ttcf->map_n + 1, sizeof(float));
    if (ttcf->photons_per_row && ttcf->g2 && ttcf->g2_mean && ttcf->pairs && ttcf->pairs_expected && ttcf->age &&
        ttcf->map)
        return 0;
    ttcf_free(ttcf);
    return err_set(err, ERR_SYSTEM, "no memory for the correlation of %zu frames", ttcf->n_frames);
}

static int check_result(const struct ttcf_run *run, int bin, struct err *err)
{
    size_t n_bright = 0;
    for (size_t p = 0; p < run->n_pixels; p++)
        n_bright += run->is_bright[p] && run->bin_of_pixel[p] == bin;
    if ((double)n_bright > BRIGHT_SHARE * (double)run->bins[bin - 1].n_pixels)
        return err_set(err, ERR_LIMIT,
                       "%zu of %zu pixels had more than %d photons in a frame: too bright for photon correlation; mask "
                       "the brightest pixels or attenuate the beam",
                       n_bright, run->bins[bin - 1].n_pixels, TTCF_COUNT_MAX);
    if (run->n_rows < 2)
        return err_set(err, ERR_DATA, "%zu frames: a correlation needs %zu", run->n_frames, 2 * run->frames_per_row);
    if (run->bins[bin - 1].n_photons == 0)
        return err_set(err, ERR_DATA, "no photons in %zu frames of %zu valid pixels: nothing to correlate",
                       run->n_frames, run->bins[bin - 1].n_pixels);
    return 0;
}

/* What `bin` has of the frames so far, without map and matrix. */
static struct ttcf outline(const struct ttcf_run *run, const struct bin *bin)
{
    struct ttcf ttcf = {.n_frames = run->n_frames,
                        .frames_per_row = run->frames_per_row,
                        .n_rows = run->n_rows,
                        .n_pixels = bin->n_pixels,
                        .n_photons = bin->n_photons,
                        .n_pixels_effective = profile_of(run, bin)->n_effective,
                        .n_ages = run->n_ages,
                        .map_binning = run->map_binning,
                        .map_n = run->n_rows / run->map_binning};
    for (int a = 0; a <= run->n_ages; a++) {
        size_t first = run->age_first[a] * run->frames_per_row;
        ttcf.age_first[a] = first < run->n_frames ? first : run->n_frames;
    }
    list_lags(run, &ttcf);
    return ttcf;
}

/* The sums of lags become means. */
static void finish_ranges(struct ttcf *ttcf)
{
    for (size_t r = 0; r < ttcf->lags.n; r++)
        ttcf->range[r].lag /= ttcf->range[r].pairs_expected; /* NaN where none are expected */
}

int ttcf_result(struct ttcf_run *run, int bin_number, bool is_last, struct ttcf *ret_ttcf, struct err *err)
{
    assert(bin_number >= 1 && bin_number <= run->n_bins);
    struct bin *bin = &run->bins[bin_number - 1];
    size_t n = run->n_rows;
    int code = check_result(run, bin_number, err);
    if (code == 0)
        code = measure_profiles(run, err);
    if (code)
        return code;
    ttcf_take_waiting_rows(run, bin);
    struct ttcf ttcf = outline(run, bin);
    double *work = malloc((2 * n + 1) * sizeof *work);
    code = work ? allocate_result(&ttcf, err) : err_set(err, ERR_SYSTEM, "no memory for %zu frames", run->n_frames);
    if (code == 0) {
        memcpy(ttcf.photons_per_row, bin->photons_per_row, n * sizeof(double));
        for (size_t t = 0; t < n; t++)
            ttcf.n_empty_rows += ttcf.photons_per_row[t] == 0.0;
        finish_short_lags(run, &ttcf, bin);
        finish_lags(run, &ttcf, bin);
        for (size_t g = 0; g < TTCF_GROUPS; g++)
            leave_out(run, bin, &ttcf, g, work, work + n);
        finish_ranges(&ttcf);
        finish_map(run, bin, &ttcf);
        if (is_last)
            finish_matrix(run, bin, &ttcf);
        *ret_ttcf = ttcf;
    }
    free(work);
    return code;
}

static void join_lags(const struct ttcf *bin, struct ttcf *joined)
{
    for (size_t t = 0; t < joined->n_rows; t++) {
        joined->photons_per_row[t] += bin->photons_per_row[t];
        joined->pairs[t] += bin->pairs[t];
        joined->pairs_expected[t] += bin->pairs_expected[t];
        if (bin->pairs_expected[t] > 0.0)
            joined->g2_mean[t] += bin->g2_mean[t] * bin->pairs_expected[t];
    }
    for (size_t r = 0; r < joined->lags.n; r++) {
        const struct ttcf_range *range = &bin->range[r];
        if (range->pairs_expected > 0.0)
            add_range(&joined->range[r], range->pairs, range->pairs_expected, range->lag * range->pairs_expected);
        for (int a = 0; a < joined->n_ages; a++)
            add_range(&joined->age[a][r], bin->age[a][r].pairs, bin->age[a][r].pairs_expected, 0.0);
        for (int g = 0; g < TTCF_GROUPS; g++)
            add_range(&joined->without[g][r], bin->without[g][r].pairs, bin->without[g][r].pairs_expected, 0.0);
    }
}

int ttcf_join(const struct ttcf *bins, int n_bins, struct ttcf *ret_ttcf, struct err *err)
{
    struct ttcf joined = {.n_frames = bins[0].n_frames,
                          .frames_per_row = bins[0].frames_per_row,
                          .n_rows = bins[0].n_rows,
                          .n_ages = bins[0].n_ages,
                          .lags = bins[0].lags};
    memcpy(joined.age_first, bins[0].age_first, sizeof joined.age_first);
    int code = allocate_result(&joined, err);
    if (code)
        return code;
    for (int b = 0; b < n_bins; b++) {
        joined.n_pixels += bins[b].n_pixels;
        joined.n_photons += bins[b].n_photons;
        joined.n_pixels_effective += bins[b].n_pixels_effective;
        join_lags(&bins[b], &joined);
    }
    finish_ranges(&joined);
    for (size_t t = 0; t < joined.n_rows; t++) {
        joined.n_empty_rows += joined.photons_per_row[t] == 0.0;
        joined.g2[t] = joined.pairs_expected[t] > 0.0 ? joined.pairs[t] / joined.pairs_expected[t] : NAN;
        joined.g2_mean[t] = joined.pairs_expected[t] > 0.0 ? joined.g2_mean[t] / joined.pairs_expected[t] : NAN;
    }
    *ret_ttcf = joined;
    return 0;
}

void ttcf_free(struct ttcf *ttcf)
{
    free(ttcf->photons_per_row);
    free(ttcf->g2);
    free(ttcf->g2_mean);
    free(ttcf->pairs);
    free(ttcf->pairs_expected);
    free(ttcf->age);
    free(ttcf->map);
    free(ttcf->matrix);
    *ttcf = (struct ttcf){0};
}
