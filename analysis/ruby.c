#include "analysis/ruby.h"

#include <assert.h>
#include <gsl/gsl_blas.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_linalg.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- private: where the lines are ---------------------------------------------------------------------------- */

#define R1_FWHM_NM_AMBIENT 0.62   /* HR4000-class instruments */
#define SPLITTING_NM_AMBIENT 1.43 /* 29.7 cm-1: Ragan, Gustavsen and Schiferl, J. Appl. Phys. 72, 5539 (1992) */
#define WIDTH_RATIO_WARNING 1.5
#define SPLITTING_NM_WARNING 0.05
#define SIGMA_NM_MAX 0.02    /* 0.05 GPa: five times what a reading is good for */
#define SIGNIFICANCE_MIN 6.0 /* of a peak over the noise, before a fit is tried */
#define PARTNER_MIN 0.15     /* height of the lower line over the higher one; ruby: 0.6 to 0.7 */
#define RATIO_MAX 1.2        /* of the fitted heights R2 over R1 */
#define ETA_MIN -0.5         /* below, the line is flat at its top: clipped */
#define ETA_MAX 2.0
#define FIT_BELOW_R2_NM 2.6 /* span of the fit beyond the lines: enough background, no other lines */
#define FIT_ABOVE_R1_NM 3.0
#define EDGE_NM_MIN 0.8         /* beyond a line's centre, or its position leans on the background */
#define POINTS_PER_FWHM_MIN 6.0 /* below, the a spike of two pixels can pass for a part of the line */
#define STEP_NM_MAX 0.33        /* coarser than that no unstressed ruby has two points */
#define POINTS_MIN 24
#define ITERATIONS_MAX 60
#define SPIKE_SIGMA 4.5
#define LEANING_SIGMA 3.0
#define PASSES_MAX 8
#define MASKED_MAX 10
#define FRINGE_AMPLITUDE 0.0003 /* relative, of what no residual shows: no spectrometer is flat to better than that */
#define FRINGE_AMPLITUDE_MAX 0.02
#define FRINGE_INV_NM 0.08 /* frequencies that far apart are told apart by a fit of 7 nm */
#define FRINGES 30         /* periods of 12.5 to 0.4 nm */
#define FRINGE_CHI2 12.0

enum parameter { P_LEVEL, P_SLOPE, P_CURVE, P_A1, P_X1, P_W1, P_ETA1, P_A2, P_X2, P_W2, P_ETA2, P_COUNT };

struct peaks {
    double r1_nm, r2_nm;
    double r1_counts, r2_counts; /* above the background */
    double background_counts;
    double noise_counts;
};

/* The part of a spectrum that is fitted, and its state. Counts are in units of `height`. */
struct doublet {
    const double *x; /* nm */
    double *y;
    double *variance;
    double *model;
    double *weight;
    double *scatter[2]; /* of the background, of the lines */
    double *rows;       /* [n][P_COUNT], the Jacobian over the sigma of each point, for what is done after the fit */
    double *deviation;  /* [n], the residuals over sigma */
    int n, n_used, n_masked, n_masked_r1;
    double height;
    struct peaks peaks; /* where the fit starts */
    double x_ref;       /* where the level of the background is taken */
    double p[P_COUNT];
    double chi2;         /* with the variances of the last fit */
    double chi2_scatter; /* with those of the scatter from pixel to pixel */
    double covariance[P_COUNT * P_COUNT];
    double coherence;        /* variance of sums of neighbouring residuals, 1 when they know nothing of each other */
    double background;       /* over `height`, as far as it may be light */
    double fringe_variance;  /* of R1, nm^2 */
    double fringe_amplitude; /* sigma of a and b before the spectrum is seen: those of a wave are its amplitude over
                                sqrt(2) */
    double leaning_nm;
    double misfit;         /* variance that was added to every point alike */
    double noise_variance; /* of R1, nm^2 */
};

/* Reorders the values. */
static double quantile(double *values, int n, double fraction)
{
    return gsl_stats_select(values, 1, (size_t)n, (size_t)(fraction * (n - 1)));
}

static double median3(double a, double b, double c) { return fmax(fmin(a, b), fmin(fmax(a, b), c)); }

/* Without single-pixel spikes, averaged over a quarter of a line's width. */
static void smooth(const double *counts, int n, double step_nm, double *despiked, double *ret_smooth)
{
    for (int i = 0; i < n; i++)
        despiked[i] = i > 0 && i < n - 1 ? median3(counts[i - 1], counts[i], counts[i + 1]) : counts[i];
    int half = (int)(0.08 / step_nm);
    double sum = 0;
    for (int i = -half; i < n; i++) {
        sum += i + half < n ? despiked[i + half] : 0;
        sum -= i - half - 1 >= 0 ? despiked[i - half - 1] : 0;
        int begin = i - half > 0 ? i - half : 0, end = i + half < n ? i + half : n - 1;
        if (i >= 0)
            ret_smooth[i] = sum / (end - begin + 1);
    }
}

/* Index of the greatest value with x in [from, to]; -1 when there is none. */
static int highest(const double *x, const double *values, int n, double from, double to)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (x[i] >= from && x[i] <= to && (best < 0 || values[i] > values[best]))
            best = i;
    return best;
}

