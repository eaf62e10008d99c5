/* A TOML document, read by toml++ (which is C++) and handed over piece by piece. */
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

/* Texts are UTF-8 without a terminating zero, and stand during the call only. */
typedef struct {
    const char *bytes;
    size_t count;
} ctoml_text;

typedef struct {
    ctoml_kind kind;
    /* Of a table's member; else empty. */
    ctoml_text key;
    /* Where the key stands, or the value where there is none, from 1. */
    uint32_t line;
    ctoml_text string;
    int64_t integer;
    double number;
    bool boolean;
} ctoml_value;

typedef struct {
    void *context;
    /* A table or an array is followed by its members and then by `close`. */
    void (*value)(void *context, const ctoml_value *value);
    void (*close)(void *context);
} ctoml_reader;

/* Why a document is none. */
typedef struct {
    char text[256];
    uint32_t line;
} ctoml_error;

/* Whether the text was a document; if not, `error` says why and nothing was handed over. */
bool ctoml_read(ctoml_text text, ctoml_reader reader, ctoml_error *error);

#ifdef __cplusplus
}
#endif
#endif
