/* A line or an answer while it is being put together. What does not fit is left out. */
#pragma once

#include "machine.h"

#define TEXT_BYTES 2048

struct text {
    uint32_t length;
    char bytes[TEXT_BYTES];
};

void text_clear(struct text *text);
void text_put_char(struct text *text, char character);
void text_put(struct text *text, const char *string);
void text_put_span(struct text *text, const char *begin, const char *end);
void text_put_hex(struct text *text, uint32_t value, int digits);
void text_put_decimal(struct text *text, uint32_t value);
bool text_equals(const char *one, const char *other);
