/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on standard error, as text ("12:03:04.123 warning seed: message key=value") or JSON.
 * Any thread; one write(2) per line.
 *
 * The function that first classifies an error logs it, once. Secrets are never arguments.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "sprout/status.h"

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
void log_set_json(bool json);
/* A library stays silent unless the program asks: default level is LOG_ERROR - 1 (nothing). */
void log_write(enum log_level level, const char *component, const char *format, ...)
    SPROUT_PRINTF(3, 4);
bool log_enabled(enum log_level level);
#endif
