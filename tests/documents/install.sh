# What is installed, in a copy of the checkout. The packages of others are those of this environment, in the place of an
# index: pip finds them there already, in the versions of constraints.txt, and installs Consilo and the tasks.

git clone -q "$CHECKOUT" checkout
cd checkout
others=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# with_others FOLDER: an environment that has them too.
with_others() {
  grep -vl __editable__ /dev/null || true
  echo "$others" > "$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth"
}
