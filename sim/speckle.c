#include "sim/speckle.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/random.h"

#define N_QUADS 2
#define N_MODES (4 * N_QUADS)
#define STATIC_AMPLITUDE 0.1f /* b = 1 + 0.1 (|E_static|^2 - 1): variance 0.01 (1 - 1/M) */
#define FREQUENCY_MAX 1e4     /* turns per unit of theta: beyond, float has no phase left; decorrelated long before */

/* Four modes at a time: a vector that every processor of the family has. */
typedef float quad __attribute__((vector_size(4 * sizeof(float))));
typedef int32_t quad_bits __attribute__((vector_size(4 * sizeof(int32_t))));

struct pixel_modes {         /* one cache line */
    quad frequency[N_QUADS]; /* turns per unit of internal time */
    quad phase[N_QUADS];     /* turns */
};

struct candidate {
    uint32_t pixel;
    float level; /* uniform below the ceiling of the intensity */
};

struct speckle {
    size_t n_pixels;
    double photons_per_pixel;
    float amplitude;
    uint64_t seed;
    struct random random;
    uint8_t *is_masked;
    float *background;         /* [n_pixels], (1 - amplitude) b */
    struct pixel_modes *modes; /* [n_pixels] */
    struct candidate *candidates;
    size_t n_candidates_max;
};

/* ---- the field of one pixel ---------------------------------------------------------------------------------- */

/* Symmetric stable law of index beta with characteristic function exp(-|t|^beta). */
static double random_stable(struct random *random, double beta)
{
    double angle = M_PI * (random_uniform(random) - 0.5), wait = -log(random_uniform(random));
    return sin(beta * angle) / pow(cos(angle), 1 / beta) * pow(cos((1 - beta) * angle) / wait, (1 - beta) / beta);
}

/* cos(2 pi x) for |x| < 2^21, error below 1e-5: reduced to the nearest turn, folded to a quarter, odd polynomial. */
static inline quad cos_turns(quad x)
{
    const float shift = 0x1.8p23f; /* adding and subtracting rounds to the nearest integer */
    x -= (x + shift) - shift;
    quad y = 0.25f - (quad)((quad_bits)x & 0x7fffffff);
    quad z = y * y;
    return y * (6.2831853f + z * (-41.341702f + z * (81.605249f + z * (-76.705859f + z * 42.058693f))));
}

/* |E|^2 at internal time theta. */
static inline float field_intensity(const struct pixel_modes *modes, float theta)
{
    quad re = {0}, im = {0};
    for (int i = 0; i < N_QUADS; i++) {
        quad turns = modes->frequency[i] * theta + modes->phase[i];
        re += cos_turns(turns);
        im += cos_turns(turns - 0.25f);
    }
    float sum_re = (re[0] + re[1]) + (re[2] + re[3]), sum_im = (im[0] + im[1]) + (im[2] + im[3]);
    return (sum_re * sum_re + sum_im * sum_im) / N_MODES;
}

