#include "analysis/ruby_scale.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* ---- scales -------------------------------------------------------------------------------------------------- */

#define IN_PROGRAMS "coefficients as public programs have them; paper not seen"
#define IN_ABSTRACT "coefficients as in the paper's abstract"

static const struct ruby_scale SCALES[] = {
    {"ruby2020", RUBY_GAUGE_R1, RUBY_POLYNOMIAL, 1870.0, 5.63, 0, 150, "",
     "Shen et al., High Press. Res. 40, 299 (2020), doi 10.1080/08957959.2020.1791107",
     IN_ABSTRACT ": A 1870(10) GPa, B 5.63(3)"},
    {"mao1986", RUBY_GAUGE_R1, RUBY_POWER, 1904.0, 7.665, 0, 80, "argon",
     "Mao, Xu and Bell, J. Geophys. Res. 91, 4673 (1986), doi 10.1029/JB091iB05p04673", IN_PROGRAMS},
    {"forman1972", RUBY_GAUGE_R1, RUBY_WAVENUMBER, 1 / 7.7, 0, 0, 2.2, "",
     "Forman, Piermarini, Barnett and Block, Science 176, 284 (1972)", IN_ABSTRACT ": R1 -0.77(3) cm-1/kbar"},
    {"piermarini1975", RUBY_GAUGE_R1, RUBY_LINEAR, 2.746, 0, 0, 19.5, "sodium chloride",
     "Piermarini, Block, Barnett and Forman, J. Appl. Phys. 46, 2774 (1975), doi 10.1063/1.321957",
     "from memory: 2.746(14) GPa/nm; one public program has 2.740(16), which is 0.2 % less"},
    {"mao1978", RUBY_GAUGE_R1, RUBY_POWER, 1904.0, 5.0, 0, 100, "none: not hydrostatic",
     "Mao, Bell, Shaner and Steinberg, J. Appl. Phys. 49, 3276 (1978), doi 10.1063/1.325277", IN_PROGRAMS},
    {"dewaele2004", RUBY_GAUGE_R1, RUBY_POWER, 1904.0, 9.5, 0, 153, "helium",
     "Dewaele, Loubeyre and Mezouar, Phys. Rev. B 70, 094112 (2004)",
     "A as public programs have it, B from memory; one program has 9.61, which is that of 2008"},
    {"chijioke2005", RUBY_GAUGE_R1, RUBY_POWER, 1876.0, 10.71, 0, 150, "",
     "Chijioke, Nellis, Soldatov and Silvera, J. Appl. Phys. 98, 114905 (2005), doi 10.1063/1.2135877",
     IN_ABSTRACT ": A 1876(6.7) GPa, B 10.71(14)"},
    {"dorogokupets2007", RUBY_GAUGE_R1, RUBY_POLYNOMIAL, 1884.0, 5.5, 0, 150, "",
     "Dorogokupets and Oganov, Phys. Rev. B 75, 024115 (2007), equation 16", IN_PROGRAMS},
    {"dewaele2008", RUBY_GAUGE_R1, RUBY_POWER, 1920.0, 9.61, 0, 180, "helium",
     "Dewaele, Torrent, Loubeyre and Mezouar, Phys. Rev. B 78, 104102 (2008)", IN_PROGRAMS},
    {"jacobsen2008", RUBY_GAUGE_R1, RUBY_POWER, 1904.0, 10.32, 0, INFINITY, "helium",
     "Jacobsen et al., Am. Mineral. 93, 1823 (2008), doi 10.2138/am.2008.2988", IN_PROGRAMS ": B 10.32(7)"},
    {"wei2011", RUBY_GAUGE_R1, RUBY_POWER_THERMAL, 1915.0, 9.28, 0, INFINITY, "", "Wei et al., doi 10.1063/1.3624618",
     IN_PROGRAMS ": A 1915.0(9) + 0.622(7) dT, B 9.28(2) - 0.024(3) dT - 8.2e-7 dT^2, dT from 298 K"},
    {"liu2013", RUBY_GAUGE_R1, RUBY_POWER, 1904.0, 9.827, 0, INFINITY, "",
     "Liu et al., Chin. Phys. B 22, 056201 (2013)", IN_PROGRAMS},
    {"samarium_datchi1997", RUBY_GAUGE_SAMARIUM, RUBY_RATIO, 4.032, 9.29e-3, 2.32e-2, INFINITY, "",
     "Datchi, LeToullec and Loubeyre, J. Appl. Phys. 81, 3333 (1997)", IN_PROGRAMS "; citation from memory"},
    {"samarium_datchi2007", RUBY_GAUGE_SAMARIUM, RUBY_RATIO, 3.989, 6.915e-3, 1.66e-2, INFINITY, "",
     "Datchi et al., High Press. Res. 27, 447 (2007), doi 10.1080/08957950701659593", IN_PROGRAMS},
    {"samarium_rashchenko2015", RUBY_GAUGE_SAMARIUM, RUBY_POWER, 2836.0, -14.3, 0, INFINITY, "",
     "Rashchenko, Kurnosov, Dubrovinsky and Litasov, J. Appl. Phys. 117, 145902 (2015)", IN_PROGRAMS},
    {"samarium_rashchenko2015_ratio", RUBY_GAUGE_SAMARIUM, RUBY_RATIO, 4.20, 0.020, 0.036, INFINITY, "",
     "the same, as the ratio that approximates it", IN_PROGRAMS},
    {"akahama2006", RUBY_GAUGE_DIAMOND, RUBY_POLYNOMIAL, 547.0, 0.5 * (3.75 - 1), 0, INFINITY, "",
     "Akahama and Kawamura, J. Appl. Phys. 100, 043516 (2006)", IN_PROGRAMS "; useless below about 10 GPa"},
    {"eremets2023", RUBY_GAUGE_DIAMOND, RUBY_POLYNOMIAL, 517.0, 764.0 / 517.0, 0, INFINITY, "", "Eremets et al. (2023)",
     IN_PROGRAMS "; useless below about 10 GPa"},
};

