/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds and loads libsprout_rdma.so, once per process.
 */
#ifndef NET_RDMA_MODULE_H
#define NET_RDMA_MODULE_H

#include "net/rdma_verbs.h"
#include "sprout/status.h"

/*
 * The verbs layer of this process. Looked for beside the program or library that this code is in,
 * then in the library directory it was installed to. SPROUT_UNSUPPORTED when it is not there, is of
 * another version, or needs libraries that are not there: the error says which, and the remedy. Any
 * thread; blocking. It stays loaded.
 */
SPROUT_MUST_CHECK enum sprout_status rdma_module_load(const struct verbs **verbs_out,
                                                      struct sprout_error *error);
/* Tests: the layer to give out instead; NULL: the real one again. */
void rdma_module_replace(const struct verbs *verbs);
#endif
