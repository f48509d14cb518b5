#!/usr/bin/env bash
# Generates api/src/auth/password/common.txt: the most common passwords that are long enough to be
# allowed, from the list of leaked passwords that Django maintains. Needs Python with pip. Run it now
# and then with Django's newest version, and commit the result.
set -euo pipefail
cd "$(dirname "$0")/.."

version=6.1.3
list=api/src/auth/password/common.txt

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# For the Python that Django needs; it is only unpacked, so any Python will do here.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.12 --dest "$folder" "django==$version"

VERSION=$version python3 - "$folder"/*.whl >"$folder/list" <<'SCRIPT'
import gzip, os, sys, zipfile

MOST = 3000
SHORTEST = 8  # that is allowed

version = os.environ["VERSION"]
wheel = zipfile.ZipFile(sys.argv[1])
ranked = gzip.decompress(wheel.read("django/contrib/auth/common-passwords.txt.gz")).decode()
licence = wheel.read(f"django-{version}.dist-info/licenses/LICENSE").decode()

words = (word.strip().lower() for word in ranked.splitlines())
# The few that are not ASCII have a broken encoding.
words = (word for word in words if word.isascii() and len(word) >= SHORTEST)
commonest = list(dict.fromkeys(words))[:MOST]
assert len(commonest) == MOST, f"only {len(commonest)} are long enough"
assert not any(word.startswith("#") for word in commonest), "one looks like the head"

head = [
    f"The {MOST} commonest passwords of {SHORTEST} characters and more, in lower case, the commonest first.",
    f"Made by scripts/make-common-passwords.sh from Django {version}, whose list is Royce Williams'",
    "of passwords in leaks, and whose licence is:",
    "",
    *licence.strip().splitlines(),
]
for line in head:
    print(f"# {line}".strip())
print(*commonest, sep="\n")
SCRIPT
cp "$folder/list" $list
echo "$list is made of Django $version."
