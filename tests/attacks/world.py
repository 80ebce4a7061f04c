"""Federations to attack: ten silos, as the job assumes, some of whom collude with the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shared.consortium import Consortium
from shared.entropy import SeededEntropy
from shared.ids import ParticipantId
from shared.job import JobSpec
from tests.attacks.attacker import Attacker
from tests.attacks.defences import NONE, Defences
from tests.attacks.product_silo import ProductSilo
from tests.attacks.silos import Deltas, Silo
from tests.attacks.small_silo import SmallSilo
from tests.support.rounds import ELEMENTS, key_of, make_masked_spec, manifest_of

NAMES = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcdefghij")
VICTIM = NAMES[0]
KNOWN = manifest_of(*NAMES)

Make: TypeAlias = Callable[[ParticipantId], Silo]


def deltas_of(name: str) -> Deltas:
    """The same in every run, different for everybody, and exact in every encoding that is used here."""
    drawn = np.frombuffer(SeededEntropy(b"update" + name.encode()).take(2 * ELEMENTS), "<i2")
    return np.ldexp(drawn.astype(np.float32), -12)


def small(**off: Any) -> Make:
    """Silos of the smallest kind; what is named is off, the rest is on."""

    def make(name: ParticipantId) -> SmallSilo:
        return _small(name, Defences(**off), KNOWN)

    return make


def product(folder: Path, **changed: Any) -> Make:
    """Silos of the product."""

    def make(name: ParticipantId) -> ProductSilo:
        fields = {"consortium": KNOWN} | changed
        entropy = SeededEntropy(b"product" + name.encode())
        return ProductSilo(name=name, deltas=deltas_of(name), folder=folder, entropy=entropy, **fields)

    return make


def played(name: ParticipantId, *, signs_as: str | None = None) -> SmallSilo:
    """One that does all that the coordinator asks, and tells it all that it knows. `signs_as`: with another's key."""
    return _small(name, NONE, KNOWN, signs_as=signs_as)


def job(*, members: Iterable[ParticipantId] = NAMES, colluding: int = 3, **masking: Any) -> JobSpec:
    """In the wide encoding, where no range needs to be known."""
    table = {"max_colluding": colluding, "allow_no_collusion": colluding == 0, "encoding": "u64"} | masking
    return make_masked_spec(members=tuple(members), masking=table)


def federation(
    make: Make,
    *,
    colluders: Iterable[SmallSilo] | None = None,
    spec: JobSpec | None = None,
) -> Attacker:
    """Everybody in the job who does not collude is made by `make`; the last three collude, unless told."""
    spec = spec or job()
    pooled = [played(name) for name in NAMES[-3:]] if colluders is None else list(colluders)
    colluding = {silo.name: silo for silo in pooled}
    silos = {name: make(name) for name in spec.members if name not in colluding}
    return Attacker(spec=spec, silos=silos, colluders=colluding, consortium=KNOWN.digest.raw)


def as_if_unknown(silo: SmallSilo) -> SmallSilo:
    """A colluder that follows whatever threshold follows from the roster."""
    silo.defences = replace(silo.defences, threshold_of_the_job=False)
    return silo


def total_of(world: Attacker, names: Iterable[ParticipantId]) -> Deltas:
    """The true sum of these silos' updates."""
    total: Deltas = np.sum([world.silos[name].deltas for name in names], axis=0, dtype=np.float32)
    return total


def _small(
    name: ParticipantId, defences: Defences, consortium: Consortium, *, signs_as: str | None = None
) -> SmallSilo:
    return SmallSilo(
        name=name,
        deltas=deltas_of(name),
        signer=key_of(signs_as or name),
        consortium=consortium,
        draw=SeededEntropy(b"small" + name.encode()).take,
        defences=defences,
    )
