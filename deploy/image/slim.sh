#!/bin/sh
# Takes out of an environment what a server never reads. The figures are those of the releases in requirements/.
set -eu
site=$(echo "$1"/lib/python3.*/site-packages)
# 42 MB: tests of scipy, pandas and numpy. (TensorFlow's public `test` is no such folder, and is imported.)
for package in scipy pandas numpy; do
  find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
# 28 MB: parts of scipy that superpixels have no use for.
for part in optimize stats io interpolate integrate signal odr; do
  rm -rf "${site:?}/scipy/$part"
done
# 7 MB: pictures for examples.
find "$site/skimage/data" -type f ! -name '*.py' ! -name '*.pyi' -delete
# 290 MB: headers for building operations of one's own.
rm -rf "${site:?}/tensorflow/include"
