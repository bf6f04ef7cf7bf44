/*
 * Parser: spectra on file (analysis/spectrum_file): text, SPE 2, SPE 3, each as it is and as Raman shifts. Property:
 * what is accepted has 16 to n_max points, finite, ascending in wavelength. What is refused is refused with a sentence.
 */
#include <math.h>
#include <string.h>

#include "analysis/spectrum_file.h"
#include "tests/fuzz.h"

#define POINTS_MAX 2048
#define SPE_HEADER 4100

const char *const fuzz_words[] = {";",
                                  ",",
                                  "\t",
                                  "\r\n",
                                  "694.25",
                                  "694,25",
                                  "1e308",
                                  "-",
                                  "#",
                                  ">",
                                  "nan",
                                  "inf",
                                  "\xff\xff\x7f\x7f",
                                  "\xff\xff\xff\x7f",
                                  "<Wavelength ",
                                  "<Wavelength>",
                                  "</Wavelength>",
                                  "\xef\xbb\xbf",
                                  NULL};

static void plant_text(const char *format, const char *header, double step)
{
    char text[4000] = "";
    size_t n = (size_t)snprintf(text, sizeof text, "%s", header);
    for (int i = 0; i < 20; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, format, 690 + step * i, 100.0 + i * i);
    fuzz_plant(text, n);
}

static void plant_spe(float version, int type, int n_bytes_value)
{
    static unsigned char bytes[SPE_HEADER + 4000];
    memset(bytes, 0, sizeof bytes);
    uint16_t n_columns = 20, n_rows = 2;
    int16_t kind = (int16_t)type;
    double c[6] = {690, 0.5};
    size_t n = SPE_HEADER + (size_t)n_columns * n_rows * (size_t)n_bytes_value;
    uint64_t footer = n;
    memcpy(bytes + 42, &n_columns, 2);
    memcpy(bytes + 108, &kind, 2);
    memcpy(bytes + 656, &n_rows, 2);
    memcpy(bytes + 1992, &version, 4);
    bytes[3098] = 1;
    bytes[3101] = 1;
    memcpy(bytes + 3263, c, sizeof c);
    if (version >= 3) {
        memcpy(bytes + 678, &footer, 8);
        n += (size_t)snprintf((char *)bytes + n, 100, "<Calibrations><Wavelength xml:space=\"x\">");
        for (int i = 0; i < n_columns; i++)
            n += (size_t)snprintf((char *)bytes + n, 20, "%s%g", i ? "," : "", 690 + 0.1 * i);
        n += (size_t)snprintf((char *)bytes + n, 40, "</Wavelength></Calibrations>");
    }
    fuzz_plant(bytes, n);
}

void fuzz_plant_seeds(void)
{
    plant_text("%.3f\t%.1f\n", "SpectraSuite Data File\n>>>>>Begin Spectral Data<<<<<\n", 0.5);
    plant_text("%.2f;%.0f\r\n", "", -0.5);
    plant_text("%.4f, %.2f\n", "# nm, counts\n", 0.02);
    plant_text("%.0f,5 %.0f,25\n", "\xef\xbb\xbfnm counts\n", 1.0);
    static const int TYPES[][2] = {{0, 4}, {1, 4}, {2, 2}, {3, 2}, {8, 4}};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        plant_spe(2.5f, TYPES[i][0], TYPES[i][1]);
        plant_spe(3.0f, TYPES[i][0], TYPES[i][1]);
    }
}

static void read_as(const char *path, double laser_nm)
{
    static double nm[POINTS_MAX], counts[POINTS_MAX];
    struct err err = {0};
    int n = -1, code = spectrum_file_read(path, laser_nm, nm, counts, POINTS_MAX, &n, &err);
    if (code) {
        FUZZ_CHECK(code < 0 && err.message[0] && n == -1, "code %d, %d points", code, n);
        return;
    }
    FUZZ_CHECK(n >= 16 && n <= POINTS_MAX, "%d points", n);
    for (int i = 0; i < n; i++)
        FUZZ_CHECK(isfinite(nm[i]) && isfinite(counts[i]) && (i == 0 || nm[i] > nm[i - 1]), "point %d: %g nm, %g", i,
                   nm[i], counts[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file(data, size);
    read_as(path, 0);
    read_as(path, 532);
    return 0;
}
