#include "drivers/alicat.h"

#include <math.h>

#define SIGNATURE_TOLERANCE 1e-6f /* its last digit */

const struct registers_entry alicat_registers[ALICAT_PARAMETER_COUNT] = {
#define X(name, address, n_registers, type, is_writable, least, greatest)                                              \
    [ALICAT_##name] = {#name, address, n_registers, type, is_writable, least, greatest},
    ALICAT_LIST(X)
#undef X
};

bool alicat_find_order(const uint16_t signature[2], enum registers_order *ret_order)
{
    for (int order = 0; order < REGISTERS_ORDER_COUNT; order++) {
        float value = registers_unpack_float(signature, (enum registers_order)order);
        if (fabsf(value - ALICAT_SIGNATURE_VALUE) <= SIGNATURE_TOLERANCE) {
            *ret_order = (enum registers_order)order;
            return true;
        }
    }
    return false;
}
