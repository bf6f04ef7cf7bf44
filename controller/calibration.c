#include "controller/calibration.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/clock.h"

#define REACH_SIGMA 4.0
#define USED_SHARE_MIN 0.8
#define SCATTER_MAX 2.0 /* of twenty readings that are as good as they say, not one set in 10^8 scatters by more */
#define SCATTER_NM_FLOOR 0.0005
#define DRIFT_SIGMA 4.0
#define DRIFT_NM_FLOOR 0.001 /* 3 MPa */
#define STRANGE_SIGMA 3.0
#define MAD_TO_SIGMA 1.4826

void calibration_begin(struct calibration *calibration, int32_t n_wanted)
{
    assert(n_wanted >= CALIBRATION_READINGS_MIN && n_wanted <= CALIBRATION_READINGS_MAX);
    memset(calibration, 0, sizeof *calibration);
    calibration->n_wanted = n_wanted;
}

void calibration_add(struct calibration *calibration, int64_t t_ns, double r1_nm, double r1_nm_sigma,
                     double noise_nm_sigma)
{
    if (calibration->n >= calibration->n_wanted)
        return;
    if (calibration->n == 0)
        calibration->first_t_ns = t_ns;
    calibration->readings[calibration->n++] =
        (struct calibration_reading){s_from_ns(t_ns - calibration->first_t_ns), r1_nm, r1_nm_sigma, noise_nm_sigma};
}

/* Reorders the values: they are few. */
static double median(double *values, int32_t n)
{
    for (int32_t i = 1; i < n; i++)
        for (int32_t k = i; k > 0 && values[k] < values[k - 1]; k--) {
            double kept = values[k];
            values[k] = values[k - 1];
            values[k - 1] = kept;
        }
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

struct middle {
    double r1_nm, spread_nm, r1_nm_sigma, noise_nm;
};

static struct middle find_middle(const struct calibration *calibration)
{
    double values[CALIBRATION_READINGS_MAX];
    struct middle middle;
    int32_t n = calibration->n;
    for (int32_t i = 0; i < n; i++)
        values[i] = calibration->readings[i].r1_nm;
    middle.r1_nm = median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = fabs(calibration->readings[i].r1_nm - middle.r1_nm);
    middle.spread_nm = MAD_TO_SIGMA * median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = calibration->readings[i].r1_nm_sigma;
    middle.r1_nm_sigma = median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = calibration->readings[i].noise_nm_sigma;
    middle.noise_nm = median(values, n);
    return middle;
}

struct line {
    int32_t n;
    double mean_nm, scatter_nm, drift_nm, drift_nm_sigma;
};

/* Mean and line through the readings that are used; times and wavelengths are taken from their means. */
static struct line draw_line(const struct calibration *calibration, const struct middle *middle)
{
    double reach_nm = REACH_SIGMA * fmax(middle->spread_nm, middle->noise_nm);
    double sum_t = 0, sum_x = 0, sum_tt = 0, sum_tx = 0, sum_xx = 0;
    struct line line = {0};
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < calibration->n; i++) {
            const struct calibration_reading *reading = &calibration->readings[i];
            double x = reading->r1_nm - middle->r1_nm;
            if (!(fabs(x) <= reach_nm))
                continue;
            if (pass == 0) {
                line.n++;
                sum_t += reading->t_s;
                sum_x += x;
                continue;
            }
            double dt = reading->t_s - sum_t / line.n, dx = x - sum_x / line.n;
            sum_tt += dt * dt;
            sum_tx += dt * dx;
            sum_xx += dx * dx;
        }
    double span_s = calibration->readings[calibration->n - 1].t_s;
    line.mean_nm = middle->r1_nm + sum_x / line.n;
    line.scatter_nm = sqrt(sum_xx / (line.n > 1 ? line.n - 1 : 1));
    if (sum_tt > 0) {
        line.drift_nm = span_s * sum_tx / sum_tt;
        line.drift_nm_sigma = span_s * middle->noise_nm / sqrt(sum_tt);
    }
    return line;
}

static enum calibration_verdict judge(const struct calibration *calibration, const struct line *line,
                                      const struct calibration_result *result, double lambda0_nm_stated)
{
    double drift_nm_max = fmax(DRIFT_SIGMA * line->drift_nm_sigma, DRIFT_NM_FLOOR);
    if (!(fabs(line->drift_nm) <= drift_nm_max))
        return CALIBRATION_DRIFT;
    if (!(line->scatter_nm <= SCATTER_MAX * result->noise_nm + SCATTER_NM_FLOOR) ||
        line->n < USED_SHARE_MIN * calibration->n)
        return CALIBRATION_SCATTER;
    if (!(result->lambda0_nm >= CALIBRATION_NM_MIN && result->lambda0_nm <= CALIBRATION_NM_MAX))
        return CALIBRATION_RANGE;
    bool is_near = fabs(result->lambda0_nm - lambda0_nm_stated) <= result->tolerance_nm;
    return is_near ? CALIBRATION_GOOD : CALIBRATION_STRANGE;
}

void calibration_judge(const struct calibration *calibration, const struct calibration_settings *settings,
                       struct calibration_result *ret_result)
{
    assert(calibration->n == calibration->n_wanted && calibration->n >= CALIBRATION_READINGS_MIN);
    struct middle middle = find_middle(calibration);
    struct line line = draw_line(calibration, &middle);
    double scatter_nm = fmax(line.scatter_nm, middle.noise_nm);
    double common2 = middle.r1_nm_sigma * middle.r1_nm_sigma - middle.noise_nm * middle.noise_nm;
    double sigma2 = scatter_nm * scatter_nm / line.n + fmax(common2, 0);
    struct calibration_result result = {
        .n_used = line.n,
        .lambda0_nm = line.mean_nm - settings->shift_nm,
        .lambda0_nm_sigma = sqrt(sigma2),
        .r1_nm = line.mean_nm,
        .scatter_nm = line.scatter_nm,
        .noise_nm = middle.noise_nm,
        .drift_nm = line.drift_nm,
        .tolerance_nm = STRANGE_SIGMA * sqrt(sigma2 + settings->temperature_nm_sigma * settings->temperature_nm_sigma),
    };
    result.verdict = judge(calibration, &line, &result, settings->lambda0_nm);
    *ret_result = result;
}
