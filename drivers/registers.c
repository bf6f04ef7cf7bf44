#include "drivers/registers.h"

#include <stddef.h>
#include <string.h>

void registers_pack_u32(uint32_t value, enum registers_order order, uint16_t ret_registers[2])
{
    ret_registers[order == REGISTERS_HIGH_FIRST ? 0 : 1] = (uint16_t)(value >> 16);
    ret_registers[order == REGISTERS_HIGH_FIRST ? 1 : 0] = (uint16_t)(value & 0xffff);
}

uint32_t registers_unpack_u32(const uint16_t registers[2], enum registers_order order)
{
    uint16_t high = registers[order == REGISTERS_HIGH_FIRST ? 0 : 1];
    uint16_t low = registers[order == REGISTERS_HIGH_FIRST ? 1 : 0];
    return (uint32_t)high << 16 | low;
}

void registers_pack_float(float value, enum registers_order order, uint16_t ret_registers[2])
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    registers_pack_u32(bits, order, ret_registers);
}

float registers_unpack_float(const uint16_t registers[2], enum registers_order order)
{
    uint32_t bits = registers_unpack_u32(registers, order);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void registers_pack_string(const char *text, uint16_t *ret_registers, int n_registers)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < (size_t)n_registers; i++) {
        unsigned high = 2 * i < length ? (unsigned char)text[2 * i] : ' ';
        unsigned low = 2 * i + 1 < length ? (unsigned char)text[2 * i + 1] : ' ';
        ret_registers[i] = (uint16_t)(high << 8 | low);
    }
}

void registers_unpack_string(const uint16_t *registers, int n_registers, char *ret_text)
{
    int length = 0;
    for (int i = 0; i < 2 * n_registers; i++) {
        ret_text[i] = (char)(i % 2 ? registers[i / 2] & 0xff : registers[i / 2] >> 8);
        if (ret_text[i] != ' ' && ret_text[i] != '\0')
            length = i + 1;
    }
    ret_text[length] = '\0';
}

int registers_find_run(const struct registers_entry *map, int n_entries, int address, int n_registers, int *ret_n_run)
{
    for (int first = 0; first < n_entries; first++) {
        if (map[first].address != address)
            continue;
        int end = address, n = 0;
        while (end < address + n_registers && first + n < n_entries && map[first + n].address == end)
            end += map[first + n++].n_registers;
        if (end != address + n_registers)
            return -1;
        *ret_n_run = n;
        return first;
    }
    return -1;
}
