/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_FILE "libsprout_rdma.so"
#define MODULE_PATH_BYTES 4096

static const char hint_install[] =
    "Install rdma-core (Debian: libibverbs1 librdmacm1 ibverbs-providers) and sprout's module "
    "libsprout_rdma.so, or use --transport tcp.";

/* Looked for once; what was found stays. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct verbs *loaded, *replacement;

/* The directory of the program or library that this function is in, with its last '/'. */
static bool own_directory(char *directory, size_t directory_bytes) {
  Dl_info info;
  if (dladdr((void *)(uintptr_t)&rdma_module_load, &info) == 0 || info.dli_fname == NULL)
    return false;
  char *resolved = realpath(info.dli_fname[0] == '/' ? info.dli_fname : "/proc/self/exe", NULL);
  if (resolved == NULL) return false;
  char *slash = strrchr(resolved, '/');
  bool fits = slash != NULL && (size_t)(slash - resolved) + 2 <= directory_bytes;
  if (fits) {
    slash[1] = '\0';
    memcpy(directory, resolved, strlen(resolved) + 1);
  }
  free(resolved);
  return fits;
}

static void *open_module(char *reason, size_t reason_bytes) {
  /* Beside us in a build tree; else as installed, seen from bin/ and from lib/. */
  static const char *const places[] = {"", "sprout/", "../lib/sprout/",
                                       SPROUT_MODULE_DIRECTORY "/"};
  char directory[MODULE_PATH_BYTES], path[2 * MODULE_PATH_BYTES];
  bool own = own_directory(directory, sizeof(directory));
  (void)snprintf(reason, reason_bytes, "%s is not there", MODULE_FILE);
  for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
    bool relative = places[i][0] != '/';
    if (relative && !own) continue;
    (void)snprintf(path, sizeof(path), "%s%s%s", relative ? directory : "", places[i], MODULE_FILE);
    if (access(path, F_OK) != 0) continue;
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module != NULL) return module;
    const char *why = dlerror();
    (void)snprintf(reason, reason_bytes, "%s", why != NULL ? why : "it cannot be loaded");
  }
  return NULL;
}

static SPROUT_MUST_CHECK enum sprout_status load(struct sprout_error *error) {
  char reason[300];
  void *module = open_module(reason, sizeof(reason));
  if (module == NULL)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, hint_install,
                            "the RDMA module cannot be loaded: %s", reason);
  verbs_module_entry entry;
  void *symbol = dlsym(module, VERBS_MODULE_SYMBOL);
  memcpy(&entry, &symbol, sizeof(entry)); /* ISO C has no cast for this */
  const struct verbs *verbs = symbol != NULL ? entry() : NULL;
  if (verbs == NULL || verbs->layer_version != VERBS_LAYER_VERSION ||
      verbs->struct_bytes != sizeof(*verbs)) {
    dlclose(module);
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                            "Install module and program of the same version.",
                            "the RDMA module is of another version of sprout");
  }
  loaded = verbs;
  return SPROUT_OK;
}

enum sprout_status rdma_module_load(const struct verbs **verbs_out, struct sprout_error *error) {
  enum sprout_status status = SPROUT_OK;
  pthread_mutex_lock(&lock);
  if (replacement == NULL && loaded == NULL) status = load(error);
  if (status == SPROUT_OK) *verbs_out = replacement != NULL ? replacement : loaded;
  pthread_mutex_unlock(&lock);
  return status;
}

void rdma_module_replace(const struct verbs *verbs) {
  pthread_mutex_lock(&lock);
  replacement = verbs;
  pthread_mutex_unlock(&lock);
}
