#include "analysis/neon.h"

#include <assert.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_fit.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEAKS_MAX 128
#define SIGNIFICANCE_MIN 8.0 /* of a peak over the noise */
#define HALF_NM 0.6          /* of the window in which a line's centre is taken; wider than any line here */
#define SIDE_NM_MAX 20.0     /* beyond, the correction at the ruby is a guess */
#define POINTS_MIN 32

static const double LINES_NM[] = {585.24879, 588.18950, 594.48340, 603.00,    607.43376, 609.61630, 614.30627,
                                  616.35937, 621.72812, 626.64952, 630.47893, 633.44276, 638.29914, 640.2248,
                                  650.65277, 653.28824, 659.89528, 667.82766, 671.70430, 692.94672, 702.40500,
                                  703.24128, 717.39380, 724.51665, 743.88981, 747.24384, 748.88712, 753.57739};
enum { LINE_COUNT = sizeof LINES_NM / sizeof LINES_NM[0] };

double neon_wavelength_nm(int index) { return index >= 0 && index < LINE_COUNT ? LINES_NM[index] : 0; }

struct peak {
    double nm, nm_sigma, height;
};

static int input_check(const double *x, const double *counts, int n, struct err *err)
{
    if (n < POINTS_MIN)
        return err_set(err, ERR_DATA, "neon spectrum of %d points refused: at least %d expected", n, POINTS_MIN);
    for (int i = 0; i < n; i++)
        if (!isfinite(counts[i]) || !isfinite(x[i]) || (i > 0 && !(x[i] > x[i - 1])))
            return err_set(err, ERR_DATA,
                           "neon spectrum refused: point %d (%g nm, %g counts) is not finite or not ascending", i, x[i],
                           counts[i]);
    return 0;
}

/* Background and noise: most points of a lamp's spectrum are neither on a line nor saturated. */
static void find_ground(const double *counts, int n, double *ret_background, double *ret_noise)
{
    double *values = malloc((size_t)n * sizeof *values);
    assert(values);
    memcpy(values, counts, (size_t)n * sizeof *values);
    gsl_sort(values, 1, (size_t)n);
    *ret_background = gsl_stats_quantile_from_sorted_data(values, 1, (size_t)n, 0.3);
    for (int i = 0; i + 1 < n; i++)
        values[i] = fabs(counts[i + 1] - counts[i]);
    gsl_sort(values, 1, (size_t)n - 1);
    *ret_noise = fmax(gsl_stats_quantile_from_sorted_data(values, 1, (size_t)n - 1, 0.5) / 0.954, 1e-9);
    free(values);
}

/* The centre of a line: the parabola through the logarithm of its upper half, weighted by the counts, which is exact
 * for a Gauss line and symmetric for any symmetric one. False for a flat top, two pixels, or no maximum. */
static bool centre_find(const double *x, const double *counts, int n, int top, double background, double noise,
                        struct peak *ret_peak)
{
    double height = counts[top] - background, s[5] = {0}, t[3] = {0};
    int n_used = 0, first = top, last = top;
    while (first > 0 && counts[first - 1] - background > 0.35 * height && x[top] - x[first - 1] < HALF_NM)
        first--;
    while (last + 1 < n && counts[last + 1] - background > 0.35 * height && x[last + 1] - x[top] < HALF_NM)
        last++;
    for (int i = first; i <= last; i++, n_used++) {
        double u = x[i] - x[top], h = (counts[i] - background) / height, w = h * h;
        double power = w;
        for (int k = 0; k < 5; k++, power *= u) {
            s[k] += power;
            if (k < 3)
                t[k] += power * log(h);
        }
    }
    bool is_flat = top > 1 && counts[top] == counts[top - 1] && counts[top] == counts[top - 2]; /* saturated */
    double d =
        s[0] * (s[2] * s[4] - s[3] * s[3]) - s[1] * (s[1] * s[4] - s[2] * s[3]) + s[2] * (s[1] * s[3] - s[2] * s[2]);
    if (n_used < 3 || is_flat || !(fabs(d) > 0))
        return false;
    double b =
        (s[0] * (t[1] * s[4] - s[3] * t[2]) - t[0] * (s[1] * s[4] - s[2] * s[3]) + s[2] * (s[1] * t[2] - t[1] * s[2])) /
        d;
    double c =
        (s[0] * (s[2] * t[2] - t[1] * s[3]) - s[1] * (s[1] * t[2] - t[1] * s[2]) + t[0] * (s[1] * s[3] - s[2] * s[2])) /
        d;
    double width_nm = sqrt(-0.5 / c), offset_nm = -b / (2 * c);
    if (!(c < 0) || !(fabs(offset_nm) < HALF_NM))
        return false;
    *ret_peak = (struct peak){x[top] + offset_nm, width_nm * noise / height / sqrt(n_used), height};
    return true;
}

static int peaks_find(const double *x, const double *counts, int n, struct peak *peaks)
{
    double background, noise;
    int n_peaks = 0;
    find_ground(counts, n, &background, &noise);
    for (int i = 1; i + 1 < n && n_peaks < PEAKS_MAX; i++) {
        bool is_top = counts[i] >= counts[i - 1] && counts[i] > counts[i + 1];
        for (int k = i; k < n && x[k] - x[i] < HALF_NM && is_top; k++)
            is_top = counts[k] <= counts[i];
        for (int k = i; k >= 0 && x[i] - x[k] < HALF_NM && is_top; k--)
            is_top = counts[k] <= counts[i];
        if (is_top && counts[i] - background > SIGNIFICANCE_MIN * noise)
            n_peaks += centre_find(x, counts, n, i, background, noise, &peaks[n_peaks]);
    }
    return n_peaks;
}

