/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renders a stats table as Prometheus text (version 0.0.4), HELP and TYPE included, label values
 * escaped.
 */
#ifndef NET_PROMETHEUS_H
#define NET_PROMETHEUS_H

#include "core/stats.h"
#include "net/wire.h"

SPROUT_MUST_CHECK enum sprout_status prometheus_render(const struct stats *stats,
                                                       struct wire_buffer *buffer);
#endif
