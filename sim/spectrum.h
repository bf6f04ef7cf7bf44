/*
 * The light of a ruby as a spectrometer counts it. Pure: no clock, no descriptor.
 *
 * R1 and R2 are pseudo-Voigt lines (full widths 0.62 and 0.55 nm, as on an HR4000; R2 1.44 nm below R1 with 0.68 of
 * its height) on a sloping background. R1 is at 694.25 nm at ambient pressure and 296 K, moves by 0.0074 nm per kelvin
 * and by the inverse of Ruby2020 (Shen et al., High Press. Res. 40, 299 (2020), doi 10.1080/08957959.2020.1791107),
 * which is coded here a second time on purpose: the simulator never uses the ruler that is to be tested on it.
 */
#ifndef SIM_SPECTRUM_H
#define SIM_SPECTRUM_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/random.h"

struct spectrum_scene {
    double pressure_gpa;
    double temperature_k;
    double exposure_s;
    bool is_lit; /* the optics are in place and the laser is on; otherwise no light reaches the spectrometer */
};

/* Where R1 is, nm. */
double spectrum_r1_nm(double pressure_gpa, double temperature_k);

/* Photons expected by each pixel; ret_photons: [n]. About 10000 at the top of R1 for 0.5 s. */
void spectrum_expect(const struct spectrum_scene *scene, const double *wavelength_nm, int n, double *ret_photons);

/* One frame: Poisson photons, a dark offset of 300 and read noise of 15 counts, 16 bits. ret_counts: [n]. */
void spectrum_draw(struct random *random, const double *photons, int n, uint16_t *ret_counts);

#endif
