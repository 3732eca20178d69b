/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renders a stats table as Prometheus text (version 0.0.4), HELP and TYPE included, label values
 * escaped.
 */
#ifndef NET_PROMETHEUS_H
#define NET_PROMETHEUS_H

#include "core/stats.h"
#include "net/wire.h"

/* Content-Type of what prometheus_render makes. */
#define PROMETHEUS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/*
 * Appends to *buffer (zero-initialise it first). Families stand in the table's order, series in the
 * order of first sight; a family without series is left out. On SPROUT_NO_MEMORY the buffer has its
 * old length.
 */
SPROUT_MUST_CHECK enum sprout_status prometheus_render(const struct stats *stats,
                                                       struct wire_buffer *buffer);
#endif