static int peaks_refine(const double *x, const double *smoothed, int n, struct peaks *peaks, struct err *err)
{
    int top = highest(x, smoothed, n, x[0], x[n - 1]);
    double height = smoothed[top] - peaks->background_counts;
    if (!(height > SIGNIFICANCE_MIN * peaks->noise_counts))
        return err_set(
            err, ERR_FIT,
            "no ruby line: the highest point is %.0f counts above the background with a noise of %.1f; check "
            "laser, shutter and focus",
            height, peaks->noise_counts);
    double reach = 0.3;
    int below = highest(x, smoothed, n, x[top] - SPLITTING_NM_AMBIENT - reach, x[top] - SPLITTING_NM_AMBIENT + reach);
    int above = highest(x, smoothed, n, x[top] + SPLITTING_NM_AMBIENT - reach, x[top] + SPLITTING_NM_AMBIENT + reach);
    double below_counts = below < 0 ? 0 : smoothed[below] - peaks->background_counts;
    double above_counts = above < 0 ? 0 : smoothed[above] - peaks->background_counts;
    bool is_r1 = below_counts >= above_counts;
    double partner = is_r1 ? below_counts : above_counts;
    if (x[top] - x[0] < EDGE_NM_MIN || x[n - 1] - x[top] < EDGE_NM_MIN ||
        (!(partner > PARTNER_MIN * height) && x[top] - SPLITTING_NM_AMBIENT - EDGE_NM_MIN < x[0]))
        return err_set(err, ERR_FIT,
                       "ruby line at %.2f nm is at the edge of the spectrum (%.1f to %.1f nm); widen the window",
                       x[top], x[0], x[n - 1]);
    if (!(partner > PARTNER_MIN * height) || !(partner > SIGNIFICANCE_MIN * peaks->noise_counts))
        return err_set(err, ERR_FIT, "only one line, at %.2f nm: R1 and R2 must both be seen; is it ruby?", x[top]);
    int r1 = is_r1 ? top : above, r2 = is_r1 ? below : top;
    peaks->r1_nm = x[r1];
    peaks->r2_nm = x[r2];
    peaks->r1_counts = smoothed[r1] - peaks->background_counts;
    peaks->r2_counts = smoothed[r2] - peaks->background_counts;
    if (peaks->r2_nm - x[0] < EDGE_NM_MIN || x[n - 1] - peaks->r1_nm < EDGE_NM_MIN)
        return err_set(err, ERR_FIT,
                       "ruby doublet %.2f, %.2f nm is at the edge of the spectrum (%.1f to %.1f nm); widen the window",
                       peaks->r2_nm, peaks->r1_nm, x[0], x[n - 1]);
    return 0;
}

static int peaks_find(const double *x, const double *counts, int n, struct peaks *ret_peaks, struct err *err)
{
    double *despiked = malloc(3 * (size_t)n * sizeof *despiked);
    assert(despiked);
    double *smoothed = despiked + n, *sorted = smoothed + n;
    smooth(counts, n, (x[n - 1] - x[0]) / (n - 1), despiked, smoothed);
    struct peaks peaks = {0};
    memcpy(sorted, smoothed, (size_t)n * sizeof *sorted);
    peaks.background_counts = quantile(sorted, n, 0.2);
    for (int i = 0; i + 1 < n; i++)
        sorted[i] = fabs(counts[i + 1] - counts[i]);
    peaks.noise_counts =
        quantile(sorted, n - 1, 0.5) / 0.954; /* median of |difference of two normals| is 0.954 sigma */
    int code = peaks_refine(x, smoothed, n, &peaks, err);
    free(despiked);
    if (!code)
        *ret_peaks = peaks;
    return code;
}

/* A clipped line has no position. `saturation` may be unknown to the instrument: then a flat top tells. */
static int saturation_check(const double *x, const double *counts, int n, const struct peaks *peaks, double saturation,
                            struct err *err)
{
    double reach = R1_FWHM_NM_AMBIENT / 2, top = -INFINITY;
    for (int i = 0; i < n; i++)
        if ((fabs(x[i] - peaks->r1_nm) < reach || fabs(x[i] - peaks->r2_nm) < reach) && counts[i] > top)
            top = counts[i];
    int run = 0, run_max = 0;
    for (int i = 0; i < n; i++) {
        run = counts[i] == top ? run + 1 : 0;
        run_max = run > run_max ? run : run_max;
    }
    if (top >= 0.98 * saturation || run_max >= 4)
        return err_set(err, ERR_LIMIT, "ruby line is saturated at %.0f counts (limit %.0f); shorten the exposure", top,
                       saturation);
    return 0;
}

/* ---- private: the fit ---------------------------------------------------------------------------------------- */

/* Value of a pseudo-Voigt line of height 1 and its derivatives by position, width and Lorentz fraction. */
static double line(double x, double centre, double fwhm, double eta, double *ret_dx, double *ret_dw, double *ret_deta)
{
    double u = (x - centre) / fwhm;
    double lorentz = 1 / (1 + 4 * u * u), gauss = exp(-4 * M_LN2 * u * u);
    double slope = -8 * u * (eta * lorentz * lorentz + (1 - eta) * M_LN2 * gauss);
    *ret_dx = -slope / fwhm;
    *ret_dw = -slope * u / fwhm;
    *ret_deta = lorentz - gauss;
    return eta * lorentz + (1 - eta) * gauss;
}

