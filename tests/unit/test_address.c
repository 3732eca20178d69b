/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LONG_LABEL "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void http_urls_are_parsed(void **state) {
  (void)state;
  static const struct {
    const char *text, *host;
    uint16_t port;
  } cases[] = {
      {"http://h", "h", 7117},
      {"http://h/", "h", 7117},
      {"HTTP://Seed-1.example_x.com:80", "Seed-1.example_x.com", 80},
      {"http://10.0.0.1:65535/", "10.0.0.1", 65535},
      {"http://[::1]", "::1", 7117},
      {"http://[::1]:1/", "::1", 1},
      {"http://[fe80::1%eth0]:9", "fe80::1%eth0", 9},
      {"http://[fe80::1%25eth0]:9", "fe80::1%eth0", 9},
      {"http://[::ffff:1.2.3.4]", "::ffff:1.2.3.4", 7117},
      {"http://h:00080", "h", 80},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct url url;
    struct sprout_error error = {0};
    assert_int_equal(url_parse(cases[i].text, &url, &error), SPROUT_OK);
    assert_int_equal(url.kind, URL_HTTP);
    assert_string_equal(url.host, cases[i].host);
    assert_int_equal(url.port, cases[i].port);
  }
}

static void file_urls_are_parsed(void **state) {
  (void)state;
  static const struct {
    const char *text, *path;
  } cases[] = {
      {"file:///abs/dir", "/abs/dir"},
      {"file://relative/x", "relative/x"},
      {"file://./x", "./x"},
      {"File:///", "/"},
      {"file://localhost/abs", "/abs"},
      {"file:///with space/%20", "/with space/%20"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct url url;
    struct sprout_error error = {0};
    assert_int_equal(url_parse(cases[i].text, &url, &error), SPROUT_OK);
    assert_int_equal(url.kind, URL_FILE);
    assert_string_equal(url.path, cases[i].path);
  }
}

static void other_urls_are_refused_with_a_hint(void **state) {
  (void)state;
  static const struct {
    const char *text;
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {"", SPROUT_INVALID, "without http://"},
      {"h", SPROUT_INVALID, "without http://"},
      {"h:80", SPROUT_INVALID, "without http://"},
      {"/dir", SPROUT_INVALID, "without http://"},
      {"http:/h", SPROUT_INVALID, "without http://"},
      {"http:h", SPROUT_INVALID, "without http://"},
      {"https://h", SPROUT_INVALID, "https"},
      {"ftp://h", SPROUT_INVALID, "\"ftp\""},
      {"://h", SPROUT_INVALID, "scheme \"\""},
      {"http://", SPROUT_INVALID, "no valid host"},
      {"http:///", SPROUT_INVALID, "no valid host"},
      {"http://:80", SPROUT_INVALID, "no valid host"},
      {"http://h:", SPROUT_INVALID, "no valid host"},
      {"http://h:0", SPROUT_INVALID, "port"},
      {"http://h:65536", SPROUT_INVALID, "port"},
      {"http://h:100000", SPROUT_INVALID, "port"},
      {"http://h:8x", SPROUT_INVALID, "port"},
      {"http://h:-1", SPROUT_INVALID, "port"},
      {"http://h:+1", SPROUT_INVALID, "port"},
      {"http://h:1:2", SPROUT_INVALID, "port"},
      {"http://::1", SPROUT_INVALID, "no valid host"},
      {"http://[::1", SPROUT_INVALID, "no valid host"},
      {"http://[::1]x", SPROUT_INVALID, "no valid host"},
      {"http://[::1]:", SPROUT_INVALID, "no valid host"},
      {"http://[]", SPROUT_INVALID, "no valid host"},
      {"http://[h]", SPROUT_INVALID, "no valid host"},
      {"http://[1.2.3.4]", SPROUT_INVALID, "no valid host"},
      {"http://[fe80::1%]", SPROUT_INVALID, "no valid host"},
      {"http://h h", SPROUT_INVALID, "no valid host"},
      {"http://h\r\nX: y", SPROUT_INVALID, "no valid host"},
      {"http://h\\x", SPROUT_INVALID, "no valid host"},
      {"http://h/v1", SPROUT_INVALID, "no path"},
      {"http://h?x", SPROUT_INVALID, "no path"},
      {"http://h/?x", SPROUT_INVALID, "no path"},
      {"http://h#x", SPROUT_INVALID, "no path"},
      {"file://", SPROUT_INVALID, "without a directory"},
      {"http://" LONG_LABEL LONG_LABEL LONG_LABEL LONG_LABEL LONG_LABEL, SPROUT_INVALID,
       "no valid host"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct url url;
    struct sprout_error error = {0};
    if (url_parse(cases[i].text, &url, &error) != cases[i].status)
      fail_msg("%s: %s", cases[i].text, error.message);
    assert_int_equal(error.status, cases[i].status);
    if (!strstr(error.message, cases[i].message)) fail_msg("%s: %s", cases[i].text, error.message);
    assert_true(error.hint[0]);
  }
}

static void credentials_are_refused_and_not_shown(void **state) {
  (void)state;
  static const char *const cases[] = {
      "http://user:secret@h",  "http://secret@h:1/",     "http://user:secret@", "http://h/secret@x",
      "http://user:secret/@h", "http://user:[secret]@h", "http://h:1?secret@",
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct url url;
    struct sprout_error error = {0};
    assert_int_equal(url_parse(cases[i], &url, &error), SPROUT_INVALID);
    assert_null(strstr(error.message, "secret"));
    assert_null(strstr(error.hint, "secret"));
    assert_non_null(strstr(error.hint, "--token-file"));
  }
}

static void listen_addresses_are_parsed(void **state) {
  (void)state;
  static const struct {
    const char *text, *host; /* NULL: refused */
    uint16_t port;
  } cases[] = {
      {"127.0.0.1:7117", "127.0.0.1", 7117},
      {"0.0.0.0:0", "0.0.0.0", 0},
      {"localhost:1", "localhost", 1},
      {"[::]:65535", "::", 65535},
      {"[fe80::1%eth0]:1", "fe80::1%eth0", 1},
      {":80", "", 80},
      {"80", "", 80},
      {"0", "", 0},
      {"", NULL, 0},
      {":", NULL, 0},
      {"h", NULL, 0},
      {"h:", NULL, 0},
      {"h:x", NULL, 0},
      {"h:65536", NULL, 0},
      {"65536", NULL, 0},
      {"h:1:2", NULL, 0},
      {"::1:80", NULL, 0},
      {"[::1]", NULL, 0},
      {"[::1]80", NULL, 0},
      {"[]:80", NULL, 0},
      {"http://h:80", NULL, 0},
      {"a b:80", NULL, 0},
      {"h: 80", NULL, 0},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char host[ADDRESS_HOST_BYTES] = "unset";
    uint16_t port = 0;
    struct sprout_error error = {0};
    enum sprout_status status = address_parse(cases[i].text, host, &port, &error);
    if (status != (cases[i].host ? SPROUT_OK : SPROUT_INVALID)) fail_msg("%s", cases[i].text);
    assert_string_equal(host, cases[i].host ? cases[i].host : "unset");
    assert_int_equal(port, cases[i].port);
  }
}

static struct address literal(const char *text) {
  struct address address = {.length = sizeof(struct sockaddr_in)};
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(7117)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(7117)};
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    memcpy(&address.storage, &v4, sizeof(v4));
  } else {
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    memcpy(&address.storage, &v6, sizeof(v6));
    address.length = sizeof(v6);
  }
  return address;
}

