/* SPDX-License-Identifier: Apache-2.0 */
#include "net/destination_answers.h"

#include <assert.h>

/* The last answer may destroy the destination: nothing is touched after it. */
static void answer_now(struct deferred *deferred) {
  struct destination_answers *answers = container_of(deferred, struct destination_answers, later);
  struct destination *destination = answers->destination;
  const struct destination_listener *listener = destination->listener;
  const struct sprout_error ok = {.status = SPROUT_OK};
  unsigned wanted = answers->wanted;
  struct list_node stored;

  answers->wanted = 0;
  list_move(&stored, &answers->stored);
  for (struct list_node *node = list_take(&stored); node != NULL; node = list_take(&stored)) {
    struct destination_transfer *transfer = container_of(node, struct destination_transfer, node);
    transfer->stored(transfer, &ok);
  }
  if ((wanted & ANSWER_ROOM) != 0) listener->room(destination);
  if ((wanted & ANSWER_PREPARED) != 0) listener->prepared(destination, &answers->prepare_error);
  if ((wanted & ANSWER_FINISHED) != 0) listener->finished(destination, &ok);
  if ((wanted & ANSWER_ABORTED) != 0) listener->aborted(destination);
}

void destination_answers_init(struct destination_answers *answers, struct destination *destination,
                              struct reactor *reactor) {
  *answers = (struct destination_answers){
      .destination = destination, .reactor = reactor, .later = {.run = answer_now}};
  list_init(&answers->stored);
}

void destination_answers_give(struct destination_answers *answers, enum destination_answer answer) {
  answers->wanted |= answer;
  reactor_defer(answers->reactor, &answers->later);
}

void destination_answers_stored(struct destination_answers *answers,
                                struct destination_transfer *transfer) {
  list_append(&answers->stored, &transfer->node);
  reactor_defer(answers->reactor, &answers->later);
}

void destination_answers_abort(struct destination_answers *answers) {
  assert(list_empty(&answers->stored));
  answers->wanted = 0;
  destination_answers_give(answers, ANSWER_ABORTED);
}

void destination_answers_end(struct destination_answers *answers) {
  reactor_defer_cancel(answers->reactor, &answers->later);
}
