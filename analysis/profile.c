#include "analysis/profile.h"

#include <stdbool.h>
#include <stdlib.h>

struct part {
    uint8_t bin;
    size_t n_pixels[TTCF_GROUPS], n_photons;
    double sensitivity[TTCF_GROUPS], squares[TTCF_GROUPS]; /* sums over its pixels */
};

static size_t part_pixels(const struct part *part)
{
    size_t n = 0;
    for (int g = 0; g < TTCF_GROUPS; g++)
        n += part->n_pixels[g];
    return n;
}

static double sum_of_groups(const double sums[TTCF_GROUPS])
{
    double sum = 0.0;
    for (int g = 0; g < TTCF_GROUPS; g++)
        sum += sums[g];
    return sum;
}

/* [n_parts + 1], by number; free. */
static int measure_parts(const struct profile_pixels *pixels, struct part **ret_parts, struct err *err)
{
    struct part *parts = calloc((size_t)pixels->n_parts + 1, sizeof *parts);
    if (!parts)
        return err_set(err, ERR_SYSTEM, "no memory for the profile of %d parts", pixels->n_parts);
    for (size_t p = 0; p < pixels->n_pixels; p++) {
        if (pixels->bin[p] == 0)
            continue;
        struct part *part = &parts[profile_part(pixels, p)];
        size_t group = p / TTCF_GROUP_PIXELS % TTCF_GROUPS;
        double sensitivity = pixels->sensitivity ? (double)pixels->sensitivity[p] : 1.0;
        part->bin = pixels->bin[p];
        part->n_pixels[group]++;
        part->sensitivity[group] += sensitivity;
        part->squares[group] += sensitivity * sensitivity;
        part->n_photons += pixels->photons ? pixels->photons[p] : 0;
    }
    *ret_parts = parts;
    return 0;
}

/* Sums over the pixels of a bin: all of them, then without each group. */
struct sums {
    double n[1 + TTCF_GROUPS], w[1 + TTCF_GROUPS], w_squared[1 + TTCF_GROUPS];
};

/* Each pixel's w is the mean intensity of its part, photons over sensitivities, times its own sensitivity. */
static void add_part(const struct part *part, struct sums *sums)
{
    double n = (double)part_pixels(part), photons = (double)part->n_photons;
    double all = sum_of_groups(part->sensitivity), all_squares = sum_of_groups(part->squares);
    for (int g = 0; g <= TTCF_GROUPS && n > 0.0; g++) {
        sums->n[g] += n - (g ? (double)part->n_pixels[g - 1] : 0.0);
        sums->w[g] += photons / all * (all - (g ? part->sensitivity[g - 1] : 0.0));
        sums->w_squared[g] +=
            photons * (photons - 1.0) / (all * all) * (all_squares - (g ? part->squares[g - 1] : 0.0));
    }
}

static struct profile conclude(const struct sums *sums, bool is_flat)
{
    struct profile profile;
    double unbiased = sums->w[0] > 0.0 ? (sums->w[0] - 1.0) / sums->w[0] : 0.0; /* the square of the sum, likewise */
    for (int g = 0; g <= TTCF_GROUPS; g++) {
        bool is_known = !is_flat && sums->w_squared[g] > 0.0;
        double n = is_known ? sums->w[g] * sums->w[g] * unbiased / sums->w_squared[g] : sums->n[g];
        *(g ? &profile.n_effective_without[g - 1] : &profile.n_effective) = n;
    }
    return profile;
}

int profile_measure(const struct profile_pixels *pixels, struct profile *ret_profiles, struct err *err)
{
    struct part *parts;
    struct sums *sums = calloc((size_t)pixels->n_bins, sizeof *sums);
    int code = sums ? measure_parts(pixels, &parts, err)
                    : err_set(err, ERR_SYSTEM, "no memory for the profile of %d bins", pixels->n_bins);
    if (code == 0) {
        for (int k = 1; k <= pixels->n_parts; k++)
            if (parts[k].bin > 0)
                add_part(&parts[k], &sums[parts[k].bin - 1]);
        for (int b = 0; b < pixels->n_bins; b++)
            ret_profiles[b] = conclude(&sums[b], !pixels->part && !pixels->sensitivity);
        free(parts);
    }
    free(sums);
    return code;
}

int profile_mark_dead(const struct profile_pixels *pixels, uint8_t *ret_is_dead, struct err *err)
{
    struct part *parts;
    int code = measure_parts(pixels, &parts, err);
    if (code)
        return code;
    for (size_t p = 0; p < pixels->n_pixels; p++) {
        ret_is_dead[p] = 0;
        if (pixels->bin[p] == 0 || pixels->photons[p] > 0)
            continue;
        const struct part *part = &parts[profile_part(pixels, p)];
        ret_is_dead[p] = part->n_photons >= TTCF_DEAD_MEAN * part_pixels(part);
    }
    free(parts);
    return 0;
}
