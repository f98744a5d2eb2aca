/* What QEMU tells every guest about its machine, by the fw_cfg device: select an item, then read it byte by byte. */

#include "firmware.h"

enum {
    SELECT_PORT = 0x510,
    DATA_PORT = 0x511,
    ITEM_SIGNATURE = 0x00,
    ITEM_MEMORY_BYTES = 0x03,
    ITEM_PROCESSORS = 0x05,
    SIGNATURE = 0x554d4551, /* "QEMU" */
};

static uint32_t read_next_word(void)
{
    uint32_t value = 0;
    for (int shift = 0; shift < 32; shift += 8)
        value |= (uint32_t)inb(DATA_PORT) << shift;
    return value;
}

static bool select_item(uint16_t item)
{
    outw(SELECT_PORT, ITEM_SIGNATURE);
    if (read_next_word() != SIGNATURE)
        return false;
    outw(SELECT_PORT, item);
    return true;
}

uint32_t firmware_processors(void)
{
    return select_item(ITEM_PROCESSORS) ? read_next_word() & 0xffff : 0;
}

uint32_t firmware_memory_mib(void)
{
    if (!select_item(ITEM_MEMORY_BYTES))
        return 0;
    uint32_t low = read_next_word();
    return read_next_word() << 12 | low >> 20;
}
