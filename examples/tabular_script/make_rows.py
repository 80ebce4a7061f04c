# ruff: noqa: S311, T201 - made up rows, written to standard output
"""Rows that nobody has: age, blood pressure and cholesterol, in standard units, and whether the heart is ill.

python make_rows.py SEED COUNT > patients.csv
"""

from __future__ import annotations

import random
import sys


def main(seed: int, count: int) -> None:
    draw = random.Random(seed)
    print("age,pressure,cholesterol,disease")
    for _ in range(count):
        age, pressure, cholesterol = (draw.gauss(0, 1) for _ in range(3))
        risk = age + pressure * cholesterol + draw.gauss(0, 0.3)
        print(f"{age:.3f},{pressure:.3f},{cholesterol:.3f},{int(risk > 0)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
