#include "analysis/isf.h"

#include <assert.h>
#include <gsl/gsl_blas.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <string.h>

#define OCTAVE 10   /* ranges of lags in one, far from the first */
#define LAGS_MIN 22 /* an octave of base line beyond a dozen */
#define ITERATIONS_MAX 200
#define STEP_TOLERANCE 1e-9
#define GRADIENT_TOLERANCE 1e-6 /* leaves each parameter within 1e-3 of its sigma; a smaller one drowns in rounding */
#define TAU_PER_SCAN_DEGENERATE (1.0 / 3.0)
#define TAU_PER_SCAN_MAX 10.0
#define FLAT_SIGMAS 5.0
#define SIGNIFICANCE 4.0 /* sigmas of contrast that a decay must show */
#define STUDENT 1.0346   /* holds 68.3 % of Student's t of 15 degrees of freedom, as 1 does of a normal law */
#define BETA_MIN 0.2
#define BETA_MAX 4.0

/* Parameters of the fit; tau and contrast by their logarithms, which keeps them positive. */
enum { P_LOG_TAU, P_BETA, P_LOG_CONTRAST, P_BASELINE, P_COUNT };

void isf_bin(const struct ttcf *ttcf, double frame_time_s, struct isf_curve *ret_curve)
{
    ret_curve->n = 0;
    for (size_t r = 0; r < ttcf->lags.n; r++) {
        const struct ttcf_range *range = &ttcf->range[r];
        if (!(range->pairs_expected > 0.0))
            continue;
        int i = ret_curve->n++;
        ret_curve->range[i] = r;
        ret_curve->lag_s[i] = range->lag * frame_time_s;
        ret_curve->g2[i] = range->pairs / range->pairs_expected;
        ret_curve->g2_sigma_pairs[i] = 1.0 / sqrt(range->pairs_expected);
    }
}

double isf_model(const struct isf_fit *fit, double lag_s)
{
    return fit->baseline + fit->contrast * exp(-2.0 * pow(lag_s / fit->tau_s, fit->beta));
}

static int residuals(const gsl_vector *p, void *data, gsl_vector *f)
{
    const struct isf_curve *curve = data;
    double tau_s = exp(gsl_vector_get(p, P_LOG_TAU)), beta = gsl_vector_get(p, P_BETA);
    double contrast = exp(gsl_vector_get(p, P_LOG_CONTRAST)), baseline = gsl_vector_get(p, P_BASELINE);
    for (int i = 0; i < curve->n; i++) {
        double model = baseline + contrast * exp(-2.0 * pow(curve->lag_s[i] / tau_s, beta));
        gsl_vector_set(f, (size_t)i, (model - curve->g2[i]) / curve->g2_sigma_pairs[i]);
    }
    return GSL_SUCCESS;
}

static int derivatives(const gsl_vector *p, void *data, gsl_matrix *jacobian)
{
    const struct isf_curve *curve = data;
    double tau_s = exp(gsl_vector_get(p, P_LOG_TAU)), beta = gsl_vector_get(p, P_BETA);
    double contrast = exp(gsl_vector_get(p, P_LOG_CONTRAST));
    for (int i = 0; i < curve->n; i++) {
        double x = curve->lag_s[i] / tau_s, power = pow(x, beta), decay = exp(-2.0 * power);
        double weight = 1.0 / curve->g2_sigma_pairs[i];
        gsl_matrix_set(jacobian, (size_t)i, P_LOG_TAU, weight * contrast * decay * 2.0 * beta * power);
        gsl_matrix_set(jacobian, (size_t)i, P_BETA, weight * contrast * decay * -2.0 * power * log(x));
        gsl_matrix_set(jacobian, (size_t)i, P_LOG_CONTRAST, weight * contrast * decay);
        gsl_matrix_set(jacobian, (size_t)i, P_BASELINE, weight);
    }
    return GSL_SUCCESS;
}

/* Weighted mean of g2 over bins [from, to). */
static double mean_g2(const struct isf_curve *curve, int from, int to)
{
    double sum = 0.0, weight = 0.0;
    for (int i = from; i < to; i++) {
        double w = 1.0 / (curve->g2_sigma_pairs[i] * curve->g2_sigma_pairs[i]);
        sum += w * curve->g2[i];
        weight += w;
    }
    return sum / weight;
}