const struct ruby_scale *ruby_scale_at(int index)
{
    return index >= 0 && index < COUNT_OF(SCALES) ? &SCALES[index] : NULL;
}

const struct ruby_scale *ruby_scale_by_name(const char *name)
{
    for (int i = 0; i < COUNT_OF(SCALES); i++)
        if (strcmp(SCALES[i].name, name) == 0)
            return &SCALES[i];
    return NULL;
}

const char *ruby_form_text(enum ruby_form form)
{
    static const char *const TEXTS[RUBY_FORM_COUNT] = {
        [RUBY_LINEAR] = "a (l - l0)",
        [RUBY_WAVENUMBER] = "a (1e7/l0 - 1e7/l)",
        [RUBY_POLYNOMIAL] = "a x (1 + b x)",
        [RUBY_POWER] = "(a/b) ((1 + x)^b - 1)",
        [RUBY_POWER_THERMAL] = "(a(T)/b(T)) ((l/l0(T))^b(T) - 1)",
        [RUBY_RATIO] = "a (l - l0) (1 + b (l - l0)) / (1 + c (l - l0))",
    };
    return TEXTS[form];
}

/* a and b of RUBY_POWER_THERMAL. */
#define THERMAL_K_ZERO 298.0

static void thermal_coefficients(const struct ruby_scale *scale, double temperature_k, double *ret_a, double *ret_b)
{
    double d = temperature_k - THERMAL_K_ZERO;
    *ret_a = scale->a + 0.622 * d;
    *ret_b = scale->b + d * (-0.024 - 8.2e-7 * d);
}

static double power_gpa(double a, double b, double x) { return a / b * expm1(b * log1p(x)); }

double ruby_pressure_gpa(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm)
{
    double d = lambda_nm - lambda0_nm, x = d / lambda0_nm;
    switch (scale->form) {
    case RUBY_LINEAR:
        return scale->a * d;
    case RUBY_WAVENUMBER:
        return scale->a * 1e7 * d / (lambda_nm * lambda0_nm);
    case RUBY_POLYNOMIAL:
        return scale->a * x * (1 + scale->b * x);
    case RUBY_RATIO:
        return scale->a * d * (1 + scale->b * d) / (1 + scale->c * d);
    default:
        return power_gpa(scale->a, scale->b, x);
    }
}

double ruby_slope_gpa_per_nm(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm)
{
    double d = lambda_nm - lambda0_nm, x = d / lambda0_nm, c = scale->c;
    switch (scale->form) {
    case RUBY_LINEAR:
        return scale->a;
    case RUBY_WAVENUMBER:
        return scale->a * 1e7 / (lambda_nm * lambda_nm);
    case RUBY_POLYNOMIAL:
        return scale->a * (1 + 2 * scale->b * x) / lambda0_nm;
    case RUBY_RATIO:
        return scale->a * (1 + scale->b * d * (2 + c * d)) / ((1 + c * d) * (1 + c * d));
    default:
        return scale->a * pow(1 + x, scale->b - 1) / lambda0_nm;
    }
}

/* ---- temperature --------------------------------------------------------------------------------------------- */

/* Equations 2 to 4. */
static double datchi2007_nm(double temperature_k)
{
    double d = temperature_k - 296;
    if (temperature_k <= 50)
        return -0.887;
    if (temperature_k < 296)
        return d * (0.00664 + d * (6.76e-6 - d * 2.33e-8));
    return d * (0.00746 + d * (-3.01e-6 + d * 8.76e-9));
}

static double datchi1997_nm(double temperature_k) { return 0.00726 * (temperature_k - 296); }

static double ragan_r1_nm(double t) { return 1e7 / (14423 + t * (4.49e-2 + t * (-4.81e-4 + t * 3.71e-7))); }

static double ragan_r2_nm(double t) { return 1e7 / (14452 + t * (3.00e-2 + t * (-3.88e-4 + t * 2.55e-7))); }

static double ragan1992_nm(double temperature_k) { return ragan_r1_nm(temperature_k) - ragan_r1_nm(296); }

double ruby_splitting_nm(double temperature_k) { return ragan_r1_nm(temperature_k) - ragan_r2_nm(temperature_k); }

