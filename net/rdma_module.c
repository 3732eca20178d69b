/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_module.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_FILE "libsprout_rdma.so"
#define PACKAGES "rdma-core libibverbs1 librdmacm1 ibverbs-providers"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct {
  const struct verbs *verbs;
  enum sprout_status status;
  struct sprout_error error;
} loaded; /* by the one call of load() */
static _Atomic(const struct verbs *) replacement;

/* ---- where it is ---- */

/* The directory of the program or library that this function is in, without links. */
static bool find_own_directory(char directory[PATH_MAX]) {
  Dl_info info;
  struct link_map *map = NULL;
  if (dladdr1((void *)rdma_module_load, &info, (void **)&map, RTLD_DL_LINKMAP) == 0) return false;
  /* The program itself has no name there. */
  const char *path = map != NULL && map->l_name[0] != '\0' ? map->l_name : "/proc/self/exe";
  if (realpath(path, directory) == NULL) return false;
  char *slash = strrchr(directory, '/');
  if (slash == NULL) return false;
  *slash = '\0';
  return true;
}

/* Beside the code (a build tree, a Python package), then where an installation that may have been
 * moved keeps it, seen from a library and from the program, then where it was installed first. */
static bool find_module(char path[PATH_MAX]) {
  char own[PATH_MAX];
  if (find_own_directory(own)) {
    static const char *const places[] = {"", "/sprout", ("/" SPROUT_MODULE_DIR_FROM_PROGRAM)};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
      int length = snprintf(path, PATH_MAX, "%s%s/" MODULE_FILE, own, places[i]);
      if (length < PATH_MAX && access(path, F_OK) == 0) return true;
    }
  }
  snprintf(path, PATH_MAX, "%s", SPROUT_MODULE_DIR "/" MODULE_FILE);
  return access(path, F_OK) == 0;
}

/* ---- what keeps it from loading ---- */

static enum sprout_status explain_absent(struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                          "Install sprout with its RDMA module (built with -DSPROUT_RDMA=ON, needs "
                          "libibverbs-dev and librdmacm-dev), or use --transport tcp.",
                          "RDMA is not installed: there is no " MODULE_FILE
                          " beside the program and none in " SPROUT_MODULE_DIR);
}

static enum sprout_status explain_unloadable(const char *path, const char *reason,
                                             struct sprout_error *error) {
  bool lacks_library = strstr(reason, "libibverbs") != NULL || strstr(reason, "librdmacm") != NULL;
  if (lacks_library)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                            "Install the packages " PACKAGES " (other distributions: rdma-core), "
                            "or use --transport tcp.",
                            "RDMA needs libraries that are not on this machine: %s", reason);
  return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                          "Install sprout and its RDMA module from one release; the module needs "
                          "the packages " PACKAGES ".",
                          "the RDMA module %s cannot be loaded: %s", path, reason);
}

static enum sprout_status explain_version(const char *path, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                          "Install sprout and " MODULE_FILE " from one release.",
                          "the RDMA module %s is of another version of sprout (layer %u expected)",
                          path, VERBS_LAYER_VERSION);
}

/* ---- loading ---- */

static enum sprout_status open_module(const char *path, const struct verbs **verbs_out,
                                      struct sprout_error *error) {
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (module == NULL) {
    const char *reason = dlerror();
    return explain_unloadable(path, reason != NULL ? reason : "unknown reason", error);
  }
  /* ISO C has no way from an object pointer to a function pointer; POSIX has this one. */
  verbs_module_entry entry = NULL;
  *(void **)&entry = dlsym(module, VERBS_MODULE_SYMBOL);
  const struct verbs *verbs = entry != NULL ? entry() : NULL;
  if (verbs == NULL || verbs->layer_version != VERBS_LAYER_VERSION ||
      verbs->struct_bytes != sizeof *verbs) {
    dlclose(module);
    return explain_version(path, error);
  }
  *verbs_out = verbs;
  return SPROUT_OK;
}

static void load(void) {
  char path[PATH_MAX];
  loaded.status = find_module(path) ? open_module(path, &loaded.verbs, &loaded.error)
                                    : explain_absent(&loaded.error);
}

enum sprout_status rdma_module_load(const struct verbs **verbs_out, struct sprout_error *error) {
  const struct verbs *other = atomic_load(&replacement);
  if (other != NULL) {
    *verbs_out = other;
    return SPROUT_OK;
  }
  pthread_once(&once, load);
  if (loaded.status == SPROUT_OK) {
    *verbs_out = loaded.verbs;
  } else if (error != NULL) {
    *error = loaded.error;
  }
  return loaded.status;
}

void rdma_module_replace(const struct verbs *verbs) {
  atomic_store(&replacement, verbs);
}
