"""Seeds, frames, messages, entries and kept state: what the process and the daemon stand on."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from participant.tasks.entry import Entry, check_search_path, parse_entry
from participant.tasks.framing import (
    FRAME_MAX_BYTES,
    FrameError,
    decode_body,
    decode_length,
    encode_frame,
    read_frame,
    write_frame,
)
from participant.tasks.messages import Advanced, Failed, Shutdown, parse_command, parse_reply
from participant.tasks.seeding import SEED_MAX, SeedPurpose, derive_seed, init_seed
from participant.tasks.task_state import DEPTH_MAX, load_state, save_state
from shared.errors import StorageError, TaskError
from shared.reasons import DropReason

# Seeds


def test_seeds_are_fixed_for_ever() -> None:
    seed = derive_seed(job_seed=42, round_number=3, participant="hospital-a", purpose=SeedPurpose.TRAIN)
    assert seed == FROZEN_SEED
    assert init_seed(42) == FROZEN_INIT


FROZEN_SEED = 8553016660551903793
FROZEN_INIT = 5927696434785224694


def test_each_part_of_a_seed_counts() -> None:
    base: dict[str, Any] = {"job_seed": 1, "round_number": 1, "participant": "a", "purpose": SeedPurpose.TRAIN}
    others = ({"job_seed": 2}, {"round_number": 2}, {"participant": "b"}, {"purpose": SeedPurpose.EVALUATE})
    seeds = {derive_seed(**base), *(derive_seed(**{**base, **other}) for other in others)}
    assert len(seeds) == 5
    assert all(0 <= seed <= SEED_MAX for seed in seeds)


# Frames


def test_a_frame_comes_back_from_a_pipe_and_its_end_is_none() -> None:
    here, there = os.pipe()
    write_frame(there, {"kind": "progress", "text": "é"})
    write_frame(there, {})
    os.write(there, b"\x00\x00\x00\x09{")
    os.close(there)
    assert read_frame(here) == {"kind": "progress", "text": "é"}
    assert read_frame(here) == {}
    assert read_frame(here) is None
    assert read_frame(here) is None
    os.close(here)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    for read in (decode_length, decode_body, lambda body: parse_reply(decode_body(body))):
        try:
            read(data)
        except FrameError:
            continue


@pytest.mark.parametrize("body", [b"[1]", b"[" * 100_000, b"\xff", b"{", b"1"])
def test_a_body_is_one_json_object(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_body(body)


def test_what_is_no_json_or_too_long_is_not_sent() -> None:
    for message in ({"x": math.nan}, {"x": {1, 2}}, {"x": "a" * FRAME_MAX_BYTES}):
        with pytest.raises(FrameError):
            encode_frame(message)


def test_messages_are_what_they_say_or_refused() -> None:
    assert parse_command({"kind": "shutdown"}) == Shutdown()
    failed = Failed(reason=DropReason.DISK, message="full")
    assert parse_reply(failed.model_dump(mode="json")) == failed
    assert parse_reply(Advanced(fraction=0.5).model_dump(mode="json")) == Advanced(fraction=0.5)
    for frame in ({}, {"kind": "progress", "fraction": 2}, {"kind": "failed"}, {"kind": "shutdown", "more": 1}):
        with pytest.raises(FrameError):
            parse_reply(frame)
        if "more" in frame:
            with pytest.raises(FrameError, match="more"):
                parse_command(frame)


# Entries


def test_an_entry_names_a_module_and_a_class() -> None:
    assert parse_entry("my_package.heart:HeartTask") == Entry("my_package.heart", "HeartTask")
    assert parse_entry("sharedness:Task") == Entry("sharedness", "Task")
    for text in ("", "heart", "heart:", ":Task", "heart/x:Task", "heart:Task:x", "heart:a.b", ".heart:Task", "1a:T"):
        with pytest.raises(TaskError, match=r"package\.module:Class"):
            parse_entry(text)


@pytest.mark.parametrize("name", ["shared", "coordinator", "participant"])
def test_a_silos_package_with_a_name_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=f"a task's package cannot be called '{name}'"):
        parse_entry(f"{name}.heart:HeartTask")
    (tmp_path / name).mkdir()
    (tmp_path / name / "data.csv").touch()
    check_search_path([tmp_path])  # a folder of data is in nobody's way
    (tmp_path / name / "heart.py").touch()
    with pytest.raises(TaskError, match=f"{name}: a silo's own package cannot be called '{name}'"):
        check_search_path([tmp_path])


def test_a_module_with_a_name_of_ours_is_refused_and_our_own_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "shared.py").touch()
    with pytest.raises(TaskError, match="cannot be called 'shared'"):
        check_search_path([tmp_path])
    with pytest.raises(TaskError, match="absent of the task's search path does not exist"):
        check_search_path([tmp_path / "absent"])
    check_search_path([Path(__file__).parents[4]])


# Kept state


def test_the_state_of_an_optimizer_comes_back_as_it_was(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "numbers": (1, 2.5, True, None, -math.inf, "text", 2**70),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "view": torch.arange(6).reshape(2, 3).t(),
        "parameter": model.weight,
        "empty": {},
        3: [],
    }
    save_state(state, tmp_path / "state")  # type: ignore[arg-type]
    back = load_state(tmp_path / "state")
    assert back["numbers"] == state["numbers"]
    assert (back["empty"], back[3]) == ({}, [])  # type: ignore[index]
    assert back["half"].dtype is torch.bfloat16
    assert torch.equal(back["view"], torch.arange(6).reshape(2, 3).t())
    assert torch.equal(back["parameter"], model.weight)
    other = torch.optim.Adam(model.parameters())
    other.load_state_dict(back["optimizer"])
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert torch.equal(other.state[model.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


def test_nan_is_kept(tmp_path: Path) -> None:
    save_state({"x": math.nan}, tmp_path / "state")
    assert math.isnan(load_state(tmp_path / "state")["x"])


def nested(depth: int) -> dict[str, Any]:
    return {"x": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "state_dict returns a dictionary or None, got list"),
        ({"a": [1, {2}]}, r"state\['a'\]\[1\]: a task's state is made of .* got builtins.set"),
        ({"a": {1.5: 2}}, r"state\['a'\]: a key of a task's state is text or an integer, got float"),
        ({"a": torch.zeros(2).to_sparse()}, r"state\['a'\]: it is sparse"),
        (nested(DEPTH_MAX + 1), "nested at most 32 deep"),
    ],
)
def test_what_cannot_be_kept_is_named(tmp_path: Path, state: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        save_state(state, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_no_state_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not hold a task's state"):
        load_state(tmp_path / "absent")
    (tmp_path / "text").write_text("hello, this is no state at all")
    with pytest.raises(StorageError, match="does not hold a task's state"):
        load_state(tmp_path / "text")
    with pytest.raises(StorageError, match="cannot write"):
        save_state({}, tmp_path / "absent" / "state")
