# The guide for data scientists up to the job file, and the examples' own pages.

# --- From nothing: all in one class ---
mkdir -p heart-study/heart_study
cd heart-study
~ CHECKOUT/ => $CHECKOUT/
@ rows
< pyproject pyproject.toml
< task heart_study/task.py
< job job.toml
@ try
# The lines of "A training of hours" take the place of the loop.
python3 - <<'END_OF_PYTHON'
import re
from pathlib import Path

page = Path(__import__("os").environ["CHECKOUT"], "docs", "guide-data-scientist.md").read_text(encoding="utf-8")
(shown,) = re.findall(r"```python\n(        epochs, first = .*?)```", page, re.DOTALL)
task = Path("heart_study/task.py")
text = task.read_text(encoding="utf-8")
before, loop = text.split('        epochs = round.training["local_epochs"]\n')
loop, after = loop.split("            round.progress(epoch + 1, epochs)\n")
inner = loop.split("\n", 1)[1]
task.write_text(before + shown.replace("            ...\n", inner) + after, encoding="utf-8")
END_OF_PYTHON
@ try-interrupt
@ init-model
@ digest
cd ..

# --- examples/tabular_script ---
cp -r "$CHECKOUT/examples/tabular_script" .
cd tabular_script
~ python make_rows.py => python3 make_rows.py
@ tabular
cd ..

# --- examples/images_cnn ---
ln -s "$CHECKOUT/examples" examples
@ digits-try
@ digits-init-model
