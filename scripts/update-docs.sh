#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the documents that come from the program's own tables. usage: update-docs.sh PROGRAM [DOCS_DIR]
set -euo pipefail

program=$1
docs=${2:-$(dirname "$0")/../docs}
"$program" help --markdown > "$docs/COMMANDS.md"
"$program" help --metrics > "$docs/METRICS.md"
"$program" help --limits > "$docs/LIMITS.md"
