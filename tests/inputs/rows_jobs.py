"""Job files and initial models that no job can be made of."""

from __future__ import annotations

import json
import math
import pickle
import struct

from tests.inputs.place import MODEL, Row, a_folder, adding, removing, replacing, writing
from tests.support.models import model_bytes, random_tensors

SUBMIT = "job submit job.toml"


def whole(**tensors: bytes) -> bytes:
    """A model in which nothing is wrong but for `tensors`."""
    return model_bytes(MODEL, {**random_tensors(MODEL, 1), **tensors})


def file_of(**entries: tuple[str, list[int], int, int]) -> bytes:
    """A model file with these entries, whatever they are: element type, shape, and the range of the bytes."""
    header = json.dumps(
        {
            name: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
            for name, (dtype, shape, start, end) in entries.items()
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(max(end for *_, end in entries.values()))


WHOLE = whole()

ROWS = [
    Row(
        name="no job file",
        command="job submit nowhere.toml",
        says="Invalid value for 'FILE': File 'nowhere.toml' does not exist.",
        code=2,
    ),
    Row(
        name="a folder as job file",
        command="job submit pki",
        says="Invalid value for 'FILE': File 'pki' is a directory.",
        code=2,
    ),
    Row(
        name="a job file that is not UTF-8",
        spoil=writing("job.toml", b'name = "c\xf4ur"\n'),
        command=SUBMIT,
        says=("job.toml: not TOML: expected UTF-8, line 1 has a byte 0xf4 that is none: save it as UTF-8"),
    ),
    Row(
        name="an unknown key of a job",
        spoil=adding("job.toml", "quorom = 2\n"),
        command=SUBMIT,
        says=(
            "job.toml: quorom: unknown key; expected one of initial, masking, members, metrics, name,"
            " round, rounds, seed, strategy, task, training"
        ),
    ),
    Row(
        name="an unknown key of a round",
        spoil=adding("job.toml", "[round]\nquorom = 2\n"),
        command=SUBMIT,
        says=(
            "job.toml: round.quorom: unknown key; expected one of aborted_rounds_allowed, attempts, "
            "deadline_s, exchange_deadline_s, grace_s, min_survivors, quorum, upload_deadline_s"
        ),
    ),
    Row(
        name="an unknown key of a job whose digest is asked for",
        spoil=adding("job.toml", "quorom = 2\n"),
        command="job digest job.toml",
        says=(
            "job.toml: quorom: unknown key; expected one of initial, masking, members, metrics, name,"
            " round, rounds, seed, strategy, task, training"
        ),
    ),
    Row(
        name="text for a number of rounds",
        spoil=replacing("job.toml", "rounds = 2", 'rounds = "2"'),
        command=SUBMIT,
        says="job.toml: rounds: expected a whole number, got '2'",
    ),
    Row(
        name="no rounds",
        spoil=replacing("job.toml", "rounds = 2", "rounds = 0"),
        command=SUBMIT,
        says="job.toml: rounds: expected at least 1, got 0",
    ),
    Row(
        name="a deadline in the past",
        spoil=adding("job.toml", "[round]\ndeadline_s = -1.0\n"),
        command=SUBMIT,
        says="job.toml: round.deadline_s: expected more than 0, got -1.0",
    ),
    Row(
        name="an encoding that is none",
        spoil=adding("job.toml", '[masking]\nencoding = "u8"\n'),
        command=SUBMIT,
        says="job.toml: masking.encoding: expected 'u32', 'u16' or 'u64', got 'u8'",
    ),
    Row(
        name="a job's name that is none",
        spoil=replacing("job.toml", 'name = "heart"', 'name = "Heart Study"'),
        command=SUBMIT,
        says=(
            "job.toml: name: a job's name has 1 to 50 characters a-z, 0-9 and '-', none of them '-' "
            "at an end; got 'Heart Study'"
        ),
    ),
    Row(
        name="a metric's name that is none",
        spoil=replacing("job.toml", '"loss"', '"Loss"'),
        command=SUBMIT,
        says=(
            "job.toml: metrics.0: a metric's name has 1 to 63 characters a-z, 0-9 and '_', the first "
            "of them a letter; got 'Loss'"
        ),
    ),
    Row(
        name="a member twice",
        spoil=replacing("job.toml", '"hospital-b"', '"hospital-a"'),
        command=SUBMIT,
        says="job.toml: members: 'hospital-a' is there twice",
    ),
    Row(
        name="a quorum above the members",
        spoil=adding("job.toml", "[round]\nquorum = 4\n"),
        command=SUBMIT,
        says="job.toml: round.quorum is 4, but the job has 3 members",
    ),
    Row(
        name="a strategy that must see each update",
        spoil=adding("job.toml", '[strategy]\nname = "krum"\n'),
        command=SUBMIT,
        says=("job.toml: strategy.name 'krum' must see each update, and masking hides them: this version has 'fedavg'"),
    ),
    Row(
        name="a strategy that is none",
        spoil=adding("job.toml", '[strategy]\nname = "fedprox"\n'),
        command=SUBMIT,
        says="job.toml: strategy.name: this version has 'fedavg', not 'fedprox'",
    ),
    Row(
        name="a masked job of two",
        spoil=replacing("job.toml", ', "hospital-c"', ""),
        command=SUBMIT,
        says=(
            "job.toml: with 2 members each learns the other's update from the total: more members, or"
            " masking.allow_two_party"
        ),
    ),
    Row(
        name="NaN for the task",
        spoil=adding("job.toml", "[training]\nlearning_rate = nan\n"),
        command=SUBMIT,
        says=(
            "job.toml: training: expected numbers that JSON can hold, got NaN or infinity (Out of "
            "range float values are not JSON compliant)"
        ),
    ),
    Row(
        name="a job's id that is none",
        command=f"{SUBMIT} --id Heart_1",
        says=(
            "Invalid value for '--id': a job id has 1 to 63 characters a-z, 0-9 and '-', none of them"
            " '-' at an end; got 'Heart_1'"
        ),
        code=2,
    ),
    Row(
        name="no initial model",
        spoil=removing("initial.safetensors"),
        command=SUBMIT,
        says=(
            "job.toml: initial: expected a safetensors file, initial.safetensors cannot be read (No "
            "such file or directory): `consilo task init-model` makes one"
        ),
    ),
    Row(
        name="a folder as initial model",
        spoil=a_folder("initial.safetensors"),
        command=SUBMIT,
        says=(
            "job.toml: initial: expected a safetensors file, initial.safetensors cannot be read (Is a"
            " directory): `consilo task init-model` makes one"
        ),
    ),
    Row(
        name="an empty initial model",
        spoil=writing("initial.safetensors", ""),
        command=SUBMIT,
        says="job.toml: initial: expected a safetensors file, initial.safetensors is empty",
    ),
    Row(
        name="a model that is cut in its data",
        spoil=writing("initial.safetensors", WHOLE[:-4]),
        command=SUBMIT,
        says="initial.safetensors: the tensors have 32 bytes together, the file has 28 bytes of data",
    ),
    Row(
        name="a model that is cut in its header",
        spoil=writing("initial.safetensors", WHOLE[:40]),
        command=SUBMIT,
        says=("initial.safetensors: the file ends inside its header: 120 bytes announced, 40 in the file"),
    ),
    Row(
        name="a model with more bytes than tensors",
        spoil=writing("initial.safetensors", WHOLE + b"x"),
        command=SUBMIT,
        says="initial.safetensors: the tensors have 32 bytes together, the file has 33 bytes of data",
    ),
    Row(
        name="a model whose header is too long",
        spoil=writing("initial.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"),
        command=SUBMIT,
        says=(
            "initial.safetensors: a model file's header has at most 16777216 bytes, this one says "
            "1099511627776: is it a safetensors file?"
        ),
    ),
    Row(
        name="a model whose header is not JSON",
        spoil=writing("initial.safetensors", (4).to_bytes(8, "little") + b"{abc"),
        command=SUBMIT,
        says=(
            "initial.safetensors: the header is not JSON: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)"
        ),
    ),
    Row(
        name="a model whose tensors overlap",
        spoil=writing("initial.safetensors", file_of(a=("F32", [2], 0, 8), b=("F32", [2], 4, 12))),
        command=SUBMIT,
        says=("initial.safetensors: tensor 'b': its data overlaps the one before: expected to start at 8, got 4"),
    ),
    Row(
        name="a model with a hole",
        spoil=writing("initial.safetensors", file_of(a=("F32", [2], 0, 8), b=("F32", [1], 12, 16))),
        command=SUBMIT,
        says=("initial.safetensors: tensor 'b': its data leaves a hole before it: expected to start at 8, got 12"),
    ),
    Row(
        name="a model whose shape does not fit its bytes",
        spoil=writing("initial.safetensors", file_of(a=("F32", [3], 0, 8))),
        command=SUBMIT,
        says=("initial.safetensors: tensor 'a': F32 of shape (3,) has 12 bytes, its data_offsets are [0, 8]"),
    ),
    Row(
        name="a model with an element type that is not carried",
        spoil=writing("initial.safetensors", file_of(a=("F8_E4M3", [8], 0, 8))),
        command=SUBMIT,
        says=(
            "initial.safetensors: tensor 'a': element type 'F8_E4M3', expected one of F64, F32, F16, "
            "BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"
        ),
    ),
    Row(
        name="a model with nothing to train",
        spoil=writing("initial.safetensors", file_of(a=("I64", [1], 0, 8))),
        command=SUBMIT,
        says="initial.safetensors: the model has no floating-point tensor: there is nothing to train",
    ),
    Row(
        name="a model with a NaN",
        spoil=writing("initial.safetensors", whole(bias=struct.pack("<2f", 1.0, math.nan))),
        command=SUBMIT,
        says=(
            "initial.safetensors: tensor 'bias' holds a NaN or an infinity: every sum with it would "
            "too. Initialise the model again"
        ),
    ),
    Row(
        name="a model with an infinity",
        spoil=writing("initial.safetensors", whole(bias=struct.pack("<2f", 1.0, math.inf))),
        command=SUBMIT,
        says=(
            "initial.safetensors: tensor 'bias' holds a NaN or an infinity: every sum with it would "
            "too. Initialise the model again"
        ),
    ),
    Row(
        name="a zip of torch.save",
        spoil=writing("initial.safetensors", b"PK\x03\x04" + bytes(100)),
        command=SUBMIT,
        says=(
            "initial.safetensors: expected a safetensors file, got a pickle as torch.save writes it, "
            "which could run code where it is loaded: write it with safetensors.torch.save_file, or "
            "`consilo task init-model`"
        ),
    ),
    Row(
        name="a pickle",
        spoil=writing("initial.safetensors", pickle.dumps({"bias": [0.0, 1.0]})),
        command=SUBMIT,
        says=(
            "initial.safetensors: expected a safetensors file, got a pickle as torch.save writes it, "
            "which could run code where it is loaded: write it with safetensors.torch.save_file, or "
            "`consilo task init-model`"
        ),
    ),
    Row(
        name="a model's digest that is none",
        spoil=replacing("job.toml", "initial.safetensors", "model:12ab"),
        command=SUBMIT,
        says=(
            "job.toml: initial: expected 64 lower-case hexadecimal digits, got '12ab'. `consilo model"
            " list --json` prints whole digests"
        ),
    ),
]
