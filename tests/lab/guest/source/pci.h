/* PCI configuration space, by the two ports that every PC has; and finding all functions there are. */
#pragma once

#include "text.h"

enum {
    PCI_ID = 0x00,
    PCI_COMMAND = 0x04,
    PCI_CLASS = 0x08,
    PCI_HEADER = 0x0c,
    PCI_BAR_0 = 0x10,
    PCI_BUSES = 0x18,
    PCI_CAPABILITIES = 0x34,
};

/* bus << 8 | device << 3 | function */
typedef uint16_t pci_function;

uint8_t pci_read8(pci_function function, uint8_t offset);
uint32_t pci_read32(pci_function function, uint8_t offset);
void pci_write8(pci_function function, uint8_t offset, uint8_t value);
void pci_write32(pci_function function, uint8_t offset, uint32_t value);

/* Let the function answer memory accesses and make its own. */
void pci_enable(pci_function function);
/* Return where a memory BAR lies; 0 if the firmware has placed it nowhere or above 4 GiB, which is out of reach. */
uint32_t pci_bar(pci_function function, int index);
/* Call `found` with every function and its PCI_ID, in order of their addresses. */
void pci_scan(void (*found)(pci_function function, uint32_t id));
void text_put_pci(struct text *text, pci_function function);
