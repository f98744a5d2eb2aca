/* A line or an answer while it is being put together. */

#include "text.h"

void text_clear(struct text *text) { text->length = 0; }

void text_put_char(struct text *text, char character)
{
    if (text->length < TEXT_BYTES)
        text->bytes[text->length++] = character;
}

void text_put(struct text *text, const char *string)
{
    while (*string)
        text_put_char(text, *string++);
}

void text_put_span(struct text *text, const char *begin, const char *end)
{
    while (begin < end)
        text_put_char(text, *begin++);
}

void text_put_hex(struct text *text, uint32_t value, int digits)
{
    while (digits-- > 0)
        text_put_char(text, "0123456789abcdef"[value >> (4 * digits) & 15]);
}

void text_put_decimal(struct text *text, uint32_t value)
{
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count > 0)
        text_put_char(text, digits[--count]);
}

bool text_equals(const char *one, const char *other)
{
    while (*one && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}