static double background_at(const double *p, double d) { return p[P_LEVEL] + d * (p[P_SLOPE] + d * p[P_CURVE]); }

/* Row of the Jacobian (may be NULL) and the value of the model at one wavelength. */
static double model_at(const double *p, double x, double x_ref, double *ret_row)
{
    double d = x - x_ref, row[P_COUNT] = {[P_LEVEL] = 1, [P_SLOPE] = d, [P_CURVE] = d * d};
    double value = background_at(p, d);
    for (int first = P_A1; first < P_COUNT; first += P_A2 - P_A1) {
        const double *q = p + first;
        double dx, dw, deta, height = line(x, q[1], q[2], q[3], &dx, &dw, &deta);
        value += q[0] * height;
        row[first] = height;
        row[first + 1] = q[0] * dx;
        row[first + 2] = q[0] * dw;
        row[first + 3] = q[0] * deta;
    }
    if (ret_row)
        memcpy(ret_row, row, sizeof row);
    return value;
}

static int residual(const gsl_vector *p, void *data, gsl_vector *ret_f)
{
    const struct doublet *doublet = data;
    for (int i = 0; i < doublet->n; i++)
        gsl_vector_set(ret_f, (size_t)i, model_at(p->data, doublet->x[i], doublet->x_ref, NULL) - doublet->y[i]);
    return GSL_SUCCESS;
}

static int jacobian(const gsl_vector *p, void *data, gsl_matrix *ret_j)
{
    const struct doublet *doublet = data;
    for (int i = 0; i < doublet->n; i++)
        model_at(p->data, doublet->x[i], doublet->x_ref, gsl_matrix_ptr(ret_j, (size_t)i, 0));
    return GSL_SUCCESS;
}

/* Least squares from doublet->p with the weights 1 / variance. False when it does not settle. */
static bool settle(struct doublet *doublet, double step_nm_max)
{
    size_t n = (size_t)doublet->n;
    for (size_t i = 0; i < n; i++)
        doublet->weight[i] = doublet->variance[i] > 0 ? 1 / doublet->variance[i] : 0;
    gsl_multifit_nlinear_fdf fdf = {.f = residual, .df = jacobian, .n = n, .p = P_COUNT, .params = doublet};
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    how.solver = gsl_multifit_nlinear_solver_cholesky;
    gsl_multifit_nlinear_workspace *w = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, n, P_COUNT);
    assert(w);
    gsl_vector_const_view start = gsl_vector_const_view_array(doublet->p, P_COUNT);
    gsl_vector_const_view weights = gsl_vector_const_view_array(doublet->weight, n);
    gsl_multifit_nlinear_winit(&start.vector, &weights.vector, &fdf, w);
    bool is_settled = false;
    double chi2 = INFINITY;
    for (int i = 0; i < ITERATIONS_MAX && !is_settled; i++) {
        int code = gsl_multifit_nlinear_iterate(w);
        double chi2_new, step_nm = fabs(gsl_vector_get(w->dx, P_X1));
        gsl_blas_ddot(w->f, w->f, &chi2_new);
        /* no progress means that the minimum is reached to rounding */
        is_settled = code == GSL_ENOPROG ||
                     (code == GSL_SUCCESS && step_nm < step_nm_max && chi2 - chi2_new < 1e-3 + 1e-6 * chi2);
        if (code != GSL_SUCCESS && code != GSL_ENOPROG)
            break;
        chi2 = chi2_new;
    }
    memcpy(doublet->p, w->x->data, sizeof doublet->p);
    doublet->chi2 = chi2;
    gsl_multifit_nlinear_free(w);
    return is_settled && isfinite(chi2);
}

/* The covariance of the parameters, from the normal equations at the solution; false when they do not determine it. */
static bool find_covariance(struct doublet *doublet)
{
    double *c = doublet->covariance;
    memset(c, 0, sizeof doublet->covariance);
    for (int i = 0; i < doublet->n; i++) {
        double *row = doublet->rows + i * P_COUNT, weight = 0;
        if (doublet->variance[i] > 0)
            weight = 1 / sqrt(doublet->variance[i]);
        doublet->model[i] = model_at(doublet->p, doublet->x[i], doublet->x_ref, row);
        doublet->deviation[i] = (doublet->y[i] - doublet->model[i]) * weight;
        doublet->weight[i] = weight * weight;
        for (int k = 0; k < P_COUNT; k++) {
            row[k] *= weight;
            for (int l = 0; l <= k; l++)
                c[k * P_COUNT + l] += row[k] * row[l];
        }
    }
    gsl_matrix_view view = gsl_matrix_view_array(c, P_COUNT, P_COUNT);
    if (gsl_linalg_cholesky_decomp1(&view.matrix) != GSL_SUCCESS ||
        gsl_linalg_cholesky_invert(&view.matrix) != GSL_SUCCESS)
        return false;
    for (int k = 0; k < P_COUNT; k++)
        if (!(c[k * P_COUNT + k] > 0 && isfinite(c[k * P_COUNT + k])))
            return false;
    return true;
}

