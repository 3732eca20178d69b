/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of struct sprout_service: the reactor and calls from other threads.
 *
 * At any time at most one thread drives the reactor: the loop (sprout_service_run or the service's
 * own thread), or, while there is no loop, whoever is inside service_call or service_wait.
 */
#ifndef NET_SERVICE_H
#define NET_SERVICE_H

#include "core/reactor.h"
#include "sprout/service.h"

struct reactor *service_reactor(struct sprout_service *service);

/* Where the service keeps its RDMA host (net/rdma_host.h), which ends with it; NULL before the
 * first use. Reactor's thread. */
struct rdma_host;
struct rdma_host **service_rdma(struct sprout_service *service);

/*
 * Runs call(context) on the reactor's thread and waits for its return. On that thread itself, or
 * when the service is not running, it is called directly. Not from a worker.
 */
void service_call(struct sprout_service *service, void (*call)(void *context), void *context);

/*
 * Waits until *done becomes true; `done` is set on the reactor's thread, followed by
 * service_notify. When the service is not running, the caller's thread ticks the reactor meanwhile
 * (so destruction works before start and after stop). Not on the reactor's thread. `done` is read
 * on the reactor's thread only, so it may be a plain variable there.
 */
void service_wait(struct sprout_service *service, const bool *done);
void service_notify(struct sprout_service *service);

/* True on the thread that drives the reactor now (inside callbacks, for instance). */
bool service_on_thread(struct sprout_service *service);
#endif
