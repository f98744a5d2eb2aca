/* The devices that stand in for GPUs and NVSwitches: what they are, and whether this guest can use them. */
#pragma once

#include "pci.h"

/* Note the function if it is a stand-in. */
void stand_ins_note(pci_function function, uint32_t id);
/* Try every GPU, and print one line for each stand-in. The timer ticks. */
void stand_ins_try(void);
/* Print what all of them come to. */
void stand_ins_print_summary(uint32_t boots);
