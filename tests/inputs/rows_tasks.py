"""Tasks that cannot be loaded, and ways to ask for one that is not there."""

from __future__ import annotations

from tests.inputs.place import Row, adding, several, writing

TASKS = """
from consilo import Task

class Plain:
    pass

class Half(Task):
    def build_model(self):
        return None

class Failing(Task):
    def __init__(self, options):
        raise KeyError("path")
    def build_model(self): ...
    def train(self, model, round): ...
    def evaluate(self, model, round): ...
"""

ROWS = [
    Row(
        name="a task that is not installed",
        spoil=writing("tasks/heart.py", TASKS),
        command="task try --entry cardio:Heart --path tasks",
        says=(
            "task_unavailable: entry cardio:Heart: no module 'cardio' is installed here or in "
            "/srv/consilo/tasks: install the task's package into this environment (pip install), or "
            "put its folder on PYTHONPATH"
        ),
        long=True,
    ),
    Row(
        name="a task's class that is not there",
        spoil=writing("tasks/heart.py", TASKS),
        command="task try --entry heart:Heart --path tasks",
        says="task_unavailable: entry heart:Heart: module 'heart' has no class 'Heart'",
        long=True,
    ),
    Row(
        name="a class that is no task",
        spoil=writing("tasks/heart.py", TASKS),
        command="task try --entry heart:Plain --path tasks",
        says=("task_unavailable: entry heart:Plain: expected a subclass of consilo.Task, got <class 'heart.Plain'>"),
        long=True,
    ),
    Row(
        name="a task without its methods",
        spoil=writing("tasks/heart.py", TASKS),
        command="task try --entry heart:Half --path tasks",
        says="task_unavailable: entry heart:Half: the class has no evaluate, train",
        long=True,
    ),
    Row(
        name="a task that fails when it is made",
        spoil=writing("tasks/heart.py", TASKS),
        command="task try --entry heart:Failing --path tasks",
        says="task_unavailable: KeyError: 'path'",
        long=True,
    ),
    Row(
        name="a task's module with a syntax error",
        spoil=writing("tasks/heart.py", "def"),
        command="task init-model --entry heart:Heart --path tasks out.safetensors",
        says="task_unavailable: SyntaxError: invalid syntax (heart.py, line 1)",
        long=True,
    ),
    Row(
        name="a task that is not installed: participant check",
        spoil=adding("participant.toml", '[tasks.heart]\nentry = "cardio:Heart"\n'),
        command="participant check --json",
        says=(
            "entry cardio:Heart: no module 'cardio' is installed here: install the task's package "
            "into this environment (pip install), or put its folder on PYTHONPATH"
        ),
        long=True,
        leaves=("hospital-a-data*",),
    ),
    Row(
        name="a module beside the task that hides ours",
        spoil=several(writing("tasks/heart.py", TASKS), writing("tasks/shared.py", "")),
        command="task try --entry heart:Half --path tasks",
        says="tasks/shared: a silo's own package cannot be called 'shared', Consilo has one; rename it",
    ),
    Row(
        name="a task's package with a name of ours, tried",
        command="task try --entry shared.heart:Heart",
        says=("entry 'shared.heart:Heart': a task's package cannot be called 'shared', Consilo has one; rename it"),
    ),
    Row(
        name="a folder of tasks that is not there",
        command="task try --entry heart:Heart --path nowhere",
        says="the folder nowhere of the task's search path does not exist",
    ),
    Row(
        name="a task's file in place of its class, tried",
        command="task try --entry heart.py",
        says="a task's entry is written package.module:Class, got 'heart.py'",
    ),
    Row(
        name="no task to try",
        command="task try",
        says="say where the task is: --entry module:Class, or --config participant.toml",
        code=2,
    ),
    Row(
        name="two tasks to try",
        command="task try --entry heart:Heart --config participant.toml",
        says="say where the task is: --entry module:Class, or --config participant.toml",
        code=2,
    ),
    Row(
        name="a task that the configuration does not have",
        command="task try --config participant.toml --task heart",
        says="participant.toml has no task 'heart'; it installs: none",
        code=2,
    ),
    Row(
        name="an option without a value",
        command="task try --entry heart:Heart --option path",
        says="--option takes KEY=VALUE, got 'path'",
        code=2,
    ),
    Row(
        name="a job file that is not there",
        command="task try --entry heart:Heart --job nowhere.toml",
        says="Invalid value for '--job': File 'nowhere.toml' does not exist.",
        code=2,
    ),
    Row(
        name="a job file that is not TOML, tried",
        spoil=writing("job.toml", "heart"),
        command="task try --entry heart:Heart --job job.toml",
        says="job.toml: not TOML: Expected '=' after a key in a key/value pair (at end of document)",
    ),
    Row(
        name="a model that is not there",
        command="task try --entry heart:Heart --model nowhere.safetensors",
        says="Invalid value for '--model': File 'nowhere.safetensors' does not exist.",
        code=2,
    ),
]
