#include "sim/spectrum.h"

#include <math.h>

#define R1_NM_AMBIENT 694.25
#define TEMPERATURE_K_AMBIENT 296.0
#define R1_NM_PER_K 0.0074
#define SHEN_A_GPA 1.87e3
#define SHEN_B 5.63
#define R1_FWHM_NM 0.62
#define R2_FWHM_NM 0.55
#define R2_SPLITTING_NM 1.44
#define R2_HEIGHT 0.68
#define LORENTZ_FRACTION 0.75
#define PHOTONS_PER_S 20000.0  /* at the top of R1 */
#define BACKGROUND_PER_S 400.0 /* fluorescence of the diamonds */
#define BACKGROUND_SLOPE_PER_NM -0.01
#define DARK_COUNTS 300.0
#define READ_NOISE_COUNTS 15.0
#define COUNTS_MAX 65535.0

double spectrum_r1_nm(double pressure_gpa, double temperature_k)
{
    /* A x (1 + B x) = P solved for the strain x of the wavelength */
    double strain = (sqrt(1 + 4 * SHEN_B * pressure_gpa / SHEN_A_GPA) - 1) / (2 * SHEN_B);
    return R1_NM_AMBIENT * (1 + strain) + R1_NM_PER_K * (temperature_k - TEMPERATURE_K_AMBIENT);
}

static double line(double distance_nm, double fwhm_nm)
{
    double u = 2 * distance_nm / fwhm_nm;
    return LORENTZ_FRACTION / (1 + u * u) + (1 - LORENTZ_FRACTION) * exp(-M_LN2 * u * u);
}

void spectrum_expect(const struct spectrum_scene *scene, const double *wavelength_nm, int n, double *ret_photons)
{
    double r1_nm = spectrum_r1_nm(scene->pressure_gpa, scene->temperature_k);
    for (int i = 0; i < n; i++) {
        double distance_nm = wavelength_nm[i] - r1_nm;
        double doublet = line(distance_nm, R1_FWHM_NM) + R2_HEIGHT * line(distance_nm + R2_SPLITTING_NM, R2_FWHM_NM);
        double slope = 1 + BACKGROUND_SLOPE_PER_NM * (wavelength_nm[i] - R1_NM_AMBIENT);
        double rate_per_s = PHOTONS_PER_S * doublet + BACKGROUND_PER_S * (slope > 0 ? slope : 0);
        ret_photons[i] = scene->is_lit ? rate_per_s * scene->exposure_s : 0.0;
    }
}

static double draw_poisson(struct random *random, double mean)
{
    if (mean > 50) /* the normal law is within the read noise from here on */
        return fmax(0, rint(mean + sqrt(mean) * random_normal(random)));
    double limit = exp(-mean), product = random_uniform(random);
    int n = 0;
    for (; product > limit; n++)
        product *= random_uniform(random);
    return n;
}

void spectrum_draw(struct random *random, const double *photons, int n, uint16_t *ret_counts)
{
    for (int i = 0; i < n; i++) {
        double counts = draw_poisson(random, photons[i]) + DARK_COUNTS + READ_NOISE_COUNTS * random_normal(random);
        ret_counts[i] = (uint16_t)fmin(fmax(rint(counts), 0), COUNTS_MAX);
    }
}