/* v C w with the covariance of the parameters. */
static double between(const struct doublet *doublet, const double *v, const double *w)
{
    double sum = 0;
    for (int k = 0; k < P_COUNT; k++)
        for (int l = 0; l < P_COUNT; l++)
            sum += v[k] * doublet->covariance[k * P_COUNT + l] * w[l];
    return sum;
}

/* Height of both lines above the background at one point. */
static double signal_at(const struct doublet *doublet, int i)
{
    return doublet->model[i] - background_at(doublet->p, doublet->x[i] - doublet->x_ref);
}

static double mean(const double *values, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += values[i];
    return sum / n;
}

/*
 * The variance of each point from the scatter of the residuals from pixel to pixel: a constant part, seen in the
 * background, and one that grows with the signal (the gain of the camera is not known). A smooth misfit of the line
 * model cancels in the differences and so stays visible in chi2. Medians bear spikes, means are more exact.
 */
static void estimate_variance(struct doublet *doublet, bool by_median)
{
    double level[2], signal[2] = {0};
    int n[2] = {0};
    for (int i = 0; i < doublet->n; i++)
        doublet->model[i] = model_at(doublet->p, doublet->x[i], doublet->x_ref, NULL);
    for (int i = 0; i + 1 < doublet->n; i++) {
        if (!(doublet->variance[i] > 0 && doublet->variance[i + 1] > 0))
            continue; /* spikes */
        double difference = (doublet->y[i + 1] - doublet->model[i + 1]) - (doublet->y[i] - doublet->model[i]);
        bool is_line = signal_at(doublet, i) > 0.1;
        signal[is_line] += signal_at(doublet, i);
        doublet->scatter[is_line][n[is_line]++] = difference * difference / 2;
    }
    if (n[0] < 4 || n[1] < 4)
        return;
    for (int k = 0; k < 2; k++) {
        /* the square of a normal deviate has the median 0.455 */
        level[k] = by_median ? quantile(doublet->scatter[k], n[k], 0.5) / 0.455 : mean(doublet->scatter[k], n[k]);
        signal[k] /= n[k];
    }
    double gain = fmax((level[1] - level[0]) / (signal[1] - signal[0]), 0);
    double floor = fmax(level[0] - gain * signal[0], 0.1 * level[0]);
    for (int i = 0; i < doublet->n; i++)
        if (doublet->variance[i] > 0)
            doublet->variance[i] = floor + gain * fmax(signal_at(doublet, i), 0) + 1e-12;
}

/*
 * Real lines are not quite pseudo-Voigt. What the residuals exceed the scatter by is added to every point alike, so
 * that the weights become even where the model, and not the noise, is the limit: otherwise the wings would shift the
 * peak.
 */
static bool admit_misfit(struct doublet *doublet)
{
    double excess = 0, smallest = INFINITY;
    for (int i = 0; i < doublet->n; i++) {
        double deviation = doublet->y[i] - model_at(doublet->p, doublet->x[i], doublet->x_ref, NULL);
        if (!(doublet->variance[i] > 0))
            continue;
        excess += deviation * deviation - doublet->variance[i];
        smallest = fmin(smallest, doublet->variance[i]);
    }
    excess /= doublet->n;
    doublet->misfit = 0;
    if (!(excess > 0.2 * smallest))
        return false;
    for (int i = 0; i < doublet->n; i++)
        if (doublet->variance[i] > 0)
            doublet->variance[i] += excess;
    doublet->misfit = excess;
    return true;
}

static double residual_at(const struct doublet *doublet, int i) { return doublet->y[i] - doublet->model[i]; }

static double median5(const double *values)
{
    double v[5];
    memcpy(v, values, sizeof v);
    return median3(v[4], fmax(fmin(v[0], v[1]), fmin(v[2], v[3])), fmin(fmax(v[0], v[1]), fmax(v[2], v[3])));
}

/* How far a point stands off from its neighbourhood, in sigma. */
static double stand_off(const struct doublet *doublet, int i)
{
    double around[5];
    int first = i < 2 ? 0 : i + 2 < doublet->n ? i - 2 : doublet->n - 5;
    if (!(doublet->variance[i] > 0))
        return 0;
    for (int k = 0; k < 5; k++)
        around[k] = residual_at(doublet, first + k);
    return fabs(residual_at(doublet, i) - median5(around)) / sqrt(doublet->variance[i]);
}

/*
 * Leaves out (variance 0) points that stand off from their neighbourhood, one or two together, as the light of no line
 * can; true when there were any. A misfit of the line model is smooth and stays in. The worst go first: they bend the
 * fit, and the points beside them stand off for that alone.
 */
static bool mask_spikes(struct doublet *doublet)
{
    double *off = doublet->scatter[0], worst = 0;
    for (int i = 0; i < doublet->n; i++)
        worst = fmax(worst, off[i] = stand_off(doublet, i));
    for (int i = 0; i < doublet->n; i++)
        if (off[i] > SPIKE_SIGMA && off[i] > worst / 2) {
            doublet->variance[i] = 0;
            doublet->n_masked++;
        }
    return worst > SPIKE_SIGMA;
}