/* Baseline from the last octave, contrast from the first, tau where the decay has fallen to exp(-2). */
static void guess(const struct isf_curve *curve, double start[P_COUNT])
{
    double baseline = mean_g2(curve, curve->n - OCTAVE, curve->n);
    double contrast = mean_g2(curve, 0, 5) - baseline;
    if (!(contrast > 1e-6))
        contrast = 1e-6;
    double tau_s = curve->lag_s[curve->n / 2];
    for (int i = 2; i + 2 < curve->n; i++)
        if (mean_g2(curve, i - 2, i + 3) - baseline < contrast * exp(-2.0)) {
            tau_s = curve->lag_s[i];
            break;
        }
    start[P_LOG_TAU] = log(tau_s);
    start[P_BETA] = 1.4;
    start[P_LOG_CONTRAST] = log(contrast);
    start[P_BASELINE] = baseline;
}

static int fit_curve(const struct isf_curve *curve, double ret_parameters[P_COUNT], double *ret_chi2, struct err *err)
{
    guess(curve, ret_parameters);
    gsl_multifit_nlinear_parameters settings = gsl_multifit_nlinear_default_parameters();
    struct isf_curve data = *curve;
    gsl_multifit_nlinear_fdf problem = {
        .f = residuals, .df = derivatives, .n = (size_t)curve->n, .p = P_COUNT, .params = &data};
    gsl_multifit_nlinear_workspace *workspace =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &settings, (size_t)curve->n, P_COUNT);
    gsl_vector_view start = gsl_vector_view_array(ret_parameters, P_COUNT);
    gsl_multifit_nlinear_init(&start.vector, &problem, workspace);
    int info, code = gsl_multifit_nlinear_driver(ITERATIONS_MAX, STEP_TOLERANCE, GRADIENT_TOLERANCE, 0.0, NULL, NULL,
                                                 &info, workspace);
    gsl_blas_ddot(gsl_multifit_nlinear_residual(workspace), gsl_multifit_nlinear_residual(workspace), ret_chi2);
    for (size_t i = 0; i < P_COUNT; i++)
        ret_parameters[i] = gsl_vector_get(gsl_multifit_nlinear_position(workspace), i);
    gsl_multifit_nlinear_free(workspace);
    /* ENOPROG means that rounding allows no further step: as good as converged when the parameters are finite. */
    bool is_finite = isfinite(ret_parameters[0] + ret_parameters[1] + ret_parameters[2] + ret_parameters[3]);
    if ((code != GSL_SUCCESS && code != GSL_ENOPROG) || !is_finite)
        return err_set(err, ERR_FIT, "the fit of g2 did not converge (%s): no decay resolved between %.3g s and %.3g s",
                       gsl_strerror(code), curve->lag_s[0], curve->lag_s[curve->n - 1]);
    if (!(ret_parameters[P_BETA] > BETA_MIN && ret_parameters[P_BETA] < BETA_MAX))
        return err_set(err, ERR_FIT,
                       "the fit of g2 ended at beta %.2f, outside %.1f to %.1f: no KWW decay in this scan",
                       ret_parameters[P_BETA], BETA_MIN, BETA_MAX);
    return 0;
}

/* Delete-one-group jackknife: sigma^2 = (G - 1) / G * sum (x_g - mean)^2; the samples are `stride` numbers apart. */
static double jackknife_sigma(const double *samples, size_t stride)
{
    double mean = 0.0, sum = 0.0;
    for (size_t g = 0; g < TTCF_GROUPS; g++)
        mean += samples[g * stride] / TTCF_GROUPS;
    for (size_t g = 0; g < TTCF_GROUPS; g++)
        sum += (samples[g * stride] - mean) * (samples[g * stride] - mean);
    return sqrt(sum * (TTCF_GROUPS - 1.0) / TTCF_GROUPS);
}

static_assert(TTCF_GROUPS == 16, "STUDENT is for 16 groups");

/* The curves without one group each. A range of lags that one of them lacks (no pairs left in it) has no sigma: NaN. */
static void leave_groups_out(const struct ttcf *ttcf, struct isf_curve *curve,
                             struct isf_curve ret_without[TTCF_GROUPS])
{
    double samples[TTCF_GROUPS][ISF_BINS_MAX];
    for (int g = 0; g < TTCF_GROUPS; g++) {
        struct isf_curve *without = &ret_without[g];
        without->n = 0;
        for (int i = 0; i < curve->n; i++) {
            const struct ttcf_range *range = &ttcf->without[g][curve->range[i]];
            samples[g][i] = range->pairs_expected > 0.0 ? range->pairs / range->pairs_expected : NAN;
            if (!(range->pairs_expected > 0.0))
                continue;
            without->lag_s[without->n] = curve->lag_s[i];
            without->g2_sigma_pairs[without->n] = curve->g2_sigma_pairs[i];
            without->g2[without->n++] = samples[g][i];
        }
    }
    for (int i = 0; i < curve->n; i++)
        curve->g2_sigma[i] = jackknife_sigma(&samples[0][i], ISF_BINS_MAX);
}

