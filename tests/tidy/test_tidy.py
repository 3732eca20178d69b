#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each rule of tidy.py finds what it is for, and leaves alone what is right."""

import argparse
import pathlib
import tempfile
import unittest

import source
import tidy

SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"
ARGUMENTS = argparse.Namespace(cc="cc", cxx="c++")


def long_function(lines):
    return "void f(void) {\n" + "  g();\n" * (lines - 2) + "}\n"


# (rule, file, text, findings)
CASES = [
    ("includes", "core/a.c", '#include "net/wire.h"\n', 1),
    ("includes", "core/a.c", '#include "core/b.h"\n#include "sprout/status.h"\n#include <stdio.h>\n', 0),
    ("includes", "net/a.c", '#include "core/b.h"\n#include "net/b.h"\n', 0),
    ("includes", "net/a.c", '#include "wire.h"\n', 1),
    ("includes", "include/sprout/a.h", '#include "core/b.h"\n', 1),
    ("includes", "tests/unit/test_a.c", '#include "cli/b.h"\n#include "tests/support/c.h"\n', 0),
    ("includes", "cli/a.c", '#include "tests/support/c.h"\n', 1),
    ("includes", "core/a.c", '/* #include "net/wire.h" */\n', 0),
    ("third-party", "core/plan.c", "#include <liburing.h>\n", 1),
    ("third-party", "core/ring_uring.c", "#include <liburing.h>\n", 0),
    ("third-party", "net/seed.c", '#include "xxhash.h"\n', 1),
    ("third-party", "tests/unit/test_a.c", "#include <liburing.h>\n", 0),
    ("third-party", "net/rdma_source.c", "#include <infiniband/verbs.h>\n", 1),
    ("third-party", "net/verbs/private.h", "#include <rdma/rdma_cma.h>\n", 1),
    ("third-party", "net/verbs/link.c", "#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n", 0),
    ("docs", "include/sprout/a.h", SPDX + "/* Concept. */\n\nint f(void);\n", 1),
    ("docs", "include/sprout/a.h", SPDX + "/* Concept. */\n\n/* Does. */\nint f(void);\n", 0),
    ("docs", "include/sprout/a.h", SPDX + "/* Concept. */\n\nint f(void); /* Does. */\n", 0),
    ("docs", "include/sprout/a.h", SPDX + "/* Concept. */\n\nstruct s;\nstruct t {\n  int x;\n};\n", 1),
    ("docs", "include/sprout/a.h", SPDX + '/* C. */\n\nextern "C" {\n\n/* D. */\nint f(void);\n}\n', 0),
    ("docs", "core/a.h", SPDX + "int f(void);\n", 1),
    ("headers-c", "core/a.h", "size_t f(void);\n", 1),
    ("headers-c", "core/a.h", "enum a { A };\n", 1),  # not guarded
    ("headers-c", "core/a.h", "#ifndef A\n#define A\n#include <stddef.h>\nsize_t f(void);\n#endif\n", 0),
    ("headers-c", "include/sprout/a.h", "#ifndef A\n#define A\nenum { A1, };\n#endif\n", 0),
    ("headers-cxx", "include/sprout/a.h", "int class_of(int class);\n", 1),
    ("headers-cxx", "include/sprout/a.h", "int class_of(int kind);\n", 0),
    ("lengths", "core/a.c", long_function(70), 0),
    ("lengths", "core/a.c", long_function(71), 1),
    ("lengths", "core/a.c", "/* tidy: allow lengths: one table of states */\n" + long_function(71), 0),
    ("lengths", "core/a.c", "\n" * 601, 1),
    ("lengths", "tests/unit/test_a.c", "\n" * 601, 0),
    ("banned-calls", "core/a.c", "void f(void) {\n  strcpy(a, b);\n}\n", 1),
    ("banned-calls", "core/a.c", "void f(void) {\n  my_strcpy(a, b); /* strcpy(a, b) */ g(\"strcpy(\");\n}\n", 0),
    ("banned-calls", "core/a.c", "void f(void) {\n  exit(1);\n}\n", 1),
    ("banned-calls", "cli/a.c", "void f(void) {\n  exit(1);\n}\n", 0),
    ("banned-calls", "core/a.c", "void f(void) {\n  op->exit(1);\n  op.exit(1);\n}\n", 0),
    ("banned-calls", "tests/unit/test_a.c", "void f(void) {\n  usleep(1);\n}\n", 1),
    ("banned-calls", "tests/e2e/test_a.py", "time.sleep(1)\n", 1),
    ("banned-calls", "tests/e2e/test_a.py", "# tidy: allow banned-calls: no event says it\ntime.sleep(1)\n", 0),
    ("banned-calls", "tests/e2e/test_a.py", "# tidy: allow banned-calls:\ntime.sleep(1)\n", 1),
    ("licence", "core/a.c", SPDX, 0),
    ("licence", "core/a.c", "int a;\n", 1),
    ("licence", "scripts/a.sh", "#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\n", 0),
    ("licence", "demo", "#!/usr/bin/env bash\necho\n", 1),
    ("licence", "CMakeLists.txt", "project(a)\n", 1),
    ("wording", "core/a.c", "/* TO" + "DO: later */\n", 1),
    ("wording", "docs/a.md", "see /" + "root/notes\n", 1),
    ("wording", "docs/a.md", "listen on /run/sprout, $PREFIX/work/x\n", 0),
    ("shell", "scripts/a.sh", "if true; then\n", 2),  # bash and shellcheck
    ("shell", "scripts/a.sh", "#!/usr/bin/env bash\ntrue\n", 0),
]


class Rules(unittest.TestCase):
    def test_every_rule_on_samples(self):
        for rule, name, text, expected in CASES:
            with self.subTest(rule=rule, name=name, text=text), tempfile.TemporaryDirectory() as root:
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                try:
                    findings = tidy.findings_of(rule, tidy.Tree(root), ARGUMENTS)
                except tidy.ToolMissing:
                    continue
                self.assertEqual(min(len(findings), 2), expected, findings)

    def test_every_rule_has_samples(self):
        # The format rule is clang-format's own business.
        self.assertEqual({case[0] for case in CASES} | {"format"}, set(tidy.RULES))


class Source(unittest.TestCase):
    def test_functions_are_found_with_their_lines(self):
        text = (
            "static const int table[] = {1, 2};\n"
            "#define MACRO(x) \\\n  do { \\\n  } while (0)\n"
            "struct s {\n  int (*callback)(int);\n};\n"
            "static int f(int a,\n             int b) {\n  if (a) {\n    return '{';\n  }\n  return b;\n}\n"
            "int g(void);\n"
            "int g(void) {\n  return 0;\n}\n"
        )
        found = [(f.name, f.first_line, f.last_line) for f in source.functions_of(text)]
        self.assertEqual(found, [("f", 8, 14), ("g", 16, 18)])

    def test_forward_declarations_need_no_comment(self):
        kinds = [d.is_forward for d in source.declarations_of("struct a;\nenum b { B };\nint c(void);\n")]
        self.assertEqual(kinds, [True, False, False])


if __name__ == "__main__":
    unittest.main()