/* A ray that meets one pixel often leaves a little in the next one, too little to stand off: both neighbours go too. */
static void mask_neighbours(struct doublet *doublet)
{
    bool was_masked = false;
    for (int i = 0; i < doublet->n; i++) {
        bool is_masked = !(doublet->variance[i] > 0), is_before = i + 1 < doublet->n && !(doublet->variance[i + 1] > 0);
        if (was_masked || is_before)
            doublet->variance[i] = 0;
        was_masked = is_masked;
    }
}

/*
 * Whether neighbouring residuals know of each other, as with fringes, other light, or lines of another shape: the
 * variance of their sums over half a line's width, over that of independent residuals (less what the parameters have
 * taken out). It is by this that the position, which is such a sum as well, is less certain than the scatter says.
 */
static double find_coherence(const struct doublet *doublet)
{
    double step_nm = (doublet->x[doublet->n - 1] - doublet->x[0]) / (doublet->n - 1);
    int length = (int)fmax(2, 0.5 * fabs(doublet->p[P_W1]) / step_nm);
    double sum2 = 0, expected = 0;
    for (int first = 0; first + length <= doublet->n; first += length) {
        double sum = 0, v[P_COUNT] = {0};
        int n_used = 0;
        for (int i = first; i < first + length; i++) {
            sum += doublet->deviation[i];
            n_used += doublet->variance[i] > 0;
            for (int k = 0; k < P_COUNT; k++)
                v[k] += doublet->rows[i * P_COUNT + k];
        }
        if (n_used == 0)
            continue;
        sum2 += sum * sum / n_used;
        expected += 1 - between(doublet, v, v) / n_used;
    }
    double coherence = sum2 / fmax(expected, 1);
    /* within three standard deviations of 1 it is taken for chance */
    return coherence > 1 + 3 * sqrt(2 / fmax(expected, 1)) ? coherence : 1;
}

/* The variance of R1, in nm^2, from the scatter of the points alone. */
static double find_noise(const struct doublet *doublet)
{
    double x1[P_COUNT] = {[P_X1] = 1}, sum = 0;
    for (int i = 0; i < doublet->n; i++) {
        if (!(doublet->variance[i] > 0))
            continue;
        double influence = between(doublet, x1, doublet->rows + i * P_COUNT);
        sum += influence * influence * (1 - doublet->misfit / doublet->variance[i]);
    }
    return sum;
}

/*
 * What single points that stand off a little, too little to be left out, do to R1, in nm: the sum over them of how far
 * R1 would move without each.
 */
static double find_leaning_nm(const struct doublet *doublet)
{
    double x1[P_COUNT] = {[P_X1] = 1}, sum = 0;
    for (int i = 0; i < doublet->n; i++) {
        if (!(fabs(doublet->deviation[i]) > LEANING_SIGMA / 2))
            continue;
        const double *row = doublet->rows + i * P_COUNT;
        double free = fmax(1 - between(doublet, row, row), 0.05); /* share of a deviation that the fit does not take */
        if (fabs(doublet->deviation[i]) > LEANING_SIGMA * sqrt(free * doublet->chi2 / (doublet->n_used - P_COUNT)))
            sum += fabs(between(doublet, x1, row) * doublet->deviation[i] / free);
    }
    return sum;
}

/*
 * Fringes (interference in a window or in the sensor) multiply the light by 1 + a cos(k x) + b sin(k x). They move the
 * line, and where their period is about that of the doublet they leave little behind, so that the position is less
 * certain than the residuals say. Here each period in turn is added to the model, with a and b known beforehand to be
 * within FRINGE_AMPLITUDE of 0, or what the instrument is stated to have, and with more where the residuals speak for
 * more; where they are believed to be there, what they would do to R1 is added as well; the largest of what that adds
 * to the variance of R1 counts. The dark counts below the background are taken for light, as nothing here tells them
 * apart.
 */
struct fringe {
    double x1_nm[2];       /* what a and b of 1 do to R1 */
    double information[3]; /* on a, both, b, when the other parameters are free */
    double wanted[2];
};

static void fringe_find(const struct doublet *doublet, const double *light, const double *c, const double *s,
                        struct fringe *ret)
{
    double cross[2][P_COUNT] = {{0}}, own[3] = {0}, b[2] = {0};
    for (int i = 0; i < doublet->n; i++) {
        double u = light[i] * c[i], v = light[i] * s[i];
        const double *row = doublet->rows + i * P_COUNT;
        own[0] += u * u;
        own[1] += u * v;
        own[2] += v * v;
        b[0] += u * doublet->deviation[i];
        b[1] += v * doublet->deviation[i];
        for (int l = 0; l < P_COUNT; l++) {
            cross[0][l] += u * row[l];
            cross[1][l] += v * row[l];
        }
    }
    double x1[P_COUNT] = {[P_X1] = 1};
    for (int m = 0; m < 2; m++) {
        ret->x1_nm[m] = between(doublet, x1, cross[m]);
        ret->wanted[m] = b[m];
    }
    ret->information[0] = own[0] - between(doublet, cross[0], cross[0]);
    ret->information[1] = own[1] - between(doublet, cross[0], cross[1]);
    ret->information[2] = own[2] - between(doublet, cross[1], cross[1]);
    for (int m = 0; m < 3; m++)
        ret->information[m] /= doublet->coherence;
    for (int m = 0; m < 2; m++)
        ret->wanted[m] /= doublet->coherence;
}