static void addresses_are_formatted_and_classified(void **state) {
  (void)state;
  static const struct {
    const char *text, *formatted;
    bool loopback;
  } cases[] = {
      {"127.0.0.1", "127.0.0.1:7117", true},
      {"127.9.9.9", "127.9.9.9:7117", true},
      {"0.0.0.0", "0.0.0.0:7117", false},
      {"128.0.0.1", "128.0.0.1:7117", false},
      {"::1", "[::1]:7117", true},
      {"::", "[::]:7117", false},
      {"::ffff:127.0.0.1", "[::ffff:127.0.0.1]:7117", true},
      {"::ffff:10.0.0.1", "[::ffff:10.0.0.1]:7117", false},
      {"2001:db8::1", "[2001:db8::1]:7117", false},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char buffer[ADDRESS_TEXT_BYTES];
    struct address address = literal(cases[i].text);
    assert_string_equal(address_format(&address, buffer, sizeof(buffer)), cases[i].formatted);
    assert_int_equal(address_is_loopback(&address), cases[i].loopback);
  }
  char small[6];
  struct address address = literal("127.0.0.1");
  assert_int_equal(strlen(address_format(&address, small, sizeof(small))), 5);
}

static void names_are_resolved(void **state) {
  (void)state;
  struct address addresses[ADDRESS_MAX];
  struct sprout_error error = {0};
  char text[ADDRESS_TEXT_BYTES];
  size_t count = 0;
  assert_int_equal(address_resolve("127.0.0.1", 80, false, addresses, &count, &error), SPROUT_OK);
  assert_int_equal(count, 1);
  assert_string_equal(address_format(&addresses[0], text, sizeof(text)), "127.0.0.1:80");
  assert_int_equal(address_resolve("::1", 0, true, addresses, &count, &error), SPROUT_OK);
  assert_int_equal(count, 1);
  assert_string_equal(address_format(&addresses[0], text, sizeof(text)), "[::1]:0");
  assert_int_equal(address_resolve("localhost", 1, false, addresses, &count, &error), SPROUT_OK);
  assert_true(count >= 1 && count <= ADDRESS_MAX);
  for (size_t i = 0; i < count; i++) {
    assert_true(address_is_loopback(&addresses[i]));
    for (size_t k = 0; k < i; k++)
      assert_memory_not_equal(&addresses[i].storage, &addresses[k].storage, addresses[i].length);
  }
  assert_int_equal(address_resolve("", 1, true, addresses, &count, &error), SPROUT_OK);
  assert_true(count >= 1);
  assert_false(address_is_loopback(&addresses[0]));
}

