/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fork_engine_law.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum law_window { WINDOW_UNASKED, WINDOW_ASKED, WINDOW_ANSWERED };

enum sprout_status law_init(struct law *law, struct plan *plan, uint64_t chunk_count) {
  size_t words = bits_words(chunk_count) + 1, chunks = (size_t)chunk_count + 1;
  *law = (struct law){.plan = plan, .chunk_count = chunk_count};
  law->window_count = (uint32_t)((chunk_count + SOURCE_DIGESTS_MAX - 1) / SOURCE_DIGESTS_MAX);
  law->expected = calloc(chunks, sizeof(*law->expected));
  law->actual = calloc(chunks, sizeof(*law->actual));
  law->origin = malloc(chunks);
  law->known = calloc(words, sizeof(*law->known));
  law->confirmed = calloc(words, sizeof(*law->confirmed));
  law->added = calloc(words, sizeof(*law->added));
  law->asked = calloc(words, sizeof(*law->asked));
  law->windows = calloc(law->window_count + 1, 1);
  if (law->expected == NULL || law->actual == NULL || law->origin == NULL || law->known == NULL ||
      law->confirmed == NULL || law->added == NULL || law->asked == NULL || law->windows == NULL ||
      bitmap_init(&law->wanted, chunk_count) != SPROUT_OK) {
    law_destroy(law);
    return SPROUT_NO_MEMORY;
  }
  memset(law->origin, LAW_ORIGIN_NONE, chunks);
  return SPROUT_OK;
}

void law_destroy(struct law *law) {
  bitmap_destroy(&law->wanted);
  free(law->windows);
  free(law->asked);
  free(law->added);
  free(law->confirmed);
  free(law->known);
  free(law->origin);
  free(law->actual);
  free(law->expected);
  *law = (struct law){.plan = NULL};
}

static bool selected(const struct law *law, uint64_t chunk) {
  return plan_state(law->plan, chunk) != PLAN_SKIPPED;
}

/* Its bytes wait for this digest. */
static bool awaited(const struct law *law, uint64_t chunk) {
  enum plan_state state = plan_state(law->plan, chunk);
  return state == PLAN_LANDED || state == PLAN_UNPROVEN;
}

static void want_if_answered(struct law *law, uint64_t chunk) {
  bool answered = law->windows[chunk / SOURCE_DIGESTS_MAX] == WINDOW_ANSWERED;
  if (answered && !bits_get(law->asked, chunk)) bitmap_set(&law->wanted, chunk);
}

/* --- bytes --- */

enum law_verdict law_judge(const struct law *law, uint64_t chunk, const struct digest *actual) {
  if (!bits_get(law->known, chunk)) return LAW_UNKNOWN;
  return digest_equal(&law->expected[chunk], actual) ? LAW_RIGHT : LAW_WRONG;
}

enum law_verdict law_landed(struct law *law, uint64_t chunk, const struct digest *actual,
                            uint8_t origin) {
  enum law_verdict verdict = law_judge(law, chunk, actual);
  if (verdict == LAW_WRONG) return verdict;
  law->actual[chunk] = *actual;
  law->origin[chunk] = origin;
  plan_set(law->plan, chunk, PLAN_LANDED);
  if (verdict == LAW_RIGHT)
    plan_set(law->plan, chunk, PLAN_VERIFIED);
  else
    want_if_answered(law, chunk);
  return verdict;
}

static void prove_stored(struct law *law, uint64_t chunk) {
  plan_set(law->plan, chunk, PLAN_STORED);
  if (law->origin[chunk] == LAW_ORIGIN_FOUND)
    law->found_right_bytes += plan_chunk(law->plan, chunk).length_bytes;
}

void law_found(struct law *law, uint64_t chunk, const struct digest *actual) {
  if (plan_state(law->plan, chunk) != PLAN_NEEDED) return;
  law->actual[chunk] = *actual;
  law->origin[chunk] = LAW_ORIGIN_FOUND;
  enum law_verdict verdict = law_judge(law, chunk, actual);
  if (verdict == LAW_RIGHT) prove_stored(law, chunk);
  if (verdict == LAW_UNKNOWN) {
    plan_set(law->plan, chunk, PLAN_UNPROVEN);
    want_if_answered(law, chunk);
  }
}

static void reject(struct law *law, uint64_t chunk) {
  bool storing = plan_state(law->plan, chunk) == PLAN_LANDED;
  plan_set(law->plan, chunk, storing ? PLAN_REJECTED : PLAN_NEEDED);
  if (!bits_get(law->known, chunk)) bitmap_clear(&law->wanted, chunk);
}

