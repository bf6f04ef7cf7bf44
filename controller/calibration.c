#include "controller/calibration.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "analysis/ruby_scale.h"
#include "base/clock.h"
#include "controller/cell.h"

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

void calibration_add(struct calibration *calibration, const struct calibration_reading *reading)
{
    if (calibration->n < calibration->n_wanted)
        calibration->readings[calibration->n++] = *reading;
}

/* All readings at temperature_k_zero. */
struct corrected {
    double r1_nm[CALIBRATION_READINGS_MAX];
    const struct ruby_correction *correction; /* NULL: none */
};

static void correct(const struct calibration *calibration, const struct calibration_settings *settings,
                    struct corrected *ret_corrected)
{
    ret_corrected->correction = ruby_correction_by_name(settings->correction);
    for (int32_t i = 0; i < calibration->n; i++) {
        const struct calibration_reading *reading = &calibration->readings[i];
        ret_corrected->r1_nm[i] = reading->r1_nm;
        if (ret_corrected->correction)
            ret_corrected->r1_nm[i] -= ruby_correction_shift_nm(ret_corrected->correction, reading->temperature_k,
                                                                settings->temperature_k_zero);
    }
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
    double r1_nm, spread_nm, r1_nm_sigma, noise_nm; /* r1_nm at temperature_k_zero */
};

static struct middle find_middle(const struct calibration *calibration, const struct corrected *corrected)
{
    double values[CALIBRATION_READINGS_MAX];
    struct middle middle;
    int32_t n = calibration->n;
    for (int32_t i = 0; i < n; i++)
        values[i] = corrected->r1_nm[i];
    middle.r1_nm = median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = fabs(corrected->r1_nm[i] - middle.r1_nm);
    middle.spread_nm = MAD_TO_SIGMA * median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = calibration->readings[i].r1_nm_sigma;
    middle.r1_nm_sigma = median(values, n);
    for (int32_t i = 0; i < n; i++)
        values[i] = calibration->readings[i].noise_nm_sigma;
    middle.noise_nm = median(values, n);
    return middle;
}

struct drawn_line {
    int32_t n;
    double mean_nm, scatter_nm, drift_nm, drift_nm_sigma; /* at temperature_k_zero */
    double r1_nm, temperature_k, temperature_k_sigma;     /* means, as measured */
};

/* Mean and line through the readings that are used; times and wavelengths are taken from their means. */
static struct drawn_line draw_line(const struct calibration *calibration, const struct corrected *corrected,
                                   const struct middle *middle)
{
    double reach_nm = REACH_SIGMA * fmax(middle->spread_nm, middle->noise_nm);
    double sum_t = 0, sum_x = 0, sum_tt = 0, sum_tx = 0, sum_xx = 0;
    double sum_r1 = 0, sum_k = 0, sum_k_sigma = 0;
    int64_t first_t_ns = calibration->readings[0].t_ns;
    struct drawn_line line = {0};
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < calibration->n; i++) {
            const struct calibration_reading *reading = &calibration->readings[i];
            double x = corrected->r1_nm[i] - middle->r1_nm, t_s = s_from_ns(reading->t_ns - first_t_ns);
            if (!(fabs(x) <= reach_nm))
                continue;
            if (pass == 0) {
                line.n++;
                sum_t += t_s;
                sum_x += x;
                sum_r1 += reading->r1_nm;
                sum_k += reading->temperature_k;
                sum_k_sigma += reading->temperature_k_sigma;
                continue;
            }
            double dt = t_s - sum_t / line.n, dx = x - sum_x / line.n;
            sum_tt += dt * dt;
            sum_tx += dt * dx;
            sum_xx += dx * dx;
        }
    double span_s = s_from_ns(calibration->readings[calibration->n - 1].t_ns - first_t_ns);
    line.mean_nm = middle->r1_nm + sum_x / line.n;
    line.r1_nm = sum_r1 / line.n;
    line.temperature_k = sum_k / line.n;
    line.temperature_k_sigma = sum_k_sigma / line.n;
    line.scatter_nm = sqrt(sum_xx / (line.n > 1 ? line.n - 1 : 1));
    if (sum_tt > 0) {
        line.drift_nm = span_s * sum_tx / sum_tt;
        line.drift_nm_sigma = span_s * middle->noise_nm / sqrt(sum_tt);
    }
    return line;
}

static enum calibration_verdict judge(const struct calibration *calibration, const struct drawn_line *line,
                                      const struct calibration_result *result,
                                      const struct calibration_settings *settings)
{
    double drift_nm_max = fmax(DRIFT_SIGMA * line->drift_nm_sigma, DRIFT_NM_FLOOR);
    if (!(fabs(line->drift_nm) <= drift_nm_max))
        return CALIBRATION_DRIFT;
    if (!(line->scatter_nm <= SCATTER_MAX * result->noise_nm + SCATTER_NM_FLOOR) ||
        line->n < USED_SHARE_MIN * calibration->n)
        return CALIBRATION_SCATTER;
    if (!(result->lambda0_nm >= CALIBRATION_NM_MIN && result->lambda0_nm <= CALIBRATION_NM_MAX))
        return CALIBRATION_RANGE;
    if (!(fabs(result->lambda0_nm - settings->lambda0_nm) <= result->tolerance_nm))
        return CALIBRATION_STRANGE;
    bool has_passport = settings->passport_lambda0_nm > 0;
    if (has_passport && !(fabs(result->lambda0_nm - settings->passport_lambda0_nm) <= CELL_LAMBDA0_NM_MAX))
        return CALIBRATION_PASSPORT;
    return CALIBRATION_GOOD;
}

/* How far a sigma of the temperature moves R1. By a difference over a kelvin: the slope of the commonest correction
 * jumps at room temperature. */
static double temperature_nm_sigma(const struct corrected *corrected, const struct drawn_line *line)
{
    const double half_k = 0.5;
    if (!corrected->correction)
        return 0;
    return line->temperature_k_sigma *
           ruby_correction_shift_nm(corrected->correction, line->temperature_k + half_k, line->temperature_k - half_k);
}

void calibration_judge(const struct calibration *calibration, const struct calibration_settings *settings,
                       struct calibration_result *ret_result)
{
    assert(calibration->n == calibration->n_wanted && calibration->n >= CALIBRATION_READINGS_MIN);
    struct corrected corrected;
    correct(calibration, settings, &corrected);
    struct middle middle = find_middle(calibration, &corrected);
    struct drawn_line line = draw_line(calibration, &corrected, &middle);
    double temperature_nm = temperature_nm_sigma(&corrected, &line), stated_nm = settings->lambda0_nm_sigma;
    double scatter_nm = fmax(line.scatter_nm, middle.noise_nm);
    double common2 = middle.r1_nm_sigma * middle.r1_nm_sigma - middle.noise_nm * middle.noise_nm;
    double sigma2 = scatter_nm * scatter_nm / line.n + fmax(common2, 0);
    struct calibration_result result = {
        .n_used = line.n,
        .lambda0_nm = line.mean_nm,
        .lambda0_nm_sigma = sqrt(sigma2),
        .r1_nm = line.r1_nm,
        .scatter_nm = line.scatter_nm,
        .noise_nm = middle.noise_nm,
        .drift_nm = line.drift_nm,
        .tolerance_nm = STRANGE_SIGMA * sqrt(sigma2 + temperature_nm * temperature_nm + stated_nm * stated_nm),
        .temperature_k = line.temperature_k,
        .temperature_k_sigma = line.temperature_k_sigma,
    };
    result.verdict = judge(calibration, &line, &result, settings);
    *ret_result = result;
}
