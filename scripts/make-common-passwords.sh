#!/usr/bin/env bash
# Makes api/src/password/common.txt anew: the commonest passwords that are long enough to be
# allowed. Django brings a list of those that are found most often in leaks, the commonest
# first, and keeps it up. Needs Python with pip. Run it now and then with Django's newest
# version, and commit what it writes.
set -euo pipefail
cd "$(dirname "$0")/.."

version=6.1.3
list=api/src/password/common.txt

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# For the Python that Django wants; it is only unpacked, so any will do here.
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
# The few that are not ASCII were garbled on their way.
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
