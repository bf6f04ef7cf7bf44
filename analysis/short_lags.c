#include "analysis/short_lags.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD 32 /* events */
#define EVENTS_BEGIN (1u << 16)

/* One event; `before` is the place of the one before it of the same pixel. Places count on and wrap at 2^32. */
struct entry {
    uint32_t pixel, frame, before, count;
};

struct bin {
    uint64_t *pairs;       /* [n_ages][n_lags + 1] */
    uint64_t *group_pairs; /* [n_groups][n_lags + 1] */
    double *products;      /* [n_ages][n_lags + 1] */
    double *rest_products; /* [n_groups][n_lags + 1], of the photons of all but the group's pixels */
    double *photons;       /* [n_groups + 1][n_lags + 1], ring of frames: of all but the group's pixels; last, of all */
};

struct short_lags {
    size_t n_pixels, n_lags, group_pixels;
    int n_bins, n_groups, n_ages;
    size_t *age_first; /* [n_ages + 1] */
    int *age;          /* [n_lags + 1], ring of frames: the slice that each is in */
    uint32_t *newest;  /* [n_pixels], place of its last event, whether it still stands there or not */
    struct entry *ring;
    uint32_t n_ring, next; /* n_ring a power of two; place of the next event */
    uint32_t *first_event; /* [n_lags + 1], ring of frames: place of their first event */
    uint32_t oldest;       /* place of the first event that is within reach */
    size_t t;              /* the present frame */
    struct bin *bins;      /* [n_bins] */
};

static bool allocate_bin(const struct short_lags *lags, struct bin *bin)
{
    size_t n = lags->n_lags + 1, n_ages = (size_t)lags->n_ages, n_groups = (size_t)lags->n_groups;
    bin->pairs = calloc(n_ages * n, sizeof *bin->pairs);
    bin->group_pairs = calloc(n_groups * n, sizeof *bin->group_pairs);
    bin->products = calloc(n_ages * n, sizeof *bin->products);
    bin->rest_products = calloc(n_groups * n, sizeof *bin->rest_products);
    bin->photons = calloc((n_groups + 1) * n, sizeof *bin->photons);
    return bin->pairs && bin->group_pairs && bin->products && bin->rest_products && bin->photons;
}

static bool allocate(struct short_lags *lags, const struct short_lags_settings *settings)
{
    size_t n = lags->n_lags + 1;
    lags->age_first = calloc((size_t)lags->n_ages + 1, sizeof *lags->age_first);
    lags->age = calloc(n, sizeof *lags->age);
    lags->newest = calloc(lags->n_pixels, sizeof *lags->newest);
    lags->ring = malloc(lags->n_ring * sizeof *lags->ring);
    lags->first_event = calloc(n, sizeof *lags->first_event);
    lags->bins = calloc((size_t)lags->n_bins, sizeof *lags->bins);
    bool is_whole = lags->age_first && lags->age && lags->newest && lags->ring && lags->first_event && lags->bins;
    for (int b = 0; is_whole && b < lags->n_bins; b++)
        is_whole = allocate_bin(lags, &lags->bins[b]);
    if (is_whole)
        memcpy(lags->age_first, settings->age_first, ((size_t)lags->n_ages + 1) * sizeof *lags->age_first);
    return is_whole;
}

int short_lags_open(struct short_lags **ret_lags, const struct short_lags_settings *settings, struct err *err)
{
    struct short_lags *lags = calloc(1, sizeof *lags);
    if (lags) {
        *lags = (struct short_lags){.n_pixels = settings->n_pixels,
                                    .n_lags = settings->n_lags,
                                    .group_pixels = settings->group_pixels,
                                    .n_bins = settings->n_bins,
                                    .n_groups = settings->n_groups,
                                    .n_ages = settings->n_ages,
                                    .n_ring = EVENTS_BEGIN};
        if (allocate(lags, settings)) {
            *ret_lags = lags;
            return 0;
        }
    }
    short_lags_close(lags);
    return err_set(err, ERR_SYSTEM, "no memory for the last %zu frames of %zu pixels", settings->n_lags,
                   settings->n_pixels);
}

/* ---- one frame ----------------------------------------------------------------------------------------------- */

static inline struct entry *entry_at(const struct short_lags *lags, uint32_t place)
{
    return &lags->ring[place & (lags->n_ring - 1)];
}

/* Room for n more events: what is within reach moves to a larger ring. */
static int make_room(struct short_lags *lags, size_t n, struct err *err)
{
    uint32_t n_kept = lags->next - lags->oldest;
    if (n_kept + n <= lags->n_ring)
        return 0;
    struct short_lags larger = *lags;
    while (larger.n_ring < n_kept + n)
        larger.n_ring *= 2;
    larger.ring = malloc(larger.n_ring * sizeof *larger.ring);
    if (!larger.ring)
        return err_set(err, ERR_SYSTEM, "no memory for the %zu events of the last %zu frames", n_kept + n,
                       lags->n_lags);
    for (uint32_t place = lags->oldest; place != lags->next; place++)
        *entry_at(&larger, place) = *entry_at(lags, place);
    free(lags->ring);
    *lags = larger;
    return 0;
}

/* Within reach, of the same pixel and before `later`: a place that was given anew holds another event. */
static inline bool is_there(const struct short_lags *lags, uint32_t place, const struct entry *later)
{
    const struct entry *entry = entry_at(lags, place);
    return lags->next - place - 1 < lags->next - lags->oldest && entry->pixel == later->pixel &&
           entry->frame < later->frame;
}