/* Adds the prior, and solves for a and b and their covariance. */
static void fringe_solve(const struct fringe *fringe, double amplitude, bool is_believed, double *ret_x1_variance,
                         double *ret_gain, double *ret_amplitude)
{
    double prior = 1 / (amplitude * amplitude);
    double p = fringe->information[0] + prior, q = fringe->information[1], r = fringe->information[2] + prior;
    double determinant = p * r - q * q;
    double a = (r * fringe->wanted[0] - q * fringe->wanted[1]) / determinant;
    double b = (p * fringe->wanted[1] - q * fringe->wanted[0]) / determinant;
    double t = fringe->x1_nm[0], u = fringe->x1_nm[1], bias_nm = t * a + u * b;
    *ret_x1_variance = (t * t * r - 2 * t * u * q + u * u * p) / determinant;
    if (is_believed)
        *ret_x1_variance += bias_nm * bias_nm;
    *ret_gain = a * fringe->wanted[0] + b * fringe->wanted[1];
    *ret_amplitude = hypot(a, b);
}

static void find_fringes(struct doublet *doublet)
{
    /* cosine and sine of the first frequency, of the present one, and the light over sigma */
    double *c1 = doublet->scatter[0], *s1 = doublet->scatter[1], *c = doublet->y, *s = doublet->model;
    double *light = doublet->variance, amplitude, variance, gain, wanted;
    struct fringe fringe;
    for (int i = 0; i < doublet->n; i++) {
        double phase = 2 * M_PI * FRINGE_INV_NM * (doublet->x[i] - doublet->x_ref);
        light[i] = (signal_at(doublet, i) + fmax(doublet->background, 0)) * sqrt(doublet->weight[i]);
        c[i] = c1[i] = cos(phase);
        s[i] = s1[i] = sin(phase);
    }
    doublet->fringe_variance = 0;
    for (int k = 0; k < FRINGES; k++) {
        fringe_find(doublet, light, c, s, &fringe);
        fringe_solve(&fringe, FRINGE_AMPLITUDE_MAX, false, &variance, &gain, &wanted);
        amplitude = gain > FRINGE_CHI2 ? fmax(doublet->fringe_amplitude, wanted) : doublet->fringe_amplitude;
        fringe_solve(&fringe, amplitude, amplitude > FRINGE_AMPLITUDE, &variance, &gain, &wanted);
        doublet->fringe_variance = fmax(doublet->fringe_variance, variance);
        for (int i = 0; i < doublet->n; i++) {
            double before = c[i];
            c[i] = before * c1[i] - s[i] * s1[i];
            s[i] = s[i] * c1[i] + before * s1[i];
        }
    }
}

static void guess(struct doublet *doublet, const struct peaks *peaks, const struct ruby_fit *seed)
{
    double w1 = R1_FWHM_NM_AMBIENT, w2 = 0.9 * R1_FWHM_NM_AMBIENT;
    if (seed && seed->r1_nm_fwhm > 0.2 && seed->r1_nm_fwhm < 2 && seed->r2_nm_fwhm > 0.2 && seed->r2_nm_fwhm < 2) {
        w1 = seed->r1_nm_fwhm;
        w2 = seed->r2_nm_fwhm;
    }
    const double p[P_COUNT] = {
        [P_LEVEL] = 0,  [P_A1] = peaks->r1_counts / doublet->height, [P_X1] = peaks->r1_nm, [P_W1] = w1,
        [P_ETA1] = 0.6, [P_A2] = peaks->r2_counts / doublet->height, [P_X2] = peaks->r2_nm, [P_W2] = w2,
        [P_ETA2] = 0.6};
    memcpy(doublet->p, p, sizeof p);
}

#define STEP_NM_ROUGH 1e-3
#define STEP_NM_FINE 1e-6 /* 3e-6 GPa */

static bool fit(struct doublet *doublet)
{
    bool is_spiked = true;
    for (int pass = 0; pass < PASSES_MAX && is_spiked; pass++) { /* a spike bends the first fit and may hide another */
        if (!settle(doublet, STEP_NM_ROUGH))
            return false;
        estimate_variance(doublet, true);
        is_spiked = mask_spikes(doublet);
    }
    estimate_variance(doublet, false);
    mask_neighbours(doublet);
    if (!settle(doublet, STEP_NM_FINE))
        return false;
    doublet->chi2_scatter = doublet->chi2;
    if (admit_misfit(doublet) && !settle(doublet, STEP_NM_FINE))
        return false;
    if (!find_covariance(doublet))
        return false;
    doublet->coherence = find_coherence(doublet);
    doublet->n_used = doublet->n_masked_r1 = 0;
    for (int i = 0; i < doublet->n; i++) {
        bool is_r1 = fabs(doublet->x[i] - doublet->p[P_X1]) < 0.75 * fabs(doublet->p[P_W1]);
        doublet->n_used += doublet->variance[i] > 0;
        doublet->n_masked_r1 += is_r1 && !(doublet->variance[i] > 0);
    }
    doublet->leaning_nm = find_leaning_nm(doublet);
    doublet->noise_variance = find_noise(doublet);
    find_fringes(doublet); /* the last, as it takes the place of y, model and variance */
    return true;
}

