/* A shared library in a program without a dynamic linker (library.c). */
#ifndef HMSEG_LIBRARY_H
#define HMSEG_LIBRARY_H

#include <stddef.h>

typedef struct library library;

/* Maps a library of hmseg's and links it with the functions of this program's C library. Null where
 * that cannot be, and why in `error`. The file may be removed afterwards. */
library *library_load(const char *path, char *error, size_t error_size);

/* The address of what it exports; null where there is none of that name. */
void *library_symbol(const library *loaded, const char *name);

/* Runs what it does at its end, and unmaps it. */
void library_unload(library *loaded);

/* What a kernel calls where its arguments are not what it was compiled for (player.c). */
void library_kernel_error(const char *kind, const char **parts, int count);

#endif
