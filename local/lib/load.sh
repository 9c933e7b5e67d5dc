# shellcheck shell=bash
# Reads every part of local/lib and the layout; what the commands in local/ begin with.

for part in common layout process ports fetch kafka cassandra redis prometheus services gateway stack; do
  # shellcheck source=/dev/null
  source "$LOCAL_DIR/lib/$part.sh"
done
unset part
layout_load
