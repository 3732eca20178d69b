/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination without I/O of its own has to tell its listener, told from the reactor's
 * queue: no op calls back before it returned. Embedded in a destination; reactor's thread.
 */
#ifndef NET_DESTINATION_ANSWERS_H
#define NET_DESTINATION_ANSWERS_H

#include "core/destination.h"
#include "core/reactor.h"

enum destination_answer {
  ANSWER_PREPARED = 1u << 0, /* with prepare_error */
  ANSWER_FINISHED = 1u << 1,
  ANSWER_ABORTED = 1u << 2,
  ANSWER_ROOM = 1u << 3
};

struct destination_answers {
  struct destination *destination;
  struct reactor *reactor;
  struct deferred later;
  unsigned wanted; /* enum destination_answer */
  struct list_node stored;
  struct sprout_error prepare_error;
};

void destination_answers_init(struct destination_answers *answers, struct destination *destination,
                              struct reactor *reactor);
void destination_answers_give(struct destination_answers *answers, enum destination_answer answer);
/* The transfer is stored: tells it so. */
void destination_answers_stored(struct destination_answers *answers,
                                struct destination_transfer *transfer);
/* Nothing else is to be told any more; no transfer is being stored. */
void destination_answers_abort(struct destination_answers *answers);
/* Before the destination is freed. */
void destination_answers_end(struct destination_answers *answers);
#endif