void law_reject_unproven(struct law *law, uint8_t origin) {
  for (uint64_t chunk = 0; chunk < law->chunk_count; chunk++)
    if (law->origin[chunk] == origin && awaited(law, chunk)) reject(law, chunk);
}

/* --- digests --- */

/* The chunk's digest has become known: judges what was read before. */
static enum law_verdict judge_awaited(struct law *law, uint64_t chunk) {
  if (!awaited(law, chunk)) return LAW_UNKNOWN;
  enum law_verdict verdict = law_judge(law, chunk, &law->actual[chunk]);
  if (verdict == LAW_WRONG)
    reject(law, chunk);
  else if (plan_state(law->plan, chunk) == PLAN_LANDED)
    plan_set(law->plan, chunk, PLAN_VERIFIED);
  else
    prove_stored(law, chunk);
  return verdict;
}

enum law_verdict law_told(struct law *law, uint64_t chunk, const struct digest *digest) {
  if (!selected(law, chunk)) return LAW_UNKNOWN;
  bool known = bits_get(law->known, chunk);
  if (known && !digest_equal(&law->expected[chunk], digest)) return LAW_DEVIATES;
  bitmap_clear(&law->wanted, chunk);
  if (!bits_get(law->confirmed, chunk)) law->confirmed_count++;
  bits_set(law->confirmed, chunk);
  if (known) return LAW_RIGHT;
  law->expected[chunk] = *digest;
  law->known_count++;
  bits_set(law->known, chunk);
  bits_set(law->added, chunk);
  return judge_awaited(law, chunk);
}

static void ask_all_again(struct law *law) {
  bitmap_clear_all(&law->wanted);
  memset(law->asked, 0, bits_words(law->chunk_count) * sizeof(uint64_t));
  memset(law->windows, WINDOW_UNASKED, law->window_count);
  law->windows_unasked = 0;
}

void law_adopt(struct law *law) {
  size_t bytes = bits_words(law->chunk_count) * sizeof(uint64_t);
  memset(law->confirmed, 0, bytes);
  memset(law->added, 0, bytes);
  law->confirmed_count = 0;
  ask_all_again(law);
}

static void unknow(struct law *law, uint64_t chunk) {
  bits_clear(law->known, chunk);
  law->known_count--;
  enum plan_state state = plan_state(law->plan, chunk);
  if (state == PLAN_VERIFIED) plan_set(law->plan, chunk, PLAN_LANDED);
  if (state != PLAN_STORED) return;
  plan_set(law->plan, chunk, PLAN_UNPROVEN);
  if (law->origin[chunk] == LAW_ORIGIN_FOUND)
    law->found_right_bytes -= plan_chunk(law->plan, chunk).length_bytes;
}

void law_retire(struct law *law) {
  if (!law_settled(law))
    for (uint64_t chunk = 0; chunk < law->chunk_count; chunk++)
      if (bits_get(law->added, chunk)) unknow(law, chunk);
  size_t words = bits_words(law->chunk_count);
  memcpy(law->confirmed, law->known, words * sizeof(uint64_t));
  memset(law->added, 0, words * sizeof(uint64_t));
  law->confirmed_count = law->known_count;
  ask_all_again(law);
}

void law_forget(struct law *law) {
  size_t bytes = bits_words(law->chunk_count) * sizeof(uint64_t);
  memset(law->known, 0, bytes);
  law->known_count = 0;
  law->found_right_bytes = 0;
  plan_distrust(law->plan);
  law_adopt(law);
}

void law_disown(struct law *law, uint8_t origin) {
  for (uint64_t chunk = 0; chunk < law->chunk_count; chunk++) {
    bool of_source = law->origin[chunk] < LAW_ORIGIN_OLD;
    if (of_source && (origin == LAW_ORIGIN_NONE || law->origin[chunk] == origin))
      law->origin[chunk] = LAW_ORIGIN_OLD;
  }
}

bool law_complete(const struct law *law) {
  return law->known_count == plan_selected_chunks(law->plan);
}

bool law_settled(const struct law *law) {
  return law->confirmed_count == law->known_count;
}

/* --- asking --- */

static uint64_t window_end(const struct law *law, uint32_t window) {
  uint64_t end = ((uint64_t)window + 1) * SOURCE_DIGESTS_MAX;
  return end < law->chunk_count ? end : law->chunk_count;
}

