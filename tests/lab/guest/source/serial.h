/* The serial console, COM1: where the guest says what it sees. */
#pragma once

#include "text.h"

void serial_start(void);
void serial_write(const char *bytes, uint32_t length);
/* Print one line; "GUEST " and the line's end are added. */
void serial_print(const struct text *line);
void serial_print_string(const char *line);