static int jackknife(const struct isf_curve without[TTCF_GROUPS], double ret_sigma[P_COUNT], struct err *err)
{
    double samples[TTCF_GROUPS][P_COUNT], chi2;
    for (int g = 0; g < TTCF_GROUPS; g++) {
        int code = fit_curve(&without[g], samples[g], &chi2, err);
        if (code) {
            err_prefix(err, "without group %d of %d of the pixels", g + 1, TTCF_GROUPS);
            return code;
        }
        samples[g][P_LOG_TAU] = exp(samples[g][P_LOG_TAU]);
        samples[g][P_LOG_CONTRAST] = exp(samples[g][P_LOG_CONTRAST]);
    }
    for (int i = 0; i < P_COUNT; i++)
        ret_sigma[i] = STUDENT * jackknife_sigma(&samples[0][i], P_COUNT);
    return 0;
}

/* Whether there is anything to fit: g2 against its own mean, with room for the speckle noise that the weights omit. */
static int check_curve(const struct isf_curve *curve, size_t n_frames, struct err *err)
{
    if (curve->n < LAGS_MIN)
        return err_set(err, ERR_FIT, "%zu frames give %d lags with photon pairs, expected at least %d", n_frames,
                       curve->n, LAGS_MIN);
    double mean = mean_g2(curve, 0, curve->n), chi2 = 0.0, expected = curve->n - 1.0;
    for (int i = 0; i < curve->n; i++)
        chi2 += pow((curve->g2[i] - mean) / curve->g2_sigma_pairs[i], 2.0);
    if (!(chi2 > expected + FLAT_SIGMAS * sqrt(2.0 * expected)))
        return err_set(err, ERR_FIT,
                       "g2 is flat within its noise (%.5f, reduced chi2 %.2f): no decay between %.3g s and %.3g s; "
                       "too few photons, or tau far from these times",
                       mean, chi2 / expected, curve->lag_s[0], curve->lag_s[curve->n - 1]);
    return 0;
}

static int check_fit(const struct isf_fit *fit, double scan_s, double lag_s_first, struct err *err)
{
    if (!(fit->tau_s > lag_s_first && fit->tau_s < TAU_PER_SCAN_MAX * scan_s))
        return err_set(err, ERR_FIT, "tau %.3g s is outside what a scan of %.4g s with a first lag of %.3g s can tell",
                       fit->tau_s, scan_s, lag_s_first);
    if (!(fit->contrast > SIGNIFICANCE * fit->contrast_sigma))
        return err_set(err, ERR_FIT,
                       "contrast %.5f +- %.5f is not significant (%.0f sigma): no decay seen in this scan",
                       fit->contrast, fit->contrast_sigma, SIGNIFICANCE);
    return 0;
}

int isf_fit(const struct ttcf *ttcf, double frame_time_s, struct isf_fit *ret_fit, struct isf_curve *ret_curve,
            struct err *err)
{
    double parameters[P_COUNT], sigma[P_COUNT], chi2, scan_s = (double)ttcf->n_frames * frame_time_s;
    struct isf_curve without[TTCF_GROUPS];
    gsl_set_error_handler_off();
    isf_bin(ttcf, frame_time_s, ret_curve);
    leave_groups_out(ttcf, ret_curve, without);
    int code = check_curve(ret_curve, ttcf->n_frames, err);
    if (code)
        return code;
    code = fit_curve(ret_curve, parameters, &chi2, err);
    if (code == 0)
        code = jackknife(without, sigma, err);
    if (code)
        return code;
    struct isf_fit fit = {
        .tau_s = exp(parameters[P_LOG_TAU]),
        .tau_s_sigma = sigma[P_LOG_TAU],
        .beta = parameters[P_BETA],
        .beta_sigma = sigma[P_BETA],
        .contrast = exp(parameters[P_LOG_CONTRAST]),
        .contrast_sigma = sigma[P_LOG_CONTRAST],
        .baseline = parameters[P_BASELINE],
        .baseline_sigma = sigma[P_BASELINE],
        .chi2_reduced = chi2 / (ret_curve->n - P_COUNT),
    };
    fit.is_degenerate = fit.tau_s > TAU_PER_SCAN_DEGENERATE * scan_s;
    code = check_fit(&fit, scan_s, ret_curve->lag_s[0], err);
    if (code == 0)
        *ret_fit = fit;
    return code;
}
