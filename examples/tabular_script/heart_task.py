# ruff: noqa: ANN001, ANN201, ANN204, A002 - as one writes it who runs no type checker
from heart_script import build_model, load_rows, measure, train

from consilo import EvaluateResult, Task, TrainResult


class HeartTask(Task):
    def __init__(self, options):
        super().__init__(options)
        self.train_rows, self.test_rows = load_rows(options["csv"])

    def build_model(self):
        return build_model()

    def train(self, model, round):
        rows = self.train_rows.to(round.device)
        train(model, rows, **round.training)
        return TrainResult(weight=len(rows), metrics=measure(model, rows))

    def evaluate(self, model, round):
        rows = self.test_rows.to(round.device)
        return EvaluateResult(weight=len(rows), metrics=measure(model, rows))
