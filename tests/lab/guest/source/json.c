/* Reading JSON in place. Lenient: what is well-formed is read rightly, what is not ends somewhere within its line. */

#include "json.h"

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n')
        at++;
    return at;
}

static const char *end_of_string(const char *string)
{
    for (const char *at = string + 1; *at; at++) {
        if (*at == '"')
            return at + 1;
        if (*at == '\\' && !*++at)
            return NULL;
    }
    return NULL;
}

static const char *end_of_nested(const char *value)
{
    int depth = 0;
    for (const char *at = value; at && *at;) {
        if (*at == '"') {
            at = end_of_string(at);
            continue;
        }
        if (*at == '{' || *at == '[')
            depth++;
        if (*at == '}' || *at == ']')
            depth--;
        at++;
        if (depth == 0)
            return at;
    }
    return NULL;
}

static const char *end_of_word(const char *word)
{
    const char *at = word;
    while (*at && *at != ',' && *at != '}' && *at != ']' && *at != ' ' && *at != '\t' && *at != '\r')
        at++;
    return at > word ? at : NULL;
}

const char *json_end(const char *value)
{
    if (*value == '"')
        return end_of_string(value);
    if (*value == '{' || *value == '[')
        return end_of_nested(value);
    return end_of_word(value);
}

/* Return where the item after this one begins; null after the last. */
static const char *next_item(const char *item)
{
    const char *end = json_end(item);
    if (!end)
        return NULL;
    end = skip_space(end);
    return *end == ',' ? skip_space(end + 1) : NULL;
}

static const char *member_value(const char *name)
{
    const char *end = json_end(name);
    if (!end)
        return NULL;
    end = skip_space(end);
    return *end == ':' ? skip_space(end + 1) : NULL;
}

const char *json_member(const char *object, const char *name)
{
    if (!object)
        return NULL;
    object = skip_space(object);
    if (*object != '{')
        return NULL;
    const char *at = skip_space(object + 1);
    while (at && *at == '"') {
        const char *value = member_value(at);
        if (!value || json_is_string(at, name))
            return value;
        at = next_item(value);
    }
    return NULL;
}

const char *json_last_item(const char *array)
{
    if (!array || *array != '[')
        return NULL;
    const char *last = NULL;
    for (const char *item = skip_space(array + 1); item && *item && *item != ']'; item = next_item(item))
        last = item;
    return last;
}

bool json_is_string(const char *value, const char *expected)
{
    if (!value || *value++ != '"')
        return false;
    while (*expected && *value == *expected) {
        value++;
        expected++;
    }
    return !*expected && *value == '"';
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* Return the code after \u, or -1. */
static int read_code(const char *digits)
{
    int code = 0;
    for (int at = 0; at < 4; at++) {
        int digit = hex_digit(digits[at]);
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

static void put_printable(struct text *text, char character)
{
    text_put_char(text, (unsigned char)character < ' ' ? ' ' : character);
}

static void put_utf8(struct text *text, int code)
{
    if (code < 0x80) {
        put_printable(text, (char)code);
    } else if (code < 0x800) {
        text_put_char(text, (char)(0xc0 | code >> 6));
        text_put_char(text, (char)(0x80 | (code & 0x3f)));
    } else if (code >= 0xd800 && code < 0xe000) {
        text_put_char(text, '?'); /* half of a pair: beyond what a console line needs */
    } else {
        text_put_char(text, (char)(0xe0 | code >> 12));
        text_put_char(text, (char)(0x80 | (code >> 6 & 0x3f)));
        text_put_char(text, (char)(0x80 | (code & 0x3f)));
    }
}

/* Append what the escape stands for, and return its last character. */
static const char *put_escaped(struct text *text, const char *escaped)
{
    int code = *escaped == 'u' ? read_code(escaped + 1) : -1;
    if (code >= 0) {
        put_utf8(text, code);
        return escaped + 4;
    }
    bool is_space = *escaped == 'n' || *escaped == 'r' || *escaped == 't' || *escaped == 'b' || *escaped == 'f';
    put_printable(text, is_space ? ' ' : *escaped);
    return escaped;
}

void json_put_string(struct text *text, const char *string)
{
    if (!string || *string != '"' || !end_of_string(string))
        return;
    for (const char *at = string + 1; *at != '"'; at++) {
        if (*at == '\\')
            at = put_escaped(text, at + 1);
        else
            put_printable(text, *at);
    }
}