static void draw_phases(struct pixel_modes *modes, struct random *random)
{
    for (int k = 0; k < N_MODES; k++)
        modes->phase[k / 4][k % 4] = (float)random_uniform(random);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* The largest intensity a pixel can have: both speckles with all their modes in phase. */
static float intensity_ceiling(float amplitude)
{
    return (1 - amplitude) * (1 + STATIC_AMPLITUDE * (N_MODES - 1)) + amplitude * N_MODES;
}

static void draw_background(struct speckle *speckle)
{
    struct random random = {speckle->seed ^ UINT64_C(0x7374617469632121)};
    for (size_t i = 0; i < speckle->n_pixels; i++) {
        struct pixel_modes fixed = {0};
        draw_phases(&fixed, &random);
        float b = 1 + STATIC_AMPLITUDE * (field_intensity(&fixed, 0) - 1);
        speckle->background[i] = (1 - speckle->amplitude) * b;
    }
}

int speckle_open(struct speckle **ret_speckle, const struct speckle_settings *settings, struct err *err)
{
    const struct speckle_settings *s = settings;
    if (s->width < 8 || s->height < 8 || s->width > 4096 || s->height > 4096)
        return err_set(err, ERR_ARG, "speckle of %d x %d pixels refused: 8 to 4096 each", s->width, s->height);
    if (!(s->photons_per_pixel > 0 && s->photons_per_pixel <= 1) || !(s->amplitude >= 0 && s->amplitude <= 1))
        return err_set(err, ERR_ARG, "speckle with %g photons per pixel and amplitude %g refused: (0, 1] and [0, 1]",
                       s->photons_per_pixel, s->amplitude);
    struct speckle *speckle = calloc(1, sizeof *speckle);
    assert(speckle);
    speckle->n_pixels = (size_t)s->width * (size_t)s->height;
    speckle->photons_per_pixel = s->photons_per_pixel;
    speckle->amplitude = (float)s->amplitude;
    speckle->seed = s->seed;
    /* Mean plus ten standard deviations at flux 1: a Poisson number never gets there. */
    double mean = (double)speckle->n_pixels * s->photons_per_pixel * (double)intensity_ceiling(speckle->amplitude);
    speckle->n_candidates_max = (size_t)(mean + 10 * sqrt(mean) + 64);
    speckle->candidates = malloc(speckle->n_candidates_max * sizeof *speckle->candidates);
    speckle->is_masked = calloc(speckle->n_pixels, 1);
    speckle->background = malloc(speckle->n_pixels * sizeof *speckle->background);
    speckle->modes = aligned_alloc(64, speckle->n_pixels * sizeof *speckle->modes);
    assert(speckle->candidates && speckle->is_masked && speckle->background && speckle->modes);
    if (s->is_masked)
        memcpy(speckle->is_masked, s->is_masked, speckle->n_pixels);
    draw_background(speckle);
    speckle_start_scan(speckle, 1.6, 0);
    *ret_speckle = speckle;
    return 0;
}

void speckle_close(struct speckle *speckle)
{
    if (!speckle)
        return;
    free(speckle->candidates);
    free(speckle->is_masked);
    free(speckle->background);
    free(speckle->modes);
    free(speckle);
}

void speckle_start_scan(struct speckle *speckle, double beta, uint64_t scan_index)
{
    beta = fmin(fmax(beta, 0.5), 2.0);
    struct random random = {speckle->seed};
    random.state = random_bits(&random) ^ (scan_index * UINT64_C(0xd1342543de82ef95));
    for (size_t i = 0; i < speckle->n_pixels; i++) {
        struct pixel_modes *modes = &speckle->modes[i];
        draw_phases(modes, &random);
        for (int k = 0; k < N_MODES; k++) {
            double frequency = random_stable(&random, beta) / (2 * M_PI);
            modes->frequency[k / 4][k % 4] = (float)fmin(fmax(frequency, -FREQUENCY_MAX), FREQUENCY_MAX);
        }
    }
    speckle->random = random;
}

int speckle_events_max(const struct speckle *speckle) { return (int)speckle->n_candidates_max; }

double speckle_contrast(const struct speckle *speckle)
{
    double a = (double)speckle->amplitude;
    return a * a * (1 - 1.0 / N_MODES);
}

double speckle_baseline(const struct speckle *speckle)
{
    double spread = (1 - (double)speckle->amplitude) * (double)STATIC_AMPLITUDE;
    return spread * spread * (1 - 1.0 / N_MODES);
}

/* ---- photons ------------------------------------------------------------------------------------------------- */

/* A Poisson process along the pixels at the ceiling's rate: exponential gaps, so the candidates come out sorted. */
static size_t draw_candidates(struct speckle *speckle, double rate, float ceiling)
{
    size_t n = 0;
    double position = 0, gap = -1 / rate;
    struct random random = speckle->random;
    for (; n < speckle->n_candidates_max; n++) {
        uint64_t bits = random_bits(&random);
        position += gap * (double)logf(((float)(bits >> 40) + 0.5f) * 0x1p-24f);
        if (!(position < (double)speckle->n_pixels))
            break;
        uint32_t pixel = (uint32_t)position;
        speckle->candidates[n] = (struct candidate){pixel, ceiling * (float)(bits & 0xffffff) * 0x1p-24f};
    }
    speckle->random = random;
    return n;
}

int speckle_draw_frame(struct speckle *speckle, double theta, double flux, struct speckle_event *ret_events, int n_max)
{
    if (!(flux > 0))
        return 0;
    float ceiling = intensity_ceiling(speckle->amplitude);
    float dynamic_max = speckle->amplitude * N_MODES;
    size_t n = draw_candidates(speckle, speckle->photons_per_pixel * flux * (double)ceiling, ceiling);
    if (n == speckle->n_candidates_max)
        return ERR_FULL;
    int n_events = 0;
    uint32_t last = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        /* Pixels are visited in order but far apart: fetch ahead what the cache cannot guess. */
        __builtin_prefetch(&speckle->modes[speckle->candidates[i + 8 < n ? i + 8 : i].pixel]);
        uint32_t pixel = speckle->candidates[i].pixel;
        float level = speckle->candidates[i].level - speckle->background[pixel];
        if (speckle->is_masked[pixel] || level >= dynamic_max)
            continue;
        if (level >= 0 && level >= speckle->amplitude * field_intensity(&speckle->modes[pixel], (float)theta))
            continue;
        if (pixel != last) {
            if (n_events == n_max)
                return ERR_FULL;
            ret_events[n_events++] = (struct speckle_event){pixel, 0};
            last = pixel;
        }
        ret_events[n_events - 1].count++;
    }
    return n_events;
}
