/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

/* Standard error meanwhile is a socket of messages: one write, one message. */
static int saved_stderr = -1, capture[2];

static void begin_capture(void) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, capture), 0);
  saved_stderr = dup(STDERR_FILENO);
  dup2(capture[1], STDERR_FILENO);
}

static void end_capture(void) {
  dup2(saved_stderr, STDERR_FILENO);
  close(saved_stderr);
  close(capture[0]);
  close(capture[1]);
}

/* The next line, one write; "" when there is none. */
static const char *line(void) {
  static char text[16384];
  ssize_t length = recv(capture[0], text, sizeof text - 1, MSG_DONTWAIT);
  text[length > 0 ? length : 0] = '\0';
  return text;
}

static void test_silent_by_default(void **state) {
  (void)state;
  begin_capture();
  for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
    assert_false(log_enabled((enum log_level)level));
    log_write((enum log_level)level, "test", "nobody asked");
  }
  assert_string_equal(line(), "");
  end_capture();
}

static void test_levels(void **state) {
  (void)state;
  static const char *const names[] = {"error", "warning", "info", "debug"};
  begin_capture();
  log_set_json(false);
  for (int threshold = LOG_ERROR; threshold <= LOG_DEBUG; threshold++) {
    log_set_level((enum log_level)threshold);
    for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
      errno = 4711;
      log_write((enum log_level)level, "seed", "n=%d %s", 7, "x");
      assert_int_equal(errno, 4711);
      const char *text = line();
      if (level > threshold) {
        assert_string_equal(text, "");
        continue;
      }
      /* "12:03:04.123 warning seed: n=7 x" */
      assert_true(text[2] == ':' && text[5] == ':' && text[8] == '.' && text[12] == ' ');
      assert_memory_equal(text + 13, names[level], strlen(names[level]));
      assert_string_equal(text + 13 + strlen(names[level]), " seed: n=7 x\n");
    }
  }
  end_capture();
}

static void test_text_is_one_line(void **state) {
  (void)state;
  begin_capture();
  log_set_level(LOG_INFO);
  log_write(LOG_INFO, "t", "%s", "a\nb\r\x1b[31m\x7f\xff\xc3\xa9 \"q\" \\");
  assert_string_equal(line() + 13,
                      "info t: a\\nb\\x0d\\x1b[31m\\x7f\xef\xbf\xbd\xc3\xa9 \"q\" \\\n");
  end_capture();
}

static const char *text_of(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

static void test_json(void **state) {
  (void)state;
  static const struct {
    const char *message, *decoded;
  } rows[] = {
      {"plain", "plain"},
      {"quote \" backslash \\ slash /", "quote \" backslash \\ slash /"},
      {"tab\tnewline\nreturn\rescape\x1b", NULL},
      {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb1", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xb1"},
      {"\xff", "\xef\xbf\xbd"},
      {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
      {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"", ""},
  };
  begin_capture();
  log_set_level(LOG_DEBUG);
  log_set_json(true);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    log_write(LOG_WARNING, "seed", "%s", rows[i].message);
    const char *text = line();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    assert_int_equal(json_object_size(object), 4);
    assert_string_equal(text_of(object, "level"), "warning");
    assert_string_equal(text_of(object, "component"), "seed");
    assert_string_equal(text_of(object, "message"),
                        rows[i].decoded != NULL ? rows[i].decoded : rows[i].message);
    const char *stamp = text_of(object, "time"); /* 2026-01-02T03:04:05.678Z */
    assert_int_equal(strlen(stamp), 24);
    assert_true(stamp[10] == 'T' && stamp[19] == '.' && stamp[23] == 'Z');
    json_decref(object);
  }
  log_set_json(false);
  end_capture();
}

/* Long messages are cut and say so; the worst one to escape still makes a whole line. */
static void test_long(void **state) {
  (void)state;
  char message[5000];
  begin_capture();
  log_set_level(LOG_INFO);
  memset(message, 'x', sizeof message);
  message[sizeof message - 1] = '\0';
  log_write(LOG_INFO, "t", "%s", message);
  const char *text = line();
  assert_string_equal(text + strlen(text) - 5, "x...\n");
  memset(message, '\x01', sizeof message - 1);
  log_set_json(true);
  log_write(LOG_INFO, "t", "%s", message);
  json_t *object = json_loads(line(), 0, NULL);
  assert_non_null(object);
  json_decref(object);
  log_set_json(false);
  end_capture();
}

#define WRITERS 8
#define LINES 500

static void *write_lines(void *argument) {
  for (int i = 0; i < LINES; i++) {
    log_set_json(i % 2 == 0);
    log_write(LOG_INFO, "t", "writer %d line %d %s", (int)(intptr_t)argument, i, "0123456789");
  }
  return NULL;
}

/* Lines of many threads do not mix. */
static void test_threads(void **state) {
  (void)state;
  char path[] = "/tmp/test_log.XXXXXX";
  int file = mkstemp(path);
  assert_true(file >= 0);
  unlink(path);
  fcntl(file, F_SETFL, O_APPEND);
  log_set_level(LOG_INFO);
  saved_stderr = dup(STDERR_FILENO);
  dup2(file, STDERR_FILENO);
  pthread_t threads[WRITERS];
  for (intptr_t i = 0; i < WRITERS; i++) pthread_create(&threads[i], NULL, write_lines, (void *)i);
  for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
  dup2(saved_stderr, STDERR_FILENO);
  close(saved_stderr);
  log_set_json(false);
  FILE *stream = fdopen(file, "r");
  rewind(stream);
  char text[1024];
  int count = 0;
  while (fgets(text, sizeof text, stream) != NULL) {
    count++;
    const char *tail = strstr(text, " 0123456789");
    assert_non_null(tail);
    assert_true(strcmp(tail, " 0123456789\n") == 0 || strcmp(tail, " 0123456789\"}\n") == 0);
  }
  assert_int_equal(count, WRITERS * LINES);
  fclose(stream);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_silent_by_default),
      cmocka_unit_test(test_levels),
      cmocka_unit_test(test_text_is_one_line),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_long),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