/* The nearest peak to where a line would be with this offset; -1 when none agrees. */
static int peak_near(const struct peak *peaks, int n_peaks, double nm)
{
    int best = -1;
    for (int k = 0; k < n_peaks; k++)
        if (fabs(peaks[k].nm - nm) <= NEON_AGREE_NM && (best < 0 || fabs(peaks[k].nm - nm) < fabs(peaks[best].nm - nm)))
            best = k;
    return best;
}

/* Of all offsets that bring one peak onto one line, that which brings most onto theirs, the nearest of equals. */
static double offset_find(const struct peak *peaks, int n_peaks)
{
    double best_nm = 0;
    int best_score = -1;
    for (int i = 0; i < LINE_COUNT; i++)
        for (int k = 0; k < n_peaks; k++) {
            double offset_nm = peaks[k].nm - LINES_NM[i];
            int score = 0;
            for (int m = 0; m < LINE_COUNT && fabs(offset_nm) <= NEON_SEARCH_NM; m++)
                score += peak_near(peaks, n_peaks, LINES_NM[m] + offset_nm) >= 0;
            if (score > best_score || (score == best_score && fabs(offset_nm) < fabs(best_nm))) {
                best_score = score;
                best_nm = offset_nm;
            }
        }
    return best_nm;
}

static int lines_check(const struct neon_correction *correction, int n_peaks, struct err *err)
{
    int n = correction->n_lines;
    if (n < NEON_LINES_MIN)
        return err_set(
            err, ERR_FIT,
            "%d of %d peaks are lines of neon, at least %d expected; is it a neon lamp, is the axis within %g nm, "
            "and are the lines not saturated?",
            n, n_peaks, NEON_LINES_MIN, NEON_SEARCH_NM);
    double first_nm = correction->lines[0].wavelength_nm, last_nm = correction->lines[n - 1].wavelength_nm;
    if (first_nm > NEON_AROUND_NM + SIDE_NM_MAX || last_nm < NEON_AROUND_NM - SIDE_NM_MAX)
        return err_set(err, ERR_FIT,
                       "the %d lines of neon, %.2f to %.2f nm, are too far from the ruby at %.2f nm; take a window "
                       "around it",
                       n, first_nm, last_nm, NEON_AROUND_NM);
    return 0;
}

static int residuals_check(struct neon_correction *correction, struct err *err)
{
    char list[400] = "";
    double sum = 0, worst = 0;
    for (int i = 0; i < correction->n_lines; i++) {
        struct neon_line *line = &correction->lines[i];
        line->residual_nm = line->measured_nm + correction->offset_nm +
                            correction->slope * (line->measured_nm - NEON_AROUND_NM) - line->wavelength_nm;
        sum += line->residual_nm * line->residual_nm;
        worst = fmax(worst, fabs(line->residual_nm));
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%.2f: %+.4f", i ? ", " : "", line->wavelength_nm,
                 line->residual_nm);
    }
    correction->residual_nm_rms = sqrt(sum / correction->n_lines);
    if (!(worst <= NEON_RESIDUAL_NM_MAX))
        return err_set(err, ERR_FIT,
                       "the corrected axis is still up to %.4f nm off, at most %.4f expected (nm: %s); give a "
                       "narrower window, or have the spectrometer's own coefficients renewed",
                       worst, NEON_RESIDUAL_NM_MAX, list);
    return 0;
}

int neon_calibrate(const double *wavelength_nm, const double *counts, int n, struct neon_correction *ret_correction,
                   struct err *err)
{
    struct peak peaks[PEAKS_MAX];
    struct neon_correction correction = {.n_lines = 0};
    double x[NEON_LINES_MAX], y[NEON_LINES_MAX], cov00, cov01, cov11, sum;
    gsl_set_error_handler_off();
    int code = input_check(wavelength_nm, counts, n, err);
    if (code)
        return code;
    int n_peaks = peaks_find(wavelength_nm, counts, n, peaks);
    double offset_nm = offset_find(peaks, n_peaks);
    for (int i = 0; i < LINE_COUNT; i++) {
        int k = peak_near(peaks, n_peaks, LINES_NM[i] + offset_nm);
        if (k < 0)
            continue;
        x[correction.n_lines] = peaks[k].nm - NEON_AROUND_NM;
        y[correction.n_lines] = LINES_NM[i] - peaks[k].nm;
        correction.lines[correction.n_lines++] = (struct neon_line){LINES_NM[i], peaks[k].nm, peaks[k].nm_sigma, 0};
    }
    if ((code = lines_check(&correction, n_peaks, err)))
        return code;
    gsl_fit_linear(x, 1, y, 1, (size_t)correction.n_lines, &correction.offset_nm, &correction.slope, &cov00, &cov01,
                   &cov11, &sum);
    correction.offset_nm_sigma = sqrt(cov00);
    correction.slope_sigma = sqrt(cov11);
    if ((code = residuals_check(&correction, err)))
        return code;
    *ret_correction = correction;
    return 0;
}