static void pair_up(const struct short_lags *lags, struct bin *bin, const struct entry *entry, uint64_t *group_pairs)
{
    size_t n = lags->n_lags + 1;
    for (const struct entry *later = entry; is_there(lags, later->before, later);) {
        const struct entry *earlier = entry_at(lags, later->before);
        size_t lag = entry->frame - earlier->frame;
        uint64_t pairs = (uint64_t)entry->count * earlier->count;
        bin->pairs[(size_t)lags->age[earlier->frame % n] * n + lag] += pairs;
        group_pairs[lag] += pairs;
        later = earlier;
    }
}

int short_lags_add(struct short_lags *lags, int bin_index, const uint32_t *pixel, const uint8_t *count, size_t n,
                   const uint8_t *bin_of_pixel, struct err *err)
{
    struct bin *bin = &lags->bins[bin_index];
    size_t n_ring = lags->n_lags + 1, now = lags->t % n_ring;
    double all = 0.0;
    int code = make_room(lags, n, err);
    if (code)
        return code;
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n)
            __builtin_prefetch(&lags->newest[pixel[i + AHEAD]], 1);
        if (i + AHEAD / 2 < n)
            __builtin_prefetch(entry_at(lags, lags->newest[pixel[i + AHEAD / 2]]));
        if (bin_of_pixel[pixel[i]] != bin_index + 1 || count[i] == 0)
            continue;
        size_t group = pixel[i] / lags->group_pixels % (size_t)lags->n_groups;
        struct entry *entry = entry_at(lags, lags->next);
        *entry = (struct entry){pixel[i], (uint32_t)lags->t, lags->newest[pixel[i]], count[i]};
        pair_up(lags, bin, entry, bin->group_pairs + group * n_ring);
        lags->newest[pixel[i]] = lags->next++;
        bin->photons[group * n_ring + now] -= count[i];
        all += count[i];
    }
    for (int g = 0; g <= lags->n_groups; g++)
        bin->photons[(size_t)g * n_ring + now] += all;
    return 0;
}

/* products[lag] += photons at the present frame times photons `lag` frames before. */
static void multiply(const struct short_lags *lags, const double *photons, double *products, const int *age)
{
    size_t n = lags->n_lags + 1;
    double present = photons[lags->t % n];
    for (size_t lag = 1; lag < n && lag <= lags->t; lag++) {
        size_t earlier = (lags->t - lag) % n;
        products[(age ? (size_t)age[earlier] * n : 0) + lag] += present * photons[earlier];
    }
}

void short_lags_end_frame(struct short_lags *lags)
{
    size_t n = lags->n_lags + 1, n_groups = (size_t)lags->n_groups;
    for (int b = 0; b < lags->n_bins; b++) {
        struct bin *bin = &lags->bins[b];
        for (size_t g = 0; g < n_groups; g++)
            multiply(lags, bin->photons + g * n, bin->rest_products + g * n, NULL);
        multiply(lags, bin->photons + n_groups * n, bin->products, lags->age);
    }
    lags->t++;
    size_t next = lags->t % n; /* where the frame that now goes out of reach has stood */
    for (int b = 0; b < lags->n_bins; b++)
        for (size_t g = 0; g <= n_groups; g++)
            lags->bins[b].photons[g * n + next] = 0.0;
    lags->first_event[next] = lags->next;
    lags->oldest = lags->t < n ? 0 : lags->first_event[(next + 1) % n];
    int age = lags->age[(lags->t - 1) % n];
    lags->age[next] = age + (age + 1 < lags->n_ages && lags->t >= lags->age_first[age + 1]);
}

/* ---- what came of it ----------------------------------------------------------------------------------------- */

static struct short_lags_sum sum_lags(const uint64_t *pairs, const double *products, size_t first, size_t end)
{
    struct short_lags_sum sum = {0};
    for (size_t lag = first; lag < end; lag++) {
        sum.pairs += (double)pairs[lag];
        sum.products += products[lag];
        sum.lag_products += products[lag] * (double)lag;
    }
    return sum;
}

struct short_lags_sum short_lags_of_age(const struct short_lags *lags, int bin_index, int age, size_t first, size_t end)
{
    const struct bin *bin = &lags->bins[bin_index];
    size_t begin = (size_t)age * (lags->n_lags + 1);
    return sum_lags(bin->pairs + begin, bin->products + begin, first, end);
}

struct short_lags_sum short_lags_of_group(const struct short_lags *lags, int bin_index, int group, size_t first,
                                          size_t end)
{
    const struct bin *bin = &lags->bins[bin_index];
    size_t begin = (size_t)group * (lags->n_lags + 1);
    return sum_lags(bin->group_pairs + begin, bin->rest_products + begin, first, end);
}

void short_lags_close(struct short_lags *lags)
{
    if (!lags)
        return;
    for (int b = 0; lags->bins && b < lags->n_bins; b++) {
        struct bin *bin = &lags->bins[b];
        free(bin->pairs);
        free(bin->group_pairs);
        free(bin->products);
        free(bin->rest_products);
        free(bin->photons);
    }
    free(lags->age_first);
    free(lags->age);
    free(lags->newest);
    free(lags->ring);
    free(lags->first_event);
    free(lags->bins);
    free(lags);
}