static double vos1991_nm(double temperature_k)
{
    double d = temperature_k - 300;
    return 0.1 * d * (6.591e-2 + d * (7.624e-5 - d * 1.733e-7));
}

static double wei2011_nm(double temperature_k) { return 0.0063 * (temperature_k - THERMAL_K_ZERO); }

static double samarium_nm(double temperature_k)
{
    double d = temperature_k - 296;
    return d * (-8.7e-5 + d * (4.62e-6 - d * 2.38e-9));
}

static const struct ruby_correction CORRECTIONS[] = {
    {"datchi2007", RUBY_GAUGE_R1, 0, 900, datchi2007_nm,
     "Datchi et al., High Press. Res. 27, 447 (2007), doi 10.1080/08957950701659593, equations 2 to 4",
     IN_PROGRAMS "; its slope jumps at 296 K, 0.00664 below and 0.00746 nm/K above"},
    {"ragan1992", RUBY_GAUGE_R1, 15, 600, ragan1992_nm,
     "Ragan, Gustavsen and Schiferl, J. Appl. Phys. 72, 5539 (1992), doi 10.1063/1.351951", IN_PROGRAMS},
    {"vos1991", RUBY_GAUGE_R1, 30, 600, vos1991_nm,
     "Vos and Schouten, J. Appl. Phys. 69, 6744 (1991), doi 10.1063/1.348903",
     IN_PROGRAMS "; its range is that of the test vectors"},
    {"datchi1997", RUBY_GAUGE_R1, 296, 600, datchi1997_nm,
     "Datchi, LeToullec and Loubeyre, J. Appl. Phys. 81, 3333 (1997)", "from memory: 0.00726(1) nm/K; near 296 K only"},
    {"wei2011", RUBY_GAUGE_R1, 298, 600, wei2011_nm, "Wei et al., doi 10.1063/1.3624618",
     IN_PROGRAMS ": 0.0063(2) nm/K; belongs to the scale of that name"},
    {"samarium_datchi2007", RUBY_GAUGE_SAMARIUM, 296, 900, samarium_nm,
     "Datchi et al., High Press. Res. 27, 447 (2007), doi 10.1080/08957950701659593", IN_PROGRAMS},
};

const struct ruby_correction *ruby_correction_at(int index)
{
    return index >= 0 && index < COUNT_OF(CORRECTIONS) ? &CORRECTIONS[index] : NULL;
}

const struct ruby_correction *ruby_correction_by_name(const char *name)
{
    for (int i = 0; i < COUNT_OF(CORRECTIONS); i++)
        if (strcmp(CORRECTIONS[i].name, name) == 0)
            return &CORRECTIONS[i];
    return NULL;
}

double ruby_correction_shift_nm(const struct ruby_correction *correction, double temperature_k,
                                double temperature_k_zero)
{
    return correction->shift_nm(temperature_k) - correction->shift_nm(temperature_k_zero);
}

double ruby_shift_nm(double temperature_k, double temperature_k_zero)
{
    return datchi2007_nm(temperature_k) - datchi2007_nm(temperature_k_zero);
}

/* ---- the ruler ----------------------------------------------------------------------------------------------- */

double ruby_ruler_pressure_gpa(const struct ruby_ruler *ruler, double lambda_nm, double temperature_k)
{
    if (ruler->scale->form == RUBY_POWER_THERMAL) {
        double lambda0_nm = ruler->lambda0_nm + wei2011_nm(temperature_k) - wei2011_nm(ruler->temperature_k_zero);
        double a, b;
        thermal_coefficients(ruler->scale, temperature_k, &a, &b);
        return power_gpa(a, b, (lambda_nm - lambda0_nm) / lambda0_nm);
    }
    double shift_nm = 0;
    if (ruler->correction)
        shift_nm = ruby_correction_shift_nm(ruler->correction, temperature_k, ruler->temperature_k_zero);
    return ruby_pressure_gpa(ruler->scale, lambda_nm - shift_nm, ruler->lambda0_nm);
}

struct ruby_pressure ruby_ruler_derive(const struct ruby_ruler *ruler, double lambda_nm, double lambda_nm_sigma,
                                       double temperature_k, double temperature_k_sigma)
{
    /* Differences over one sigma to either side: the slope of the commonest correction jumps at room temperature. */
    double t = temperature_k_sigma, l = lambda_nm_sigma;
    struct ruby_pressure pressure = {.gpa = ruby_ruler_pressure_gpa(ruler, lambda_nm, temperature_k)};
    pressure.gpa_sigma_fit = fabs(ruby_ruler_pressure_gpa(ruler, lambda_nm + l, temperature_k) -
                                  ruby_ruler_pressure_gpa(ruler, lambda_nm - l, temperature_k)) /
                             2;
    pressure.gpa_sigma_temperature = fabs(ruby_ruler_pressure_gpa(ruler, lambda_nm, temperature_k + t) -
                                          ruby_ruler_pressure_gpa(ruler, lambda_nm, temperature_k - t)) /
                                     2;
    pressure.gpa_sigma = hypot(pressure.gpa_sigma_fit, pressure.gpa_sigma_temperature);
    return pressure;
}
