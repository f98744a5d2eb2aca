/* PCI configuration space, and finding all functions there are.

   Buses are found by following bridges, which is a few hundred accesses instead of some ten thousand for all 256 buses:
   under nested emulation that is most of a second. An expander's root bus hangs below no bridge; if one is seen, all
   buses are searched after all. */

#include "pci.h"

enum {
    ADDRESS_PORT = 0xcf8,
    DATA_PORT = 0xcfc,
    ABSENT = 0xffffffff,
    COMMAND_MEMORY_AND_MASTER = 0x06,
    BUSES = 256,
    DEVICES = 32,
    FUNCTIONS = 8,
    HEADER_IS_BRIDGE = 1,
    BAR_IS_PORT = 1,
    BAR_IS_64_BIT = 4,
};

/* PCI IDs are read with the vendor below: pxb, pxb-pcie. */
static const uint32_t expanders[] = {0x00091b36, 0x000b1b36};

static void select_register(pci_function function, uint8_t offset)
{
    outl(ADDRESS_PORT, 0x80000000u | (uint32_t)function << 8 | (offset & 0xfcu));
}

uint8_t pci_read8(pci_function function, uint8_t offset)
{
    select_register(function, offset);
    return inb(DATA_PORT + (offset & 3));
}

uint32_t pci_read32(pci_function function, uint8_t offset)
{
    select_register(function, offset);
    return inl(DATA_PORT);
}

void pci_write8(pci_function function, uint8_t offset, uint8_t value)
{
    select_register(function, offset);
    outb(DATA_PORT + (offset & 3), value);
}

void pci_write32(pci_function function, uint8_t offset, uint32_t value)
{
    select_register(function, offset);
    outl(DATA_PORT, value);
}

void pci_enable(pci_function function)
{
    /* The status in the upper half is cleared by ones: write zeros there. */
    uint32_t command = pci_read32(function, PCI_COMMAND) & 0xffff;
    pci_write32(function, PCI_COMMAND, command | COMMAND_MEMORY_AND_MASTER);
}

uint32_t pci_bar(pci_function function, int index)
{
    uint8_t offset = (uint8_t)(PCI_BAR_0 + 4 * index);
    uint32_t low = pci_read32(function, offset);
    if (low & BAR_IS_PORT)
        return 0;
    if ((low & BAR_IS_64_BIT) && pci_read32(function, offset + 4))
        return 0;
    return low & ~15u;
}

static bool is_expander(uint32_t id)
{
    for (unsigned at = 0; at < sizeof expanders / sizeof *expanders; at++)
        if (id == expanders[at])
            return true;
    return false;
}

struct search {
    void (*found)(pci_function function, uint32_t id);
    bool is_everywhere;
    bool has_bus[BUSES];
};

/* Return whether the device may have more functions. */
static bool visit(struct search *search, pci_function function, uint32_t id)
{
    uint8_t header = (uint8_t)(pci_read32(function, PCI_HEADER) >> 16);
    if ((header & 0x7f) == HEADER_IS_BRIDGE) {
        /* The firmware numbers buses downwards, so the one below is still to come. */
        search->has_bus[pci_read32(function, PCI_BUSES) >> 8 & 0xff] = true;
        pci_enable(function);
    }
    search->is_everywhere |= is_expander(id);
    search->found(function, id);
    return header & 0x80;
}

static void scan_device(struct search *search, pci_function first)
{
    uint32_t id = pci_read32(first, PCI_ID);
    if (id == ABSENT || !visit(search, first, id))
        return;
    for (pci_function function = first + 1; function < first + FUNCTIONS; function++) {
        id = pci_read32(function, PCI_ID);
        if (id != ABSENT)
            visit(search, function, id);
    }
}

void pci_scan(void (*found)(pci_function function, uint32_t id))
{
    static struct search search;
    search.found = found;
    search.has_bus[0] = true;
    for (uint32_t bus = 0; bus < BUSES; bus++) {
        if (!search.has_bus[bus] && !search.is_everywhere)
            continue;
        for (uint32_t device = 0; device < DEVICES; device++)
            scan_device(&search, (pci_function)(bus << 8 | device << 3));
    }
}

void text_put_pci(struct text *text, pci_function function)
{
    text_put_hex(text, function >> 8, 2);
    text_put_char(text, ':');
    text_put_hex(text, function >> 3 & 31, 2);
    text_put_char(text, '.');
    text_put_hex(text, function & 7, 1);
}
