#include "drivers/elpress.h"

#include <assert.h>
#include <math.h>
#include <string.h>

const struct elpress_register elpress_registers[ELPRESS_PARAMETER_COUNT] = {
#define X(name, address, n_registers, type, is_writable, least, greatest)                                              \
    [ELPRESS_##name] = {#name, address, n_registers, type, is_writable, least, greatest},
    ELPRESS_LIST(X)
#undef X
};

void elpress_pack_float(float value, uint16_t ret_registers[2])
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    ret_registers[0] = (uint16_t)(bits >> 16);
    ret_registers[1] = (uint16_t)(bits & 0xffff);
}

float elpress_unpack_float(const uint16_t registers[2])
{
    uint32_t bits = (uint32_t)registers[0] << 16 | registers[1];
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void elpress_pack_string(const char *text, uint16_t *ret_registers, int n_registers)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < (size_t)n_registers; i++) {
        unsigned high = 2 * i < length ? (unsigned char)text[2 * i] : ' ';
        unsigned low = 2 * i + 1 < length ? (unsigned char)text[2 * i + 1] : ' ';
        ret_registers[i] = (uint16_t)(high << 8 | low);
    }
}

void elpress_unpack_string(const uint16_t *registers, int n_registers, char *ret_text)
{
    int length = 0;
    for (int i = 0; i < 2 * n_registers; i++) {
        ret_text[i] = (char)(i % 2 ? registers[i / 2] & 0xff : registers[i / 2] >> 8);
        if (ret_text[i] != ' ' && ret_text[i] != '\0')
            length = i + 1;
    }
    ret_text[length] = '\0';
}

int elpress_slope_from_rate(double rate_bar_per_min, double capacity_bar)
{
    assert(rate_bar_per_min > 0 && capacity_bar > 0);
    double slope = capacity_bar / (rate_bar_per_min / 60) / ELPRESS_SLOPE_S;
    double slope_max = elpress_registers[ELPRESS_SLOPE].greatest;
    if (!(slope < slope_max))
        return (int)slope_max;
    int slope_next = (int)ceil(slope * (1 - 1e-12)); /* a rate the device can do exactly must not be rounded past it */
    return slope_next > 1 ? slope_next : 1;
}

double elpress_rate_from_slope(int slope, double capacity_bar)
{
    return slope > 0 ? capacity_bar / (slope * ELPRESS_SLOPE_S) * 60 : INFINITY;
}

int elpress_find_run(int address, int n_registers, int *ret_n_parameters)
{
    for (int first = 0; first < ELPRESS_PARAMETER_COUNT; first++) {
        if (elpress_registers[first].address != address)
            continue;
        int end = address, n = 0;
        while (end < address + n_registers && first + n < ELPRESS_PARAMETER_COUNT &&
               elpress_registers[first + n].address == end)
            end += elpress_registers[first + n++].n_registers;
        if (end != address + n_registers)
            return -1;
        *ret_n_parameters = n;
        return first;
    }
    return -1;
}
