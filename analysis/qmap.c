#include "analysis/qmap.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define H_C_EV_ANGSTROM 12398.419843320026 /* CODATA 2018, exact */
#define DEG_FROM_RAD (180.0 / M_PI)
#define PARTS_PER_BIN 16 /* along q and along phi: a factor of three across a bin is 2 per cent in a part's square */
#define PART_PIXELS_MEAN 512 /* speckle of contrast c lifts the profile's square by c / 512 at most */
#define GAP_CELLS 360        /* of the circle, to find what azimuth is covered */
#define GAP_CELLS_MIN 10     /* a narrower gap is a shadow, and the circle is whole */

/* ---- geometry ------------------------------------------------------------------------------------------------ */

double qmap_wavelength_angstrom(double photon_energy_ev)
{
    return photon_energy_ev > 0.0 ? H_C_EV_ANGSTROM / photon_energy_ev : 0.0;
}

double qmap_photon_energy_ev(const struct qmap_geometry *geometry)
{
    return H_C_EV_ANGSTROM / geometry->wavelength_angstrom;
}

struct qmap_geometry qmap_geometry_of_arm(double distance_m, const double beam_center_px[2], double pixel_size_m,
                                          double photon_energy_ev, const double arm_deg[2])
{
    return (struct qmap_geometry){
        .distance_m = distance_m,
        .poni_m = {(beam_center_px[1] + 0.5) * pixel_size_m, (beam_center_px[0] + 0.5) * pixel_size_m},
        .rotation_rad = {arm_deg[0] / DEG_FROM_RAD, -arm_deg[1] / DEG_FROM_RAD, 0.0},
        .wavelength_angstrom = qmap_wavelength_angstrom(photon_energy_ev),
        .pixel_size_m = {pixel_size_m, pixel_size_m},
        .orientation = 3};
}

bool qmap_is_stated(const struct qmap_geometry *geometry)
{
    return geometry->distance_m > 0.0 && geometry->wavelength_angstrom > 0.0 && geometry->pixel_size_m[0] > 0.0 &&
           geometry->pixel_size_m[1] > 0.0;
}

/* A pixel's centre is at origin + row * per_row + column * per_column, in m from the sample; axes 1, 2, 3. */
struct placement {
    double origin[3], per_row[3], per_column[3];
    double wavenumber_double; /* 4 pi / wavelength */
};

/* A vector of the detector's axes 1 and 2 and its normal, turned as the detector is. */
static void turn(const double rotation_rad[3], double along_1, double along_2, double along_3, double ret[3])
{
    double sin1 = sin(rotation_rad[0]), cos1 = cos(rotation_rad[0]), sin2 = sin(rotation_rad[1]);
    double cos2 = cos(rotation_rad[1]), sin3 = sin(rotation_rad[2]), cos3 = cos(rotation_rad[2]);
    double first_2 = along_2 * cos1 + along_3 * sin1, first_3 = along_3 * cos1 - along_2 * sin1;
    double second_1 = along_1 * cos2 - first_3 * sin2;
    ret[0] = second_1 * cos3 - first_2 * sin3;
    ret[1] = second_1 * sin3 + first_2 * cos3;
    ret[2] = along_1 * sin2 + first_3 * cos2;
}

static struct placement place(const struct qmap_geometry *geometry, size_t n_rows, size_t n_columns)
{
    bool is_upside_down = geometry->orientation == 1 || geometry->orientation == 2;
    bool is_mirrored = geometry->orientation == 1 || geometry->orientation == 4;
    double row_m = geometry->pixel_size_m[0], column_m = geometry->pixel_size_m[1];
    double first_row_m = is_upside_down ? ((double)n_rows - 0.5) * row_m : 0.5 * row_m;
    double first_column_m = is_mirrored ? ((double)n_columns - 0.5) * column_m : 0.5 * column_m;
    struct placement placement = {.wavenumber_double = 4.0 * M_PI / geometry->wavelength_angstrom};
    turn(geometry->rotation_rad, first_row_m - geometry->poni_m[0], first_column_m - geometry->poni_m[1],
         geometry->distance_m, placement.origin);
    turn(geometry->rotation_rad, is_upside_down ? -row_m : row_m, 0.0, 0.0, placement.per_row);
    turn(geometry->rotation_rad, 0.0, is_mirrored ? -column_m : column_m, 0.0, placement.per_column);
    return placement;
}

