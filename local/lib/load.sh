# shellcheck shell=bash
# Sources all of local/lib and loads the layout; every command in local/ starts with this.

for part in common layout process ports fetch kafka cassandra redis prometheus services gateway stack; do
  # shellcheck source=/dev/null
  source "$LOCAL_DIR/lib/$part.sh"
done
unset part
layout_load