static void an_unknown_name_says_so(void **state) {
  (void)state;
  struct address addresses[ADDRESS_MAX];
  struct sprout_error error = {0};
  size_t count = 99;
  /* Not a valid name, so that no resolver is asked. */
  assert_int_equal(address_resolve("no..such..name", 1, false, addresses, &count, &error),
                   SPROUT_DISCONNECTED);
  assert_int_equal(count, 99);
  assert_non_null(strstr(error.message, "no..such..name"));
  assert_true(error.hint[0]);
}

static void the_speed_of_loopback_is_not_known(void **state) {
  (void)state;
  uint64_t rate = 42;
  struct sprout_error error = {0};
  struct address address = literal("127.0.0.1");
  assert_int_equal(address_link_rate(&address, &rate, &error), SPROUT_UNSUPPORTED);
  assert_int_equal(rate, 42);
  assert_non_null(strstr(error.message, "127.0.0.1"));
  address = literal("203.0.113.77");
  assert_int_equal(address_link_rate(&address, &rate, &error), SPROUT_UNSUPPORTED);
}

/* Whatever the kernel says of this machine's interfaces, it is a rate or a clear refusal. */
static void every_local_address_gets_an_answer(void **state) {
  (void)state;
  struct ifaddrs *list = NULL;
  assert_int_equal(getifaddrs(&list), 0);
  for (struct ifaddrs *at = list; at; at = at->ifa_next) {
    uint64_t rate = 0;
    struct sprout_error error = {0};
    if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET) continue;
    struct address address = {.length = sizeof(struct sockaddr_in)};
    memcpy(&address.storage, at->ifa_addr, sizeof(struct sockaddr_in));
    if (address_link_rate(&address, &rate, &error) == SPROUT_OK) {
      assert_true(rate >= 125000);
    } else {
      assert_int_equal(error.status, SPROUT_UNSUPPORTED);
    }
  }
  freeifaddrs(list);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(http_urls_are_parsed),
      cmocka_unit_test(file_urls_are_parsed),
      cmocka_unit_test(other_urls_are_refused_with_a_hint),
      cmocka_unit_test(credentials_are_refused_and_not_shown),
      cmocka_unit_test(listen_addresses_are_parsed),
      cmocka_unit_test(addresses_are_formatted_and_classified),
      cmocka_unit_test(names_are_resolved),
      cmocka_unit_test(an_unknown_name_says_so),
      cmocka_unit_test(the_speed_of_loopback_is_not_known),
      cmocka_unit_test(every_local_address_gets_an_answer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