/* sin^2(theta) = (1 - cos(2 theta)) / 2, without the difference of two numbers that are nearly the same. */
static void locate(const struct placement *placement, size_t row, size_t column, double *ret_q, double *ret_phi)
{
    double at[3];
    for (int i = 0; i < 3; i++)
        at[i] = placement->origin[i] + (double)row * placement->per_row[i] + (double)column * placement->per_column[i];
    double across = at[0] * at[0] + at[1] * at[1], away = sqrt(across + at[2] * at[2]);
    double sin_squared = at[2] > 0.0 ? across / (2.0 * away * (away + at[2]))
                                     : (away - at[2]) / (2.0 * away); /* backwards: no such loss */
    *ret_q = placement->wavenumber_double * sqrt(sin_squared);
    *ret_phi = atan2(at[0], at[1]) * DEG_FROM_RAD;
}

void qmap_locate(const struct qmap_geometry *geometry, size_t n_rows, size_t n_columns, size_t row, size_t column,
                 double *ret_q_inv_angstrom, double *ret_phi_deg)
{
    const struct placement placement = place(geometry, n_rows, n_columns);
    locate(&placement, row, column, ret_q_inv_angstrom, ret_phi_deg);
}

/* On the detector's plane, axes 1 and 2 are 0 along the beam: two equations for row and column. */
void qmap_find_beam(const struct qmap_geometry *geometry, size_t n_rows, size_t n_columns, double ret_center_px[2],
                    double *ret_distance_m)
{
    const struct placement at = place(geometry, n_rows, n_columns);
    double determinant = at.per_row[0] * at.per_column[1] - at.per_row[1] * at.per_column[0];
    double row = (at.origin[1] * at.per_column[0] - at.origin[0] * at.per_column[1]) / determinant;
    double column = (at.origin[0] * at.per_row[1] - at.origin[1] * at.per_row[0]) / determinant;
    ret_center_px[0] = column;
    ret_center_px[1] = row;
    *ret_distance_m = at.origin[2] + row * at.per_row[2] + column * at.per_column[2];
}

/* ---- dividing ------------------------------------------------------------------------------------------------ */

/* While it is divided. The first coordinate is q or the row, the second phi or the column. */
struct work {
    const struct qmap_settings *settings;
    size_t n_pixels, n_valid;
    float *value[2];          /* [n_pixels] */
    struct qmap_range *bands; /* [n_bands] */
    struct qmap_range round;  /* of the second coordinate: what is divided into sectors */
    int parts[2];             /* of a band and of a sector, in the profile */
};

static void fill_values(struct work *work)
{
    const struct qmap_settings *settings = work->settings;
    struct placement placement = {0};
    if (settings->geometry)
        placement = place(settings->geometry, settings->n_rows, settings->n_columns);
    for (size_t row = 0, p = 0; row < settings->n_rows; row++)
        for (size_t column = 0; column < settings->n_columns; column++, p++) {
            double first = (double)row, second = (double)column;
            if (settings->geometry)
                locate(&placement, row, column, &first, &second);
            work->value[0][p] = (float)first;
            work->value[1][p] = (float)second;
        }
}

/* The range of a coordinate over the valid pixels; its upper edge just above the largest. */
static struct qmap_range range_of(const struct work *work, int coordinate)
{
    struct qmap_range range = {INFINITY, -INFINITY};
    for (size_t p = 0; p < work->n_pixels; p++) {
        double value = (double)work->value[coordinate][p];
        if (work->settings->is_masked[p])
            continue;
        range.min = value < range.min ? value : range.min;
        range.max = value > range.max ? value : range.max;
    }
    range.max = (double)nextafterf((float)range.max, INFINITY);
    return range;
}

