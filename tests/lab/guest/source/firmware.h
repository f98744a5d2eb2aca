/* What QEMU tells every guest about its machine. */
#pragma once

#include "machine.h"

/* Return the number of processors; 0 if this is not QEMU. */
uint32_t firmware_processors(void);
/* Return the memory in MiB; 0 if this is not QEMU. */
uint32_t firmware_memory_mib(void);
