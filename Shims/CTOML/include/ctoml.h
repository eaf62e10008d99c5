/* C interface to the C++ parser toml++: parses a TOML document and passes its values to callbacks. */
#ifndef DIGLETT_CTOML_H
#define DIGLETT_CTOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    ctoml_table,
    ctoml_array,
    ctoml_string,
    ctoml_integer,
    ctoml_float,
    ctoml_boolean,
    /* A date or a time. */
    ctoml_other,
} ctoml_kind;

/* UTF-8 without a terminating zero. Valid only during the call. */
typedef struct {
    const char *bytes;
    size_t count;
} ctoml_text;

typedef struct {
    ctoml_kind kind;
    /* The key of a table member; empty for an array element and the root. */
    ctoml_text key;
    /* The line of the key, or of the value if it has no key; the first line is 1. */
    uint32_t line;
    ctoml_text string;
    int64_t integer;
    double number;
    bool boolean;
} ctoml_value;

typedef struct {
    void *context;
    /* Called for every value. After a table or an array come its members, then `close`. */
    void (*value)(void *context, const ctoml_value *value);
    void (*close)(void *context);
} ctoml_reader;

/* Why parsing failed. The message ends with a zero and is cut to fit; the first line is 1. */
typedef struct {
    char text[256];
    uint32_t line;
} ctoml_error;

/* Parses `text` and reports its values to `reader`. Returns false on a syntax error: `error` is set, and no callback
   was called. */
bool ctoml_read(ctoml_text text, ctoml_reader reader, ctoml_error *error);

#ifdef __cplusplus
}
#endif
#endif
