/*
 * From the wavelength of a fluorescence line to pressure: every published scale as one row of one table, and the
 * corrections for the temperature of the gauge as another. Pure.
 *
 * The scales differ by 0.16 GPa at 7 GPa, 0.01 nm of lambda0 is 0.027 GPa, and 1 K is 0.02 GPa: a pressure without its
 * scale, lambda0 and temperatures is no record. A ruler is all of these together.
 *
 * With x = (lambda - lambda0) / lambda0 and d = lambda - lambda0, lambda corrected to the temperature of lambda0:
 *
 *   RUBY_LINEAR         P = a d                               a in GPa/nm
 *   RUBY_WAVENUMBER     P = a (1e7 / lambda0 - 1e7 / lambda)  a in GPa cm
 *   RUBY_POLYNOMIAL     P = a x (1 + b x)                     a in GPa
 *   RUBY_POWER          P = (a / b) ((1 + x)^b - 1)           a in GPa
 *   RUBY_POWER_THERMAL  the same with a, b that depend on the temperature, and with a correction of its own
 *   RUBY_RATIO          P = a d (1 + b d) / (1 + c d)         a in GPa/nm, b and c in 1/nm
 */
#ifndef ANALYSIS_RUBY_SCALE_H
#define ANALYSIS_RUBY_SCALE_H

enum ruby_form {
    RUBY_LINEAR,
    RUBY_WAVENUMBER,
    RUBY_POLYNOMIAL,
    RUBY_POWER,
    RUBY_POWER_THERMAL,
    RUBY_RATIO,
    RUBY_FORM_COUNT
};

enum ruby_gauge {
    RUBY_GAUGE_R1,       /* of ruby */
    RUBY_GAUGE_SAMARIUM, /* the 0-0 line of Sm2+:SrB4O7 */
    RUBY_GAUGE_DIAMOND,  /* the Raman edge of the anvil: where lambda is said, a shift in cm-1 is meant */
    RUBY_GAUGE_COUNT
};

struct ruby_scale {
    const char *name; /* as in the beamline file */
    enum ruby_gauge gauge;
    enum ruby_form form;
    double a, b, c;
    double pressure_gpa_max; /* to which it was measured; INFINITY where that is not known here */
    const char *medium;      /* in which it was measured; "" where that is not known here */
    const char *citation;
    const char *status; /* how sure the coefficients above are */
};

/* NULL when there is no such scale. */
const struct ruby_scale *ruby_scale_by_name(const char *name);
/* The rows of the table, index 0 (the default, ruby2020) upwards; NULL behind the last one. */
const struct ruby_scale *ruby_scale_at(int index);
const char *ruby_form_text(enum ruby_form form); /* its formula */

/* lambda_nm: the line at the temperature of lambda0_nm, 298 K with RUBY_POWER_THERMAL. The slope is its derivative with
 * respect to lambda_nm. */
double ruby_pressure_gpa(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm);
double ruby_slope_gpa_per_nm(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm);

/* How far a line is moved by a temperature. */
struct ruby_correction {
    const char *name;
    enum ruby_gauge gauge;
    double temperature_k_min, temperature_k_max;
    double (*shift_nm)(double temperature_k); /* from the paper's own reference temperature */
    const char *citation;
    const char *status;
};

/* NULL when there is no such correction; "datchi2007" is the default of ruby. */
const struct ruby_correction *ruby_correction_by_name(const char *name);
const struct ruby_correction *ruby_correction_at(int index);

/* By how much a line at temperature_k lies above where it is at temperature_k_zero; subtract it from the measured
 * wavelength. */
double ruby_correction_shift_nm(const struct ruby_correction *correction, double temperature_k,
                                double temperature_k_zero);
/* The same with datchi2007. */
double ruby_shift_nm(double temperature_k, double temperature_k_zero);

/* Ragan's R2, as far as the splitting of free ruby depends on the temperature: 1.43 nm at 296 K. */
double ruby_splitting_nm(double temperature_k);

struct ruby_ruler {
    const struct ruby_scale *scale;
    const struct ruby_correction *correction; /* of the scale's gauge; NULL: none. Not asked by RUBY_POWER_THERMAL */
    double lambda0_nm;                        /* at ambient pressure and temperature_k_zero */
    double temperature_k_zero;
};

/* lambda_nm as measured on a gauge of temperature_k. */
double ruby_ruler_pressure_gpa(const struct ruby_ruler *ruler, double lambda_nm, double temperature_k);

/* A pressure and what it is uncertain by; nothing is said here of the scale's own uncertainty, which moves all
 * pressures of a run alike. */
struct ruby_pressure {
    double gpa;
    double gpa_sigma;             /* of both together */
    double gpa_sigma_fit;         /* of the wavelength */
    double gpa_sigma_temperature; /* of the gauge's temperature */
};

struct ruby_pressure ruby_ruler_derive(const struct ruby_ruler *ruler, double lambda_nm, double lambda_nm_sigma,
                                       double temperature_k, double temperature_k_sigma);

#endif
