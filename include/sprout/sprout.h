/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout: fork the weights of a running model. Includes the whole public interface.
 */
#ifndef SPROUT_SPROUT_H
#define SPROUT_SPROUT_H

#include "sprout/fork.h"
#include "sprout/manifest.h"
#include "sprout/memory.h"
#include "sprout/seed.h"
#include "sprout/service.h"
#include "sprout/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SPROUT_VERSION_MAJOR 0
#define SPROUT_VERSION_MINOR 1
#define SPROUT_VERSION_PATCH 0

/* The library's version, "MAJOR.MINOR.PATCH"; static storage. */
SPROUT_API const char *sprout_version(void);

#ifdef __cplusplus
}
#endif
#endif