static int believe(const struct doublet *doublet, const struct ruby_fit *fit, double step_nm, struct err *err)
{
    const double *p = doublet->p;
    if (!(fit->r1_nm_fwhm / step_nm >= POINTS_PER_FWHM_MIN))
        return err_set(
            err, ERR_FIT,
            "doublet is unresolved: %.2f nm per pixel give %.1f points across R1 (%.2f nm wide), at least %.0f "
            "expected; use a finer grating",
            step_nm, fit->r1_nm_fwhm / step_nm, fit->r1_nm_fwhm, POINTS_PER_FWHM_MIN);
    double ratio = p[P_A2] / p[P_A1];
    if (doublet->n_masked > MASKED_MAX || !(doublet->n_masked_r1 <= 0.4 * fit->r1_nm_fwhm / step_nm))
        return err_set(
            err, ERR_FIT,
            "%d points of the ruby doublet, %d of them on R1 at %.2f nm, stand off from their neighbours; at "
            "most %d, and two fifths of R1, are left out as cosmic rays; check the spectrometer",
            doublet->n_masked, doublet->n_masked_r1, fit->r1_nm, MASKED_MAX);
    bool has_moved = !(fabs(fit->r1_nm - doublet->peaks.r1_nm) < 0.3 && fabs(fit->r2_nm - doublet->peaks.r2_nm) < 0.3);
    bool is_misshapen = !(p[P_ETA1] > ETA_MIN && p[P_ETA1] < ETA_MAX && p[P_ETA2] > ETA_MIN && p[P_ETA2] < ETA_MAX);
    if (has_moved || is_misshapen ||
        !(fit->r1_nm_fwhm > 0.1 && fit->r1_nm_fwhm < 2.5 && fit->r2_nm_fwhm > 0.1 && fit->r2_nm_fwhm < 2.5 &&
          fit->amplitude_counts > 0 && ratio > PARTNER_MIN && ratio < RATIO_MAX && fit->splitting_nm > 1 &&
          fit->splitting_nm < 2))
        return err_set(
            err, ERR_FIT,
            "lines at %.2f and %.2f nm (widths %.2f and %.2f nm, ratio %.2f) are no ruby doublet; is other light "
            "in the spectrum?",
            fit->r2_nm, fit->r1_nm, fit->r2_nm_fwhm, fit->r1_nm_fwhm, ratio);
    if (!(fit->r1_nm_sigma <= SIGMA_NM_MAX))
        return err_set(err, ERR_FIT, "R1 at %.3f nm is uncertain by %.3f nm, at most %.3f expected; expose longer",
                       fit->r1_nm, fit->r1_nm_sigma, SIGMA_NM_MAX);
    return 0;
}

static struct ruby_fit conclude(const struct doublet *doublet)
{
    const double *p = doublet->p;
    int n_used = doublet->n_used;
    struct ruby_fit fit = {
        .r1_nm = p[P_X1],
        .r2_nm = p[P_X2],
        .r1_nm_fwhm = fabs(p[P_W1]), /* the model is even in the width */
        .r2_nm_fwhm = fabs(p[P_W2]),
        .splitting_nm = p[P_X1] - p[P_X2],
        .amplitude_counts = p[P_A1] * doublet->height,
        .chi2_reduced = doublet->chi2_scatter / (n_used - P_COUNT),
    };
    fit.background_counts = background_at(p, fit.r1_nm - doublet->x_ref) * doublet->height;
    double chi2_reduced = doublet->chi2 / (n_used - P_COUNT);
    double few =
        1 + 8.0 / (n_used - P_COUNT); /* the noise is estimated from the same points: tails as of Student's t */
    /* Lines of another shape, sampled coarsely, are placed by where the pixels happen to lie; seen with sums of Lorentz
     * and Gauss lines of unequal widths. */
    double step_nm = (doublet->x[doublet->n - 1] - doublet->x[0]) / (doublet->n - 1);
    double coarse_nm = 0.08 * step_nm * step_nm / fit.r1_nm_fwhm;
    double covariance = doublet->covariance[P_X1 * P_COUNT + P_X1] * few * fmax(chi2_reduced, doublet->coherence);
    fit.r1_nm_sigma =
        sqrt(covariance + doublet->fringe_variance + doublet->leaning_nm * doublet->leaning_nm + coarse_nm * coarse_nm);
    fit.r1_nm_sigma_noise = fmin(sqrt(doublet->noise_variance * few), fit.r1_nm_sigma);
    if (!(fit.r1_nm_fwhm <= WIDTH_RATIO_WARNING * R1_FWHM_NM_AMBIENT))
        fit.warnings |= RUBY_WARNING_WIDTH;
    if (!(fabs(fit.splitting_nm - SPLITTING_NM_AMBIENT) <= SPLITTING_NM_WARNING))
        fit.warnings |= RUBY_WARNING_SPLITTING;
    return fit;
}

