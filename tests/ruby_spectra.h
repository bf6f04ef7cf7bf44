/*
 * Ruby spectra drawn at random for tests of the fit: lines, pixels, noise and faults of wide ranges, by nothing that
 * the fit or the simulator is made of. Seeded: the same `chance` gives the same spectrum.
 */
#ifndef TESTS_RUBY_SPECTRA_H
#define TESTS_RUBY_SPECTRA_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define SPECTRA_N_MAX 4096
#define ADC_MAX 65535.0

enum spectra_kind {
    KIND_CLEAN,
    KIND_OTHER_SHAPE, /* sums of a Lorentz and a Gauss line of different widths: real lines are not pseudo-Voigt */
    KIND_STRAINED,    /* wide, and split as ruby under shear */
    KIND_SPIKES,
    KIND_SATURATED,
    KIND_MISSING, /* fluorescence of the anvil, noise, cosmic rays, fringes; no line */
    KIND_WINDOW,  /* ends in the doublet */
    KIND_ONE_LINE,
    KIND_CURVED,         /* fluorescence of the anvil, up to five times the line */
    KIND_FRINGES,        /* up to 0.5 % of the light */
    KIND_STRONG_FRINGES, /* 0.5 to 5 %: told, not held to the goal, because one spectrum cannot show them */
    KIND_UNRESOLVED,
    KIND_FAINT,
    KIND_STATED_FRINGES, /* the same 0.5 to 5 %, of a spectrometer that is known to have them */
    KIND_COUNT
};

static const char *const SPECTRA_NAMES[KIND_COUNT] = {
    "clean",    "other_shape", "strained", "spikes",         "saturated",  "missing", "window",
    "one_line", "curved",      "fringes",  "strong_fringes", "unresolved", "faint",   "stated_fringes"};

/* ---- chance -------------------------------------------------------------------------------------------------- */

static uint64_t chance; /* the state of everything drawn here; not 0 */

static inline double uniform(double from, double to)
{
    chance ^= chance << 13; /* xorshift64*: Vigna, ACM Trans. Math. Softw. 42, 30 (2016) */
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return from + (to - from) * (double)((chance * UINT64_C(0x2545f4914f6cdd1d)) >> 11) * 0x1p-53;
}

static inline double log_uniform(double from, double to) { return from * exp(uniform(0, 1) * log(to / from)); }

static inline double normal(void) /* Marsaglia's polar method; the other half of the pair would be a second state */
{
    double a, b, s;
    do {
        a = uniform(-1, 1);
        b = uniform(-1, 1);
        s = a * a + b * b;
    } while (s >= 1 || s == 0);
    return a * sqrt(-2 * log(s) / s);
}

static inline double poisson(double mean)
{
    if (mean > 60)
        return fmax(0, rint(mean + sqrt(mean) * normal()));
    double limit = exp(-mean), product = uniform(0, 1);
    int n = 0;
    for (; product > limit; n++)
        product *= uniform(0, 1);
    return n;
}

/* ---- spectra ------------------------------------------------------------------------------------------------- */

struct spectra_scene {
    double nm_min, nm_max, step_nm;
    double r1_nm, splitting_nm, fwhm_nm[2], eta[2], height[2]; /* photons; R1, R2 */
    double gauss_ratio;                                        /* width of the Gauss part over that of the Lorentz */
    double background, slope_per_nm;
    double hump, hump_nm, hump_nm_sigma;
    double fringe, fringe_nm, fringe_phase;
    double read_noise, gain;
    double clip, clip_noise;
    int n_spikes;
};

