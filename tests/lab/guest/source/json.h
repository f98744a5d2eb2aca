/* Reading JSON in place: a value is where it begins in a line that ends in a zero. Null stands for "no such value". */
#pragma once

#include "text.h"

/* Return where the value ends; null if it does not. */
const char *json_end(const char *value);
/* Return an object's member of that name. */
const char *json_member(const char *object, const char *name);
/* Return an array's last item. */
const char *json_last_item(const char *array);
/* Return whether the value is this string; the string has no escapes. */
bool json_is_string(const char *value, const char *expected);
/* Append a string's characters, unescaped. What would break a line becomes a space. */
void json_put_string(struct text *text, const char *string);