/* The doublet's part of the spectrum, in units of its height, background about 0. memory: [(7 + P_COUNT) * n]. */
static void cut(struct doublet *doublet, const double *x, const double *counts, int first, int n,
                const struct peaks *peaks, double *memory)
{
    doublet->x = x + first;
    doublet->n = n;
    doublet->y = memory;
    doublet->variance = memory + n;
    doublet->model = memory + 2 * n;
    doublet->weight = memory + 3 * n;
    doublet->scatter[0] = memory + 4 * n;
    doublet->scatter[1] = memory + 5 * n;
    doublet->deviation = memory + 6 * n;
    doublet->rows = memory + 7 * n;
    doublet->background = peaks->background_counts / fmax(peaks->r1_counts, peaks->r2_counts);
    doublet->height = fmax(peaks->r1_counts, peaks->r2_counts);
    doublet->x_ref = peaks->r1_nm;
    doublet->peaks = *peaks;
    doublet->n_masked = 0;
    double noise = peaks->noise_counts / doublet->height;
    for (int i = 0; i < n; i++) {
        doublet->y[i] = (counts[first + i] - peaks->background_counts) / doublet->height;
        doublet->variance[i] = noise * noise + fmax(doublet->y[i], 0) * 1e-4 + 1e-12; /* a start; estimated later */
    }
}

static int input_check(const double *x, const double *counts, int n, struct err *err)
{
    if (n < POINTS_MIN)
        return err_set(err, ERR_DATA, "spectrum of %d points refused: at least %d expected", n, POINTS_MIN);
    for (int i = 0; i < n; i++)
        if (!isfinite(counts[i]) || !isfinite(x[i]) || (i > 0 && !(x[i] > x[i - 1])))
            return err_set(err, ERR_DATA,
                           "spectrum refused: point %d (%g nm, %g counts) is not finite or not ascending", i, x[i],
                           counts[i]);
    return 0;
}

int ruby_fit_spectrum(const double *wavelength_nm, const double *counts, int n, const struct ruby_camera *camera,
                      const struct ruby_fit *seed, struct ruby_fit *ret_fit, struct err *err)
{
    struct peaks peaks;
    int code;
    gsl_set_error_handler_off();
    if ((code = input_check(wavelength_nm, counts, n, err)) ||
        (code = peaks_find(wavelength_nm, counts, n, &peaks, err)) ||
        (code = saturation_check(wavelength_nm, counts, n, &peaks, camera->counts_saturation, err)))
        return code;
    int first = 0, end = n;
    while (wavelength_nm[first] < peaks.r2_nm - FIT_BELOW_R2_NM)
        first++;
    while (wavelength_nm[end - 1] > peaks.r1_nm + FIT_ABOVE_R1_NM)
        end--;
    int n_fit = end - first;
    double step_nm = (wavelength_nm[end - 1] - wavelength_nm[first]) / (n_fit - 1);
    if (!(step_nm <= STEP_NM_MAX))
        return err_set(err, ERR_FIT,
                       "doublet is unresolved: %.2f nm per pixel, at most %.2f expected; use a finer grating", step_nm,
                       STEP_NM_MAX);
    if (n_fit < POINTS_MIN)
        return err_set(err, ERR_FIT, "doublet is unresolved: only %d points around it, at least %d expected", n_fit,
                       POINTS_MIN);
    double *memory = malloc((7 + P_COUNT) * (size_t)n_fit * sizeof *memory);
    assert(memory);
    struct doublet doublet;
    cut(&doublet, wavelength_nm, counts, first, n_fit, &peaks, memory);
    doublet.fringe_amplitude = fmax(FRINGE_AMPLITUDE, camera->fringe_max / M_SQRT2);
    guess(&doublet, &peaks, seed);
    if (fit(&doublet)) {
        struct ruby_fit result = conclude(&doublet);
        result.background_counts += peaks.background_counts;
        code = believe(&doublet, &result, step_nm, err);
        if (!code)
            *ret_fit = result;
    } else {
        code = err_set(err, ERR_FIT, "fit of the ruby doublet near %.2f nm did not converge; check the spectrum",
                       peaks.r1_nm);
    }
    free(memory);
    return code;
}

void ruby_warning_text(const struct ruby_fit *fit, char *ret_text, size_t size)
{
    char width[120] = "", splitting[120] = "";
    if (fit->warnings & RUBY_WARNING_WIDTH)
        snprintf(width, sizeof width, "R1 is %.2f nm wide, %.1f times that of free ruby (at most %.1f)",
                 fit->r1_nm_fwhm, fit->r1_nm_fwhm / R1_FWHM_NM_AMBIENT, WIDTH_RATIO_WARNING);
    if (fit->warnings & RUBY_WARNING_SPLITTING)
        snprintf(splitting, sizeof splitting, "R1 - R2 is %.3f nm, that of free ruby %.2f (at most %.2f apart)",
                 fit->splitting_nm, SPLITTING_NM_AMBIENT, SPLITTING_NM_WARNING);
    snprintf(ret_text, size, "%s%s%s%s", width, width[0] && splitting[0] ? "; " : "", splitting,
             fit->warnings ? ": the stress on the ruby is not hydrostatic" : "");
}