static inline void spectra_draw_scene(struct spectra_scene *s, enum spectra_kind kind)
{
    *s = (struct spectra_scene){.step_nm = log_uniform(0.02, 0.08), .gauss_ratio = 1, .clip = ADC_MAX};
    s->r1_nm = uniform(693.8, 700);
    s->splitting_nm = uniform(1.40, 1.46);
    s->fwhm_nm[0] = uniform(0.5, 0.75);
    s->fwhm_nm[1] = s->fwhm_nm[0] * uniform(0.8, 1);
    s->eta[0] = uniform(0.4, 1);
    s->eta[1] = uniform(0.4, 1);
    s->height[0] = log_uniform(300, 40000);
    s->height[1] = s->height[0] * uniform(0.5, 0.8);
    s->background = s->height[0] * log_uniform(0.01, 1);
    s->slope_per_nm = uniform(-0.02, 0.02);
    s->nm_min = s->r1_nm - uniform(4, 8);
    s->nm_max = s->r1_nm + uniform(3, 8);
    s->read_noise = log_uniform(1, 30);
    s->gain = uniform(0.5, 1.5);
    double top = (s->height[0] + s->background) * s->gain;
    if (kind == KIND_STRAINED) {
        s->fwhm_nm[0] = uniform(0.75, 1.3);
        s->fwhm_nm[1] = s->fwhm_nm[0] * uniform(0.8, 1);
        s->splitting_nm = uniform(1.33, 1.53);
    } else if (kind == KIND_OTHER_SHAPE) {
        s->gauss_ratio = uniform(0.8, 1.25);
    } else if (kind == KIND_SPIKES) {
        s->n_spikes = 1 + (int)uniform(0, 5);
    } else if (kind == KIND_SATURATED) {
        s->clip = top * uniform(0.2, 0.95);
        s->clip_noise = uniform(0, 1) < 0.5 ? 0 : log_uniform(1e-4, 1e-2);
    } else if (kind == KIND_MISSING) {
        s->background = s->height[0];
        s->height[0] = s->height[1] = 0;
        s->n_spikes = (int)uniform(0, 5);
    } else if (kind == KIND_WINDOW) {
        if (uniform(0, 1) < 0.5)
            s->nm_min = s->r1_nm + uniform(-2.5, 1.5);
        else
            s->nm_max = s->r1_nm + uniform(-2.5, 1);
    } else if (kind == KIND_ONE_LINE) {
        s->height[1] = 0;
        s->fwhm_nm[0] = uniform(0.3, 1.2);
    } else if (kind == KIND_UNRESOLVED) {
        s->step_nm = log_uniform(0.08, 1);
        s->nm_min -= 20;
        s->nm_max += 20;
        s->gauss_ratio = uniform(0.8, 1.25);
    } else if (kind == KIND_FAINT) {
        double factor = log_uniform(1, 100) / s->height[0];
        s->height[0] *= factor;
        s->height[1] *= factor;
        s->background *= factor;
    }
    if (kind == KIND_CURVED || (kind == KIND_MISSING && uniform(0, 1) < 0.5)) {
        s->hump = (s->height[0] + (kind == KIND_MISSING) * s->background) * log_uniform(0.1, 5);
        s->hump_nm_sigma = log_uniform(4, 40) / 2.355;
        s->hump_nm = s->r1_nm + 2 * s->hump_nm_sigma * uniform(-1, 1);
    }
    if (kind == KIND_FRINGES || kind == KIND_STRONG_FRINGES || kind == KIND_STATED_FRINGES ||
        (kind == KIND_MISSING && uniform(0, 1) < 0.5)) {
        s->fringe = kind == KIND_FRINGES ? log_uniform(0.0005, 0.005) : log_uniform(0.005, 0.05);
        s->fringe_nm = log_uniform(0.3, 8);
        s->fringe_phase = uniform(0, 6.283185307179586);
    }
}

static inline double line(double distance_nm, double fwhm_nm, double eta, double gauss_ratio)
{
    double u = 2 * distance_nm / fwhm_nm, v = u / gauss_ratio;
    return eta / (1 + u * u) + (v * v < 100 ? (1 - eta) * exp(-0.6931471805599453 * v * v) : 0);
}

static inline double gauss(double u) { return exp(-0.5 * u * u); }

static inline int spectra_draw(const struct spectra_scene *s, double *ret_nm, double *ret_counts)
{
    int n = (int)((s->nm_max - s->nm_min) / s->step_nm);
    if (n > SPECTRA_N_MAX)
        n = SPECTRA_N_MAX;
    for (int i = 0; i < n; i++) {
        double nm = ret_nm[i] = s->nm_min + i * s->step_nm, d = nm - s->r1_nm;
        double photons = s->background * fmax(1 + s->slope_per_nm * d, 0);
        for (int k = 0; k < 2; k++)
            photons += s->height[k] * line(d + k * s->splitting_nm, s->fwhm_nm[k], s->eta[k], s->gauss_ratio);
        if (s->hump > 0)
            photons += s->hump * gauss((nm - s->hump_nm) / s->hump_nm_sigma);
        if (s->fringe > 0)
            photons *= 1 + s->fringe * sin(6.283185307179586 * nm / s->fringe_nm + s->fringe_phase);
        double counts = 300 + s->gain * poisson(photons) + s->read_noise * normal();
        double clip = s->clip_noise > 0 ? s->clip * (1 + s->clip_noise * normal()) : s->clip;
        ret_counts[i] = rint(fmin(counts, fmin(300 + clip, ADC_MAX)));
    }
    for (int k = 0; k < s->n_spikes; k++) {
        int at = (int)uniform(0, n), width = 1 + (int)(uniform(0, 1) < 0.3);
        double size = (s->height[0] + s->background) * s->gain * log_uniform(0.01, 10);
        for (int i = at; i < at + width && i < n; i++)
            ret_counts[i] = rint(fmin(ret_counts[i] + size * uniform(0.3, 1), ADC_MAX));
    }
    return n;
}

/* What an instrument would say of its own limit: the truth, or only what its wire can carry. */
static inline double spectra_saturation(const struct spectra_scene *s)
{
    return uniform(0, 1) < 0.5 && s->clip_noise == 0 ? fmin(s->clip + 300, ADC_MAX) : ADC_MAX;
}

/* And of its fringes. */
static inline double spectra_fringe_max(enum spectra_kind kind) { return kind == KIND_STATED_FRINGES ? 0.05 : 0; }

/* Whether an accepted fit is wrong: by more than five sigma, or at all where there is no doublet. */
static inline bool spectra_is_wrong(const struct spectra_scene *s, enum spectra_kind kind, double r1_nm,
                                    double sigma_nm)
{
    return kind == KIND_MISSING || kind == KIND_ONE_LINE || !(fabs(r1_nm - s->r1_nm) <= 5 * sigma_nm);
}

#endif