/* Which band a value is in; -1: none. */
static int band_of(const struct work *work, double value)
{
    int low = 0, high = work->settings->n_bands;
    while (low < high) {
        int middle = (low + high) / 2;
        if (value >= work->bands[middle].max)
            low = middle + 1;
        else
            high = middle;
    }
    return low < work->settings->n_bands && value >= work->bands[low].min ? low : -1;
}

static void set_bands(struct work *work)
{
    const struct qmap_settings *settings = work->settings;
    if (settings->bands) {
        memcpy(work->bands, settings->bands, (size_t)settings->n_bands * sizeof *work->bands);
        return;
    }
    const struct qmap_range whole = range_of(work, 0);
    for (int b = 0; b < settings->n_bands; b++) {
        double width = (whole.max - whole.min) / settings->n_bands;
        work->bands[b].min = whole.min + b * width;
        work->bands[b].max = b + 1 == settings->n_bands ? whole.max : whole.min + (b + 1) * width;
    }
}

/* The azimuth that valid pixels of the bands cover: it ends where the widest gap begins. */
static void set_round(struct work *work)
{
    bool is_covered[GAP_CELLS] = {false};
    if (!work->settings->geometry) {
        work->round = range_of(work, 1);
        return;
    }
    for (size_t p = 0; p < work->n_pixels; p++)
        if (!work->settings->is_masked[p] && band_of(work, (double)work->value[0][p]) >= 0)
            is_covered[((int)floor((double)work->value[1][p]) + 180) % GAP_CELLS] = true;
    int gap = 0, widest = 0, gap_end = 0;
    for (int i = 0; i < 2 * GAP_CELLS; i++) {
        gap = is_covered[i % GAP_CELLS] ? 0 : gap + 1;
        if (gap > widest && gap <= GAP_CELLS) {
            widest = gap;
            gap_end = i + 1;
        }
    }
    work->round = (struct qmap_range){-180.0, 180.0};
    if (widest >= GAP_CELLS_MIN) {
        work->round.min = (double)(gap_end % GAP_CELLS - 180);
        work->round.max = work->round.min + (double)(GAP_CELLS - widest);
    }
}

/* How far along its divided range the second coordinate of a pixel is, 0 to 1. */
static double along_round(const struct work *work, size_t p)
{
    double value = (double)work->value[1][p];
    if (work->settings->geometry && value < work->round.min)
        value += 360.0;
    return (value - work->round.min) / (work->round.max - work->round.min);
}

static int clamp_index(double position, int n) { return position < 0.0 ? 0 : position >= n ? n - 1 : (int)position; }

/* The cell of a pixel in a grid of `parts` per band and per sector; -1: in none. */
static int cell_of(const struct work *work, size_t p, const int parts[2])
{
    double value = (double)work->value[0][p];
    int band = work->settings->is_masked[p] ? -1 : band_of(work, value);
    if (band < 0)
        return -1;
    const struct qmap_range *range = &work->bands[band];
    int n_round = work->settings->n_sectors * parts[1];
    int first = band * parts[0] + clamp_index((value - range->min) / (range->max - range->min) * parts[0], parts[0]);
    return first * n_round + clamp_index(along_round(work, p) * n_round, n_round);
}

/* Numbers the cells of the grid that have pixels. */
static void number_cells(const struct work *work, const int *cell_of_pixel, const size_t *n_in_cell, int *number,
                         struct qmap_division *division)
{
    int n_cells = division->n_grid[0] * division->n_grid[1];
    for (int cell = 0; cell < n_cells; cell++)
        if (n_in_cell[cell] > 0) {
            division->cell[division->n++] = cell;
            number[cell] = division->n;
        }
    for (size_t p = 0; p < work->n_pixels; p++)
        division->of_pixel[p] = cell_of_pixel[p] < 0 ? 0 : (uint16_t)number[cell_of_pixel[p]];
}

