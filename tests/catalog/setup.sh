#!/usr/bin/env bash
# Fetches the jars of the REST catalog that tests of the sinks start, and compiles it. Does nothing when that was done already.
# Needs: a JDK (17 or newer) and Maven.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/livelake/catalog"
wanted="$(cat "$here/pom.xml" "$here/RestCatalog.java" | sha256sum | cut -c1-16)"

if [ "$(cat "$folder/installed.txt" 2>/dev/null)" = "$wanted" ]; then
  echo "the REST catalog is in $folder"
  exit 0
fi
mkdir -p "$folder"
rm -rf "$folder/jars" "$folder/classes"
mvn -B -q -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder/jars"
mkdir "$folder/classes"
javac -cp "$folder/jars/*" -d "$folder/classes" "$here/RestCatalog.java"
printf '%s\n' "$wanted" > "$folder/installed.txt"
echo "put the REST catalog into $folder"
