# What is installed, in a copy of the checkout. The packages of others are those of this environment, in the place of an
# index: pip finds them there, in the versions of constraints.txt, and installs Consilo and the tasks themselves.

git clone -q "$CHECKOUT" checkout
(cd "$CHECKOUT" && git diff --name-only -z --diff-filter=d HEAD | xargs -0 -r cp --parents -t "$HOME/work/checkout")
cd checkout
plain_path=$PATH
# environment FOLDER: one that has the packages of others; `python3 -m venv` leaves it as it is.
environment() {
  export PATH=$plain_path
  python3 -m venv "$1"
  python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$(echo "$1"/lib/python3.*/site-packages)/others.pth"
}
# has_own COMMAND: it is of the environment that was just filled, and says its version.
has_own() {
  test "$(command -v consilo)" = "$1/bin/consilo"
  consilo --version | grep -c "revision $(git rev-parse HEAD)"
}

# --- The guides for operators and for silo IT ---
environment "$HOME/opt/coordinator"
~ /opt/consilo => $HOME/opt/coordinator
@ coordinator
has_own "$HOME/opt/coordinator"
environment "$HOME/opt/participant"
~ /opt/consilo => $HOME/opt/participant
@ participant
has_own "$HOME/opt/participant"
@ participant-task
@ images-cnn
@ tabular-script
(cd / && consilo task try --entry digits_task:DigitsTask --training local_epochs=1)

# --- The guide for data scientists, and the tutorial ---
environment .venv
@ data-scientist
has_own "$PWD/.venv"
rm -r .venv
environment .venv
@ tutorial
has_own "$PWD/.venv"
checkout=$PWD
@ hearts
test "$PWD" = "$HOME/hearts"

# --- docs/packages.md ---
cd "$checkout"
@ version
~ dist/consilo-[...]-py3-none-any.whl => '$(echo dist/consilo-*-py3-none-any.whl)'
@ packages