/* Mean q of every line of the grid, from the sums that stand there; the middles of the sectors. */
static void finish_grid(const struct work *work, const size_t *n_in_cell, struct qmap_division *division)
{
    int n_second = division->n_grid[1];
    for (int i = 0; i < division->n_grid[0]; i++) {
        size_t n = 0;
        for (int k = 0; k < n_second; k++)
            n += n_in_cell[i * n_second + k];
        division->grid[0][i] = n ? division->grid[0][i] / (double)n : NAN;
    }
    for (int i = 0; i < n_second; i++) {
        double middle = work->round.min + (i + 0.5) * (work->round.max - work->round.min) / n_second;
        division->grid[1][i] = middle > 180.0 && work->settings->geometry ? middle - 360.0 : middle;
    }
}

static int divide(const struct work *work, const int parts[2], struct qmap_division *division)
{
    size_t n_first = (size_t)work->settings->n_bands * (size_t)parts[0];
    size_t n_second = (size_t)work->settings->n_sectors * (size_t)parts[1], n_cells = n_first * n_second;
    size_t *n_in_cell = calloc(n_cells, sizeof *n_in_cell);
    int *number = calloc(n_cells, sizeof *number), *cell_of_pixel = malloc(work->n_pixels * sizeof *cell_of_pixel);
    division->n_grid[0] = (int)n_first;
    division->n_grid[1] = (int)n_second;
    division->grid[0] = calloc(n_first, sizeof(double));
    division->grid[1] = calloc(n_second, sizeof(double));
    division->of_pixel = malloc(work->n_pixels * sizeof *division->of_pixel);
    division->cell = calloc(n_cells, sizeof *division->cell);
    bool is_whole = n_in_cell && number && cell_of_pixel && division->grid[0] && division->grid[1] &&
                    division->of_pixel && division->cell;
    for (size_t p = 0; is_whole && p < work->n_pixels; p++) {
        int cell = cell_of_pixel[p] = cell_of(work, p, parts);
        if (cell < 0)
            continue;
        n_in_cell[cell]++;
        division->grid[0][(size_t)cell / n_second] += (double)work->value[0][p];
    }
    if (is_whole) {
        number_cells(work, cell_of_pixel, n_in_cell, number, division);
        finish_grid(work, n_in_cell, division);
    }
    free(n_in_cell);
    free(number);
    free(cell_of_pixel);
    return is_whole ? 0 : ERR_SYSTEM;
}

/* As many parts as leave enough of the n pixels in each; the azimuth gives way first. */
static void set_parts(struct work *work, size_t n)
{
    size_t n_bins = (size_t)work->settings->n_bands * (size_t)work->settings->n_sectors;
    work->parts[0] = work->parts[1] = PARTS_PER_BIN;
    while (work->parts[0] * work->parts[1] > 1) {
        size_t n_parts = n_bins * (size_t)work->parts[0] * (size_t)work->parts[1];
        if (n_parts <= QMAP_PARTS_MAX && n >= PART_PIXELS_MEAN * n_parts)
            break;
        work->parts[work->parts[1] >= work->parts[0]] /= 2;
    }
}

static int describe_bins(const struct work *work, struct qmap *qmap)
{
    const struct qmap_division *dynamic = &qmap->dynamic;
    qmap->bins = calloc((size_t)dynamic->n, sizeof *qmap->bins);
    if (!qmap->bins)
        return ERR_SYSTEM;
    double width = (work->round.max - work->round.min) / dynamic->n_grid[1];
    for (int b = 0; b < dynamic->n; b++) {
        int sector = dynamic->cell[b] % dynamic->n_grid[1];
        qmap->bins[b].q = work->bands[dynamic->cell[b] / dynamic->n_grid[1]];
        qmap->bins[b].phi.min = work->round.min + sector * width;
        qmap->bins[b].phi.max = work->round.min + (sector + 1) * width;
    }
    for (size_t p = 0; p < work->n_pixels; p++) {
        if (dynamic->of_pixel[p] == 0)
            continue;
        struct qmap_bin *bin = &qmap->bins[dynamic->of_pixel[p] - 1];
        bin->n_pixels++;
        bin->q_mean += (double)work->value[0][p];
        bin->phi_mean += along_round(work, p);
    }
    for (int b = 0; b < dynamic->n; b++) {
        struct qmap_bin *bin = &qmap->bins[b];
        bin->q_mean /= (double)bin->n_pixels;
        bin->phi_mean = work->round.min + bin->phi_mean / (double)bin->n_pixels * (work->round.max - work->round.min);
    }
    return 0;
}

