#include "sim/glass.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>

#define LAGS_MAX 64
#define STARTS_MAX 2000 /* instants averaged per lag: enough for a mean over a whole scan */

/* ---- tau and beta against pressure --------------------------------------------------------------------------- */

struct knot {
    double pressure_gpa;
    double tau_s;
};

/* On loading. 571, 571/2.5 and 38 s are the paper's; 95 s lies on its curve; beyond 3.3 GPa densification slows it. */
static const struct knot loading[] = {{0.0, 571.0}, {0.1, 228.0}, {0.5, 155.0}, {1.5, 95.0}, {3.3, 38.0},
                                      {4.9, 44.0},  {6.3, 53.0},  {7.0, 57.0},  {8.0, 60.0}};
#define N_KNOTS (sizeof loading / sizeof loading[0])

static double chord(size_t i)
{
    return (log(loading[i + 1].tau_s) - log(loading[i].tau_s)) /
           (loading[i + 1].pressure_gpa - loading[i].pressure_gpa);
}

/* Slope of log tau at a knot: harmonic mean of the chords, zero at an extremum, so that the curve between two knots
 * never leaves their range (Fritsch and Butland 1984). */
static double slope(size_t i)
{
    if (i == 0)
        return chord(0);
    if (i == N_KNOTS - 1)
        return chord(i - 1);
    double before = chord(i - 1), after = chord(i);
    return before * after > 0 ? 2 * before * after / (before + after) : 0.0;
}

static double tau_s_loading(double pressure_gpa)
{
    size_t i = 0;
    while (i < N_KNOTS - 2 && pressure_gpa > loading[i + 1].pressure_gpa)
        i++;
    double width = loading[i + 1].pressure_gpa - loading[i].pressure_gpa;
    double x = (pressure_gpa - loading[i].pressure_gpa) / width, y = 1 - x;
    return exp(log(loading[i].tau_s) * y * y * (1 + 2 * x) + slope(i) * width * x * y * y +
               log(loading[i + 1].tau_s) * x * x * (1 + 2 * y) - slope(i + 1) * width * y * x * x);
}

static double clamp_pressure_gpa(double pressure_gpa) { return fmin(fmax(pressure_gpa, 0.0), 8.0); }

double glass_tau_s(double pressure_gpa, double pressure_gpa_peak)
{
    double p = clamp_pressure_gpa(pressure_gpa);
    double released_gpa = fmax(clamp_pressure_gpa(pressure_gpa_peak) - p, 0.0);
    /* Memory of the peak: slower by 2 once 1.8 GPa are released (1.5 GPa after 3.3 GPa), and no further. */
    double memory = 1 + sin(0.5 * M_PI * fmin(released_gpa / 1.8, 1.0));
    return tau_s_loading(p) * memory;
}

double glass_beta(double pressure_gpa)
{
    /* A broad maximum of 1.9 at 3.3 GPa, where avalanches relax stress ballistically; 1.6 far from it. */
    double distance = (clamp_pressure_gpa(pressure_gpa) - 3.3) / 2.0;
    return 1.6 + 0.3 * exp(-distance * distance);
}

/* ---- the truth of one scan ----------------------------------------------------------------------------------- */

struct decay {
    size_t n;
    double lag_s[LAGS_MAX];
    double y[LAGS_MAX];
};

static void decay_fill(struct decay *decay, const double *theta, size_t n_frames, double frame_time_s, double beta)
{
    double ratio = pow((double)(n_frames / 2), 1.0 / (LAGS_MAX - 1));
    size_t last = 0;
    decay->n = 0;
    for (size_t i = 0; i < LAGS_MAX; i++) {
        size_t lag = (size_t)lround(pow(ratio, (double)i));
        if (lag == last)
            continue;
        last = lag;
        size_t n_starts = n_frames - lag, stride = 1 + n_starts / STARTS_MAX, n = 0;
        double sum = 0;
        for (size_t t = 0; t < n_starts; t += stride, n++)
            sum += exp(-2 * pow(fabs(theta[t + lag] - theta[t]), beta));
        decay->lag_s[decay->n] = (double)lag * frame_time_s;
        decay->y[decay->n++] = sum / (double)n;
    }
}

/* Parameters: log tau and log beta, so that both stay positive. */
static int residuals(const gsl_vector *x, void *data, gsl_vector *f)
{
    const struct decay *decay = data;
    double tau_s = exp(gsl_vector_get(x, 0)), beta = exp(gsl_vector_get(x, 1));
    for (size_t i = 0; i < decay->n; i++)
        gsl_vector_set(f, i, exp(-2 * pow(decay->lag_s[i] / tau_s, beta)) - decay->y[i]);
    return GSL_SUCCESS;
}

int glass_fit_truth(const double *theta, size_t n_frames, double frame_time_s, double beta,
                    struct glass_truth *ret_truth, struct err *err)
{
    if (n_frames < 16 || !(frame_time_s > 0) || !(beta > 0))
        return err_set(err, ERR_ARG, "truth of a scan of %zu frames of %g s refused: at least 16 frames are needed",
                       n_frames, frame_time_s);
    double span = theta[n_frames - 1] - theta[0];
    if (!(span > 0.01))
        return err_set(err, ERR_FIT, "no decay inside the scan: its internal time advanced by %g only", span);
    struct decay decay;
    decay_fill(&decay, theta, n_frames, frame_time_s, beta);

    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_workspace *work = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, decay.n, 2);
    gsl_multifit_nlinear_fdf problem = {.f = residuals, .n = decay.n, .p = 2, .params = &decay};
    double guess[2] = {log((double)(n_frames - 1) * frame_time_s / span), log(beta)};
    gsl_vector_view start = gsl_vector_view_array(guess, 2);
    int info, status = gsl_multifit_nlinear_init(&start.vector, &problem, work);
    if (status == GSL_SUCCESS)
        status = gsl_multifit_nlinear_driver(200, 1e-10, 1e-10, 0, NULL, NULL, &info, work);
    const gsl_vector *found = gsl_multifit_nlinear_position(work);
    struct glass_truth truth = {exp(gsl_vector_get(found, 0)), exp(gsl_vector_get(found, 1))};
    gsl_multifit_nlinear_free(work);
    /* GSL reports "no progress" when the data fit exactly, as they do at constant tau. */
    if ((status != GSL_SUCCESS && status != GSL_ENOPROG) || !isfinite(truth.tau_s))
        return err_set(err, ERR_FIT, "truth of the scan not found: %s", gsl_strerror(status));
    *ret_truth = truth;
    return 0;
}