/* Trims the window to its selected chunks; false when there is none. */
static bool window_request(const struct law *law, uint32_t window, struct law_request *request) {
  uint64_t first = (uint64_t)window * SOURCE_DIGESTS_MAX, end = window_end(law, window);
  while (first < end && !selected(law, first)) first++;
  while (end > first && !selected(law, end - 1)) end--;
  *request = (struct law_request){.first = first, .count = end - first, .compute = false};
  return first < end;
}

/* It has to be told sooner or later, and is in no question yet. */
static bool open_and_unasked(const struct law *law, uint64_t chunk) {
  return selected(law, chunk) && !bits_get(law->confirmed, chunk) && !bits_get(law->asked, chunk) &&
         law->windows[chunk / SOURCE_DIGESTS_MAX] == WINDOW_ANSWERED;
}

/* From the first wanted chunk on. */
static struct law_request wanted_request(const struct law *law, uint64_t first) {
  uint64_t end = first, bytes = 0;
  while (end < law->chunk_count && end - first < LAW_COMPUTE_CHUNKS && open_and_unasked(law, end)) {
    bytes += plan_chunk(law->plan, end).length_bytes;
    if (bytes > LAW_COMPUTE_BYTES && end > first) break;
    end++;
  }
  return (struct law_request){.first = first, .count = end - first, .compute = true};
}

bool law_ask(struct law *law, struct law_request *request_out) {
  for (; law->windows_unasked < law->window_count; law->windows_unasked++) {
    uint32_t window = law->windows_unasked;
    if (law->windows[window] != WINDOW_UNASKED) continue;
    law->windows[window] = WINDOW_ASKED;
    if (window_request(law, window, request_out)) return true;
    law->windows[window] = WINDOW_ANSWERED;
  }
  uint64_t first = bitmap_next(&law->wanted, 0);
  if (first == BITMAP_NONE) return false;
  *request_out = wanted_request(law, first);
  assert(request_out->count > 0);
  for (uint64_t chunk = first; chunk < first + request_out->count; chunk++) {
    bitmap_clear(&law->wanted, chunk);
    bits_set(law->asked, chunk);
  }
  return true;
}

/* Wants what the answer left open. A first question leaves it until it matters. */
static bool want_open(struct law *law, const struct law_request *request) {
  bool any = false;
  for (uint64_t chunk = request->first; chunk < request->first + request->count; chunk++) {
    if (request->compute) bits_clear(law->asked, chunk);
    if (!selected(law, chunk) || bits_get(law->confirmed, chunk)) continue;
    any = true;
    if (request->compute || awaited(law, chunk) || bits_get(law->known, chunk))
      bitmap_set(&law->wanted, chunk);
  }
  return any;
}

bool law_answered(struct law *law, const struct law_request *request) {
  if (!request->compute) law->windows[request->first / SOURCE_DIGESTS_MAX] = WINDOW_ANSWERED;
  return want_open(law, request);
}

void law_unask(struct law *law, const struct law_request *request) {
  if (request->compute) {
    want_open(law, request);
    return;
  }
  uint32_t window = (uint32_t)(request->first / SOURCE_DIGESTS_MAX);
  law->windows[window] = WINDOW_UNASKED;
  if (window < law->windows_unasked) law->windows_unasked = window;
}

void law_check(const struct law *law) {
  uint64_t known = 0, confirmed = 0, found_right = 0;
  for (uint64_t chunk = 0; chunk < law->chunk_count; chunk++) {
    enum plan_state state = plan_state(law->plan, chunk);
    bool is_known = bits_get(law->known, chunk), is_confirmed = bits_get(law->confirmed, chunk);
    known += is_known;
    confirmed += is_confirmed;
    assert(!is_confirmed || is_known);
    assert(!bits_get(law->added, chunk) || is_confirmed);
    assert(!is_known || state != PLAN_SKIPPED);
    assert(!bitmap_get(&law->wanted, chunk) || (!is_confirmed && !bits_get(law->asked, chunk)));
    if (state == PLAN_LANDED || state == PLAN_UNPROVEN) assert(!is_known);
    if (state != PLAN_VERIFIED && state != PLAN_STORED) continue;
    assert(law_judge(law, chunk, &law->actual[chunk]) == LAW_RIGHT);
    if (state == PLAN_STORED && law->origin[chunk] == LAW_ORIGIN_FOUND)
      found_right += plan_chunk(law->plan, chunk).length_bytes;
  }
  assert(known == law->known_count && confirmed == law->confirmed_count);
  assert(found_right == law->found_right_bytes);
}