static int check_settings(const struct qmap_settings *settings, struct err *err)
{
    assert(settings->n_bands >= 1 && settings->n_sectors >= 1);
    if (!settings->geometry && (settings->bands || settings->n_bands > 1 || settings->n_sectors > 1))
        return err_set(
            err, ERR_ARG,
            "bands of q and sectors need the geometry: the series does not state distance, photon energy and "
            "pixel size; state them with a .poni file");
    if (settings->n_bands > QMAP_BINS_MAX || settings->n_sectors > QMAP_BINS_MAX / settings->n_bands)
        return err_set(err, ERR_ARG, "%d bands in %d sectors are more than %d bins", settings->n_bands,
                       settings->n_sectors, QMAP_BINS_MAX);
    assert(!settings->geometry || qmap_is_stated(settings->geometry));
    return 0;
}

static int divide_all(struct work *work, struct qmap *qmap, struct err *err)
{
    const int whole[2] = {1, 1};
    fill_values(work);
    set_bands(work);
    set_round(work);
    int code = divide(work, whole, &qmap->dynamic);
    if (code == 0 && qmap->dynamic.n == 0) {
        const struct qmap_range range = range_of(work, 0);
        return err_set(err, ERR_DATA,
                       "no valid pixel lies in any band: those of the detector have q %.4g to %.4g/angstrom", range.min,
                       range.max);
    }
    if (code == 0)
        code = describe_bins(work, qmap);
    size_t n = 0;
    for (int b = 0; b < qmap->dynamic.n && code == 0; b++)
        n += qmap->bins[b].n_pixels;
    set_parts(work, n);
    return code ? code : divide(work, work->parts, &qmap->profile);
}

int qmap_divide(struct qmap **ret_qmap, const struct qmap_settings *settings, struct err *err)
{
    int code = check_settings(settings, err);
    if (code)
        return code;
    struct work work = {.settings = settings, .n_pixels = settings->n_rows * settings->n_columns};
    for (size_t p = 0; p < work.n_pixels; p++)
        work.n_valid += !settings->is_masked[p];
    if (work.n_valid == 0)
        return err_set(err, ERR_DATA, "0 valid pixels of %zu: nothing to correlate; check the masks", work.n_pixels);
    struct qmap *qmap = calloc(1, sizeof *qmap);
    work.bands = calloc((size_t)settings->n_bands, sizeof *work.bands);
    work.value[0] = malloc(work.n_pixels * sizeof *work.value[0]);
    work.value[1] = malloc(work.n_pixels * sizeof *work.value[1]);
    if (qmap && work.bands && work.value[0] && work.value[1]) {
        qmap->has_q = settings->geometry != NULL;
        qmap->n_rows = settings->n_rows;
        qmap->n_columns = settings->n_columns;
        code = divide_all(&work, qmap, err);
    } else {
        code = ERR_SYSTEM;
    }
    free(work.bands);
    free(work.value[0]);
    free(work.value[1]);
    if (code == 0) {
        *ret_qmap = qmap;
        return 0;
    }
    qmap_free(qmap);
    return code == ERR_SYSTEM ? err_set(err, code, "no memory for the q map of %zu pixels", work.n_pixels) : code;
}

static void free_division(struct qmap_division *division)
{
    free(division->grid[0]);
    free(division->grid[1]);
    free(division->of_pixel);
    free(division->cell);
}

void qmap_free(struct qmap *qmap)
{
    if (!qmap)
        return;
    free_division(&qmap->dynamic);
    free_division(&qmap->profile);
    free(qmap->bins);
    free(qmap);
}
