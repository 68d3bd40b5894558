"""Whole data sets: what is finished stays, what is missing is made, and the bits are those of one undisturbed run."""

import ast
import json
import logging.handlers
import os
import random
import signal
import subprocess
import sys
import time
import warnings
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from language import WordTokenizer
from language import make as language_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchwhy as tw
from torchwhy.datasets import job as job_module
from torchwhy.datasets import store as stored
from torchwhy.datasets.batches import batches_of, count_all_rows
from torchwhy.datasets.likeness import likeness_of

ROWS = 40

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
# where there is a GPU, torch has threads for it after the first backward pass of a process, and refuses one in a copy of it
forks_and_differentiates = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="no backward pass in a copy of a process here"
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def rows(n=ROWS):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def loader(n=ROWS, batch_size=8):
    return DataLoader(TensorDataset(*rows(n)), batch_size=batch_size)


def files(path):
    return {file.name: file.read_bytes() for file in sorted(Path(path).glob("batch-*"))}


def test_it_is_the_loop_over_the_batches(tmp_path):
    x, y = rows()
    method = tw.IntegratedGradients(network(), n_steps=8)
    found = tw.explain_dataset(method, loader(), tmp_path / "out", target="label")
    expected = tw.concat([method.explain(x[i : i + 8], y[i : i + 8]) for i in range(0, ROWS, 8)])
    assert len(found) == ROWS
    assert found[:].attributions.equal(expected.attributions)
    assert found[:].scores.equal(expected.scores)
    assert found[13].attributions.equal(expected.attributions[13:14])
    assert found[[39, 0, 9]].attributions.equal(expected.attributions[[39, 0, 9]])
    assert found[6:10].inputs.equal(x[6:10])
    assert [len(batch) for batch in found.batches()] == [8] * 5
    torch.testing.assert_close(found.mean_absolute(), expected.attributions.abs().double().mean(0))
    assert sum(1 for _ in found) == ROWS
    with pytest.raises(IndexError):
        found[ROWS]


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x,
        lambda x: (x, torch.zeros(len(x), dtype=torch.long)),
        lambda x: DataLoader(x, batch_size=32),
        lambda x: TensorDataset(x),
        lambda x: [x[:32], x[32:]],
        lambda x: iter([[x[:32]], [x[32:]]]),
        lambda x: [{"input": x[:32]}, {"input": x[32:], "label": torch.zeros(8, dtype=torch.long)}],
        lambda x: x.numpy(),
    ],
    ids=["tensor", "tensors", "loader", "dataset", "list", "iterator", "mappings", "array"],
)
def test_every_form_of_data_gives_the_same(data, tmp_path):
    x = rows()[0]
    method = tw.Saliency(network())
    found = tw.explain_dataset(method, data(x), tmp_path / "out", target=1)
    values = torch.cat(
        [next(iter(v.values())) if isinstance(v, dict) else v for v in (b.attributions for b in found.batches())]
    )
    assert values.equal(method.attribute(x, 1))


def test_a_table_is_cut_into_batches(tmp_path):
    pandas = pytest.importorskip("pandas")
    batches = list(batches_of(pandas.DataFrame(rows()[0].numpy(), columns=list("abcd")), batch_size=16))
    assert [(b.first_row, b.rows) for b in batches] == [(0, 16), (16, 16), (32, 8)]


def test_a_dataset_of_rows_is_collated_as_asked(tmp_path):
    x, y = rows()
    data = [{"pixels": row, "class": label} for row, label in zip(x, y)]

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            return data[i]

    def collate(batch):
        return torch.stack([r["pixels"] for r in batch]), torch.stack([r["class"] for r in batch])

    method = tw.Saliency(network())
    found = tw.explain_dataset(method, Rows(), tmp_path / "out", target="label", collate=collate, batch_size=7)
    assert len(list(found.batches())) == 6
    torch.testing.assert_close(found[:].attributions, method.attribute(x, y))


def test_a_second_run_does_only_what_is_missing(tmp_path):
    method, path = tw.SmoothGrad(network(), n_samples=3), tmp_path / "out"
    first = tw.explain_dataset(method, loader(), path, target="label")
    before, index = files(path), (path / "index.json").read_text()
    assert first.manifest["seed"] is not None  # drawn, and kept
    done = []
    tw.explain_dataset(method, loader(), path, target="label", callback=done.append)
    assert done[-1] == (4, 0, 0, ROWS)
    broken = path / "batch-00000002.safetensors"
    broken.write_bytes(before[broken.name][:100])
    (path / "batch-00000003.safetensors").unlink()
    said = logging.handlers.BufferingHandler(100)
    logging.getLogger("torchwhy").addHandler(said)
    try:
        tw.explain_dataset(method, loader(), path, target="label", callback=done.append)
    finally:
        logging.getLogger("torchwhy").removeHandler(said)
    assert done[-1] == (4, 16, 0, 24)
    warned = [record.getMessage() for record in said.buffer if record.levelno == logging.WARNING]
    assert "batch-00000002.safetensors is broken" in "".join(warned)
    assert files(path) == before
    facts = [{k: v for k, v in b.items() if k != "seconds"} for b in json.loads(index)["batches"]]
    again = json.loads((path / "index.json").read_text())["batches"]
    assert [{k: v for k, v in b.items() if k != "seconds"} for b in again] == facts


@pytest.mark.parametrize(
    ("data", "planned"),
    [
        (loader(), True),
        (TensorDataset(*rows()), True),
        (rows(), True),
        ([(rows()[0][i : i + 8], rows()[1][i : i + 8]) for i in range(0, ROWS, 8)], True),
        (((rows()[0][i : i + 8], rows()[1][i : i + 8]) for i in range(0, ROWS, 8)), False),
    ],
    ids=["loader", "dataset", "tensors", "list", "generator"],
)
def test_an_unfinished_job_says_so(tmp_path, data, planned):
    def stop(progress):
        raise KeyboardInterrupt

    cut = {"batch_size": 8} if planned and not isinstance(data, (DataLoader, list)) else {}
    job = (tw.Saliency(network()), data, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tw.explain_dataset(*job, target="label", callback=stop, **cut)
    found = tw.load_dataset(tmp_path)
    done = len(files(tmp_path))  # those that waited for the disk got there
    told = f"{done} of 5 batches" if planned else f"{done} batches"
    assert not found.complete
    assert f"unfinished: {told}" in repr(found)
    for over_all in (tw.summarize, tw.datasets.ExplainedDataset.mean_absolute):
        with pytest.warns(UserWarning, match=f"unfinished, {told}: .*the {8 * done} that are there") as said:
            over_all(found)
        assert {w.filename for w in said} == {__file__}
    if not planned:
        return
    found = tw.explain_dataset(*job, target="label", **cut)
    assert found.complete
    assert "unfinished:" not in repr(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tw.load_dataset(tmp_path).to_dataframe()) == ROWS


def test_more_data_make_a_finished_job_unfinished_until_they_are_done(tmp_path):
    def stop(progress):
        if progress.explained:
            raise KeyboardInterrupt

    (x, _), job = rows(200), {"target": 1, "batch_size": 8}
    method = tw.Saliency(network())
    assert tw.explain_dataset(method, x[:16], tmp_path, **job).complete
    with pytest.raises(KeyboardInterrupt):
        tw.explain_dataset(method, x, tmp_path, callback=stop, **job)
    assert f"unfinished: {len(files(tmp_path))} of 25 batches" in repr(tw.load_dataset(tmp_path))
    assert tw.explain_dataset(method, x, tmp_path, **job).complete


def test_a_row_has_its_share_of_the_cost_of_its_batch(tmp_path):
    method = tw.KernelSHAP(network(), n_samples=20, check=False)
    found = tw.explain_dataset(method, loader(), tmp_path, target="label")
    assert found[39].evaluations == method.explain(rows()[0][:1], 1).evaluations
    assert found[:].evaluations == sum(e.evaluations for e in found) == sum(e.evaluations for e in found.batches())
    assert found[39].seconds * 8 == pytest.approx(list(found.batches())[-1].seconds)
    assert found[39].seconds > 0


def test_what_was_cut_off_is_done_again(tmp_path):
    method, path = tw.Saliency(network()), tmp_path / "out"
    tw.explain_dataset(method, loader(), path, target="label")
    lines = path / "finished-0.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    (path / "index.json").unlink()
    assert len(tw.load_dataset(path)) == ROWS - 8
    assert len(tw.explain_dataset(method, loader(), path, target="label")) == ROWS


def test_another_job_is_refused(tmp_path):
    method, path = tw.Saliency(network()), tmp_path / "out"
    tw.explain_dataset(method, loader(), path, target="label")
    other = network()
    with torch.no_grad():
        other[0].weight[0, 0] += 1
    x, y = rows()
    changed = x.clone()
    changed[20, 1] += 1
    for what, data, call in (
        ("method='Saliency'", loader(), {"method": tw.InputXGradient(network())}),
        ("settings={}", loader(), {"method": tw.Saliency(network(), signed=True)}),
        ("other weights", loader(), {"method": tw.Saliency(other)}),
        ("target='label'", loader(), {"target": 1}),
        ("batch 2", DataLoader(TensorDataset(changed, y), batch_size=8), {}),
        ("batch 0", DataLoader(TensorDataset(x, y), batch_size=5), {}),
        ("5 batches finished, the data have 4", DataLoader(TensorDataset(x[:32], y[:32]), batch_size=8), {}),
        ("resume=True", loader(), {"resume": False}),
    ):
        arguments = {"method": method, "target": "label"} | call
        with pytest.raises(ValueError, match=what):
            tw.explain_dataset(arguments.pop("method"), data, path, **arguments)
    assert len(tw.load_dataset(path)) == ROWS
    grown = tw.explain_dataset(method, DataLoader(TensorDataset(*rows()), batch_size=8), path, target="label")
    assert len(grown) == ROWS


def test_rows_that_fail_are_recorded_and_the_rest_goes_on(tmp_path):
    x, y = rows()
    x[13] = torch.nan
    x[32:] = torch.nan
    data = DataLoader(TensorDataset(x, y), batch_size=8)
    method = tw.Saliency(network())
    with pytest.raises(ValueError, match="NaN"):
        tw.explain_dataset(method, data, tmp_path / "raise", target="label")
    assert len(tw.load_dataset(tmp_path / "raise")) == 8
    found = tw.explain_dataset(method, data, tmp_path / "record", target="label", on_error="record")
    assert [f.row for f in found.failed] == [13, *range(32, 40)]
    assert all("ValueError: inputs" in f.error for f in found.failed)
    assert found.rows == [*range(13), *range(14, 32)]
    good = [i for i in range(32) if i != 13]
    torch.testing.assert_close(found[:].attributions, method.attribute(x[good], y[good]))
    assert len(tw.load_dataset(tmp_path / "record").failed) == 9


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    method, path = tw.Saliency(network()), tmp_path / "out"

    def full(source, target):
        if "00000003" in str(target):
            raise OSError(28, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(stored.os, "replace", full)
    with pytest.raises(OSError, match="No space left on device: nothing was written"):
        tw.explain_dataset(method, loader(), path, target="label")
    monkeypatch.undo()
    assert sorted(files(path)) == [f"batch-0000000{k}.safetensors" for k in range(3)]
    assert not list(path.glob(".*"))
    found = tw.explain_dataset(method, loader(), path, target="label")
    assert found[:].attributions.equal(tw.concat([method.explain(*b) for b in loader()]).attributions)


def test_after_a_batch_that_cannot_be_written_none_is(tmp_path, monkeypatch):
    write = job_module.write_contents

    def full_once(path, contents):
        if "00000001" in path.name:
            time.sleep(0.2)  # the others are explained meanwhile
            raise OSError(28, "No space left on device")
        write(path, contents)

    monkeypatch.setattr(job_module, "write_contents", full_once)
    with pytest.raises(OSError, match="No space"):
        tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path, target="label")
    assert list(files(tmp_path)) == ["batch-00000000.safetensors"]
    assert "1 of 5 batches" in repr(tw.load_dataset(tmp_path))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no limits of files here")
def test_a_disk_that_takes_half_of_a_file_leaves_none_of_it(tmp_path):
    resource = pytest.importorskip("resource")
    method, path = tw.Saliency(network()), tmp_path / "out"
    whole = tw.explain_dataset(method, loader(), tmp_path / "whole", target="label")
    x, y = rows()
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = max(map(len, files(tmp_path / "whole").values()))
    data = [(x[:8], y[:8]), (x[8:40], y[8:40])]  # the second batch is a file that the disk takes a part of
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100, before[1]))
        with pytest.raises(OSError, match="File too large: nothing was written"):
            tw.explain_dataset(method, data, path, target="label")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(files(path)) == ["batch-00000000.safetensors"]
    assert not list(path.glob(".*"))
    found = tw.explain_dataset(method, data, path, target="label")
    assert found[:].attributions.equal(whole[:].attributions)


def test_memory_is_that_of_a_few_batches(tmp_path, monkeypatch):
    alive, most = {"batches": 0, "explanations": 0}, []

    def counted(thing, name):
        def gone():
            alive[name] -= 1

        alive[name] += 1
        weakref.finalize(thing, gone)
        return thing

    def batches():
        for k in range(300):
            yield counted(torch.full((8, 4), float(k)), "batches")

    method, explain = tw.Saliency(network()), tw.Saliency.explain
    monkeypatch.setattr(tw.Saliency, "explain", lambda *a, **k: counted(explain(*a, **k), "explanations"))
    tw.explain_dataset(method, batches(), tmp_path, target=1, callback=lambda _: most.append(dict(alive)))
    assert len(most) == 300
    assert max(m["batches"] for m in most) <= job_module.IN_FLIGHT + 3
    assert max(m["explanations"] for m in most) <= 2


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "out"

    def meanwhile(report):
        with pytest.raises(RuntimeError, match="another process is writing"):
            tw.explain_dataset(tw.Saliency(network()), loader(), path, target="label")

    assert len(tw.explain_dataset(tw.Saliency(network()), loader(), path, target="label", callback=meanwhile)) == ROWS


@forks
def test_the_lock_is_not_that_of_a_loaders_workers(tmp_path):
    store = stored.Store(tmp_path)
    with store.locked():
        child = os.fork()
        if not child:  # as a worker that outlives its process
            time.sleep(60)
            os._exit(0)
    try:
        time.sleep(0.2)  # for it to begin
        with store.locked():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_bad_input(tmp_path):
    method = tw.Saliency(network())
    taken = tmp_path / "file"
    taken.write_text("")
    for error, what, arguments in (
        (TypeError, "method: expected", {"method": network()}),
        (TypeError, "data: expected", {"data": 3}),
        (ValueError, "data: there are no rows", {"data": []}),
        (ValueError, "shuffle", {"data": DataLoader(TensorDataset(*rows()), shuffle=True)}),
        (ValueError, "have no labels", {"data": rows()[0], "target": "label"}),
        (ValueError, "on_error='skip'", {"on_error": "skip"}),
        (TypeError, "batch_size", {"batch_size": 3}),
        (OSError, "file", {"path": taken}),
        (ValueError, "give it an int", {"method": tw.SmoothGrad(network(), generator=torch.Generator())}),
    ):
        given = {"method": method, "data": loader(), "path": tmp_path / what[:5], "target": 1} | arguments
        with pytest.raises(error, match=what):
            tw.explain_dataset(given.pop("method"), given.pop("data"), given.pop("path"), **given)
    with pytest.raises(FileNotFoundError, match="no explanations"):
        tw.load_dataset(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="not the manifest"):
        tw.load_dataset(tmp_path)


@pytest.mark.parametrize("data", [[], rows()[0]], ids=["no rows", "no labels"])
def test_a_job_that_finished_nothing_holds_up_no_other(tmp_path, data):
    with pytest.raises(ValueError, match=r"no rows|no labels"):
        tw.explain_dataset(tw.SmoothGrad(network()), data, tmp_path, target="label")
    assert not files(tmp_path)
    found = tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path, target=1, resume=False)
    assert found.complete
    assert (found.manifest["method"], found.manifest["target"], len(found)) == ("Saliency", 1, ROWS)
    with pytest.raises(ValueError, match="method='Saliency'"):
        tw.explain_dataset(tw.SmoothGrad(network()), loader(), tmp_path, target=1)


def test_a_sample_is_a_batch_that_fails_or_succeeds_as_a_whole(tmp_path):
    x, features = rows(4)[0], torch.tensor([0, 0, 1, 2])
    samples = [tw.Sample(part, features, names=["a", "b", "c"]) for part in (x[:2], x[2:])]
    method = tw.ExactShapley(network())
    found = tw.explain_dataset(method, samples, tmp_path / "out", target=0)
    assert found.rows == [0, 1, 2, 3]
    torch.testing.assert_close(found[:].attributions, torch.cat([method.attribute(s, 0) for s in samples]))
    assert list(found[3].names[0]) == ["a", "b", "c"]
    again = []
    tw.explain_dataset(method, samples, tmp_path / "out", target=0, callback=again.append)
    assert again[-1].finished_before == 4
    samples[1] = tw.Sample(x[2:], torch.tensor([0, 1, 1, 2]), names=["a", "b", "c"])
    with pytest.raises(ValueError, match="batch 1"):  # other features
        tw.explain_dataset(method, samples, tmp_path / "out", target=0)
    broken = tw.Sample(torch.full((2, 4), torch.nan), features, names=["a", "b", "c"])
    failed = tw.explain_dataset(method, [samples[0], broken], tmp_path / "nan", target=0, on_error="record").failed
    assert [row.row for row in failed] == [2, 3]


def test_prompts_are_explained_with_the_names_of_their_words(tmp_path):
    method, path = tw.ExactShapley(language_model("gpt2")), tmp_path / "out"

    def prompts(absent="pad", response="golf"):
        texts = ("Dave lives in Palm Coast", ["Dave lives", "in Palm"])
        return [tw.Prompt(WordTokenizer(), text, response=response, absent=absent) for text in texts]

    found = tw.explain_dataset(method, prompts(), path)
    assert found.rows == [0, 1, 2]
    torch.testing.assert_close(found[1:].attributions, method.attribute(prompts()[1]))
    assert list(found[2].names[0]) == ["in", "Palm"]
    for changed in (prompts(absent="remove"), prompts(response="lawyer")):
        with pytest.raises(ValueError, match="batch 0"):
            tw.explain_dataset(method, changed, path)


def test_the_table_has_the_numbers_of_the_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    found = tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path / "out", target="label")
    table = found.to_dataframe()
    assert list(table.index) == list(range(ROWS))
    np.testing.assert_array_equal(table.to_numpy(), found[:].attributions.numpy())
    assert list(found.to_dataframe(long=True)["row"][:5]) == [0, 0, 0, 0, 1]
    for options in ({}, {"long": True}, {"facts": True}):
        found.to_csv(tmp_path / "table.csv", **options)
        read, whole = pandas.read_csv(tmp_path / "table.csv"), found.to_dataframe(**options)
        pandas.testing.assert_frame_equal(
            read, whole if options.get("long") else whole.reset_index(), check_dtype=False
        )


def small_cnn():
    torch.manual_seed(0)
    blocks = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128, 3)).eval()


def images(n):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=8)


SCRIPT = """
import sys, torch, torchwhy as tw
sys.path.insert(0, {tests!r})
from test_datasets import images, small_cnn
torch.set_num_threads(1)
tw.explain_dataset(tw.SmoothGrad(small_cnn(), n_samples=4, generator=3), images({rows}), sys.argv[1], target="label")
"""


def script(tmp_path, count):
    file = tmp_path / "job.py"
    file.write_text(SCRIPT.format(tests=str(Path(__file__).parent), rows=count))
    return str(file)


def run_here(path, count):
    """The same job in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method = tw.SmoothGrad(small_cnn(), n_samples=4, generator=3)
        return tw.explain_dataset(method, images(count), path, target="label")
    finally:
        torch.set_num_threads(threads)


def start_copy(path, count, before=()):
    """The job in a copy of this process, which has nothing to import."""
    child = os.fork()
    if child:
        return child
    try:
        for step in before:
            step()
        run_here(path, count)
    finally:
        os._exit(1)


def start_anew(path, count):
    """The job in a new interpreter."""
    return subprocess.Popen([sys.executable, script(path.parent, count), str(path)]).pid


def check_killed(tmp_path, count, times, start):
    run_here(tmp_path / "whole", count)
    seed = random.Random(0)
    path = tmp_path / "killed"
    for _ in range(times):
        done = len(list(path.glob("batch-*")))
        process = start(path, count)
        more, until = seed.randrange(1, max(2, len(images(count)) // (3 * times))), time.monotonic() + 300
        while len(list(path.glob("batch-*"))) < done + more and time.monotonic() < until:
            assert os.waitpid(process, os.WNOHANG) == (0, 0)  # it is at work
            time.sleep(0.002)
        time.sleep(seed.random() * 0.02)
        os.kill(process, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL  # it was at work
        finished = [line for line in (path / "finished-0.jsonl").read_text().splitlines() if line.endswith("}")]
        assert done <= len(finished) <= len(list(path.glob("batch-*")))
    assert len(list(path.glob("batch-*"))) < len(images(count))
    found = run_here(path, count)
    assert files(path) == files(tmp_path / "whole")
    assert found.rows == list(range(count))


@forks_and_differentiates
def test_killed_and_started_again_it_gives_the_same_bits(tmp_path):
    check_killed(tmp_path, 320, 1, start_copy)


def end_before_the_name():
    """From now on this process ends where it would name the second batch's file."""
    name = os.replace

    def replace(source, target):
        if "batch-00000001" in str(target):
            os._exit(9)
        name(source, target)

    os.replace = replace


@forks_and_differentiates
def test_a_file_that_a_killed_process_had_not_named_yet_is_not_left(tmp_path):
    path = tmp_path / "killed"
    ended = os.waitpid(start_copy(path, 96, [end_before_the_name]), 0)[1]
    assert os.WEXITSTATUS(ended) == 9
    assert [p.name[0] for p in path.glob("*batch-*")].count(".") == 1
    run_here(path, 96)
    assert not list(path.glob(".*"))


@pytest.mark.slow
def test_killed_five_times_over_ten_thousand_rows(tmp_path):
    check_killed(tmp_path, 10_000, 5, start_anew)


def torchrun(job, path, processes=2):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        job,
        str(path),
    ]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_a_lost_one_is_made_up_for(tmp_path):
    job = script(tmp_path, 2000)
    subprocess.run([sys.executable, job, str(tmp_path / "one")], check=True)
    assert torchrun(job, tmp_path / "two").wait() == 0
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert len(list((tmp_path / "two").glob("finished-*.jsonl"))) == 2
    path = tmp_path / "lost"
    running = torchrun(job, path)
    while len(list(path.glob("batch-*"))) < 8 and running.poll() is None:
        time.sleep(0.01)
    listed = subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True).stdout.split()
    os.kill(int(listed[-1]), signal.SIGKILL)
    assert running.wait() != 0
    assert torchrun(job, path).wait() == 0
    assert files(path) == files(tmp_path / "one")


@pytest.mark.slow
def test_the_example_of_ray_equals_the_plain_call(tmp_path):
    pytest.importorskip("ray")
    example = Path(__file__).parent.parent / "examples" / "ray_data.py"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    said = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stderr
    assert "114 rows, with the columns row, x, label, attributions, scores" in said.stdout


def test_data_that_are_overwritten_in_place_are_kept_as_they_were(tmp_path):
    x = rows()[0]

    def batches():
        buffer = torch.empty(8, 4)
        for part in x.split(8):
            yield buffer.copy_(part)

    found = tw.explain_dataset(tw.Saliency(network()), batches(), tmp_path / "out", target=1)
    assert found[:].inputs.equal(x)


def plus(z):
    return network()(z) + 1


def scaled(factor, shift=0):
    def model(z, shift=shift):
        return factor * z + shift

    return model


SHIFT = torch.zeros(3)


def held(tensor):
    return lambda z: z @ tensor


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (network(), nn.Sequential(network()[0], nn.Softplus(), network()[2]), "a model of other layers or other code"),
        (nn.Sequential(nn.LeakyReLU(0.1)), nn.Sequential(nn.LeakyReLU(0.2)), "a model of other layers"),
        (lambda z: z + 1, lambda z: z + 2, "a model of other layers or other code"),
        (lambda z: z.exp(), lambda z: z.sin(), "a model of other layers or other code"),
        (scaled(2), scaled(3), "a model of other layers or other code"),
        (scaled(2), scaled(2, 1), "a model of other layers or other code"),
        (held(torch.ones(4, 2)), held(torch.eye(4)), "a model of other layers or other code"),
        (partial(torch.add, other=1), partial(torch.add, other=2), "a model of other layers or other code"),
    ],
    ids=["activation", "slope", "constant", "name", "closure", "default", "tensor", "partial"],
)
def test_a_model_with_the_same_parameters_is_told_by_its_code(tmp_path, first, second, what):
    x = rows()[0]
    tw.explain_dataset(tw.Saliency(first), x, tmp_path, target=1, batch_size=8)
    (tmp_path / "batch-00000002.safetensors").unlink()
    with pytest.raises(ValueError, match=what):
        tw.explain_dataset(tw.Saliency(second), x, tmp_path, target=1, batch_size=8)
    assert tw.explain_dataset(tw.Saliency(first), x, tmp_path, target=1, batch_size=8).complete


def test_targets_settings_and_arguments_are_told_by_what_they_are(tmp_path):
    x = rows()[0]

    def job(method, path, **given):
        return tw.explain_dataset(method, x, tmp_path / path, batch_size=8, **given)

    job(tw.Saliency(network()), "target", target=lambda out: out[:, 0])
    with pytest.raises(ValueError, match="another target: a function of other code"):
        job(tw.Saliency(network()), "target", target=lambda out: out[:, 1])
    method, base = tw.IntegratedGradients(network(), n_steps=4), torch.zeros(8, 4)
    for i, made in enumerate((torch.Tensor.clone, tw.Distribution)):
        job(method, f"{i}", target=1, baselines=made(base))
        with pytest.raises(ValueError, match="other arguments: tensors of other values"):
            job(method, f"{i}", target=1, baselines=made(base + 1e-3))
        assert job(method, f"{i}", target=1, baselines=made(base)).complete


WORDS = {f"word {i}" for i in range(20)}


def likenesses():
    """Of ten different things, and the order of a set, which is another one in each process."""
    things = (plus, scaled(2), network(), WORDS, held(SHIFT), lambda z: z in {"a", "b", "c", "d", "e", "f", "g", "h"})
    things += (tw.Distribution(SHIFT[None]), partial(plus, z=1), small_cnn().forward, tw.SmoothGrad(network()))
    return [likeness_of(thing) for thing in things], list(WORDS)


def test_likeness_is_the_same_in_another_process():
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "from test_datasets import likenesses\nprint(likenesses())"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    here, order = likenesses()
    there, other_order = ast.literal_eval(said)
    assert other_order != order
    assert there == here
    assert len(set(there)) == 10


def test_a_function_that_takes_notes_stays_what_it_is(tmp_path):
    calls, count, net = [], 0, network()

    def model(z):
        nonlocal count
        count += 1
        calls.append(len(z))
        return net(z)

    for _ in range(2):
        assert tw.explain_dataset(tw.Saliency(model), loader(), tmp_path, target="label").complete
    with torch.no_grad():
        net[0].weight += 1
    with pytest.raises(ValueError, match="other code"):
        tw.explain_dataset(tw.Saliency(model), loader(), tmp_path, target="label")


class Opaque:
    """A model of which no description sees what it does."""

    def __init__(self, factor):
        self.net, self.factor = network(), factor

    def __call__(self, z):
        return self.factor * self.net(z)


@pytest.mark.parametrize("broken", [None, 0, 3])
def test_what_no_description_sees_is_seen_by_explaining_a_batch_again(tmp_path, broken):
    def job(factor):
        return tw.explain_dataset(tw.Saliency(Opaque(factor), check=False), loader(), tmp_path, target="label")

    job(1.0)
    if broken is not None:
        (tmp_path / f"batch-0000000{broken}.safetensors").unlink()
    before = files(tmp_path)
    again = 1 if broken == 0 else 0
    with pytest.raises(ValueError, match=f"batch {again} of .* comes out otherwise .*attributions differ by 0.02"):
        job(1.02)
    assert files(tmp_path) == before  # nothing of the other model is left
    assert job(1 + 1e-6).complete  # rounding


def test_finished_batches_without_a_manifest_are_refused(tmp_path):
    tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path, target="label")
    (tmp_path / "manifest.json").unlink()
    for resume in (True, False):
        with pytest.raises(ValueError, match="holds finished batches, and no manifest"):
            tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path, target="label", resume=resume)


def test_a_folder_from_before_there_were_hashes_of_code_goes_on(tmp_path):
    job = (tw.Saliency(network()), loader(), tmp_path)
    tw.explain_dataset(*job, target="label")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in ("structure", "of_settings", "of_target", "of_arguments", "python"):
        del manifest[name]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "batch-00000002.safetensors").unlink()
    assert tw.explain_dataset(*job, target="label").complete
    other = nn.Sequential(network()[0], nn.Softplus(), network()[2])
    with pytest.raises(ValueError, match="comes out otherwise"):
        tw.explain_dataset(tw.Saliency(other), loader(), tmp_path, target="label")


def test_a_row_that_fails_is_named_by_its_number_in_the_data(tmp_path):
    x = rows(80)[0]
    x[70] = torch.nan
    for method in (tw.Saliency(network()), tw.KernelSHAP(network(), n_samples=16, check=False, generator=0)):
        path = tmp_path / type(method).__name__
        with pytest.raises(ValueError, match="inputs: row 70 holds NaN"):
            tw.explain_dataset(method, x, path / "raise", target=1)
        failed = tw.explain_dataset(method, x, path / "record", target=1, on_error="record").failed
        assert [row.row for row in failed] == [70]
        assert "inputs: row 70 holds NaN" in failed[0].error
    base = tw.Distribution(torch.tensor([[0.0] * 4, [torch.nan] * 4]))
    with pytest.raises(ValueError, match="baselines: row 1 holds"):  # of the baselines
        tw.explain_dataset(method, x[:70], tmp_path / "baselines", target=1, batch_size=60, baselines=base)


def test_the_facts_alone(tmp_path):
    pandas = pytest.importorskip("pandas")
    method = tw.IntegratedGradients(network(), n_steps=4)
    found = tw.explain_dataset(method, loader(), tmp_path / "out", target="label")
    whole, alone = found.to_dataframe(facts=True), found.to_dataframe(features=False)
    assert list(alone) == ["target", "score", "base_score", "probability", "gap"]
    pandas.testing.assert_frame_equal(alone, whole[list(alone)])
    pandas.testing.assert_frame_equal(found[:].to_dataframe(features=False), alone, check_names=False)
    found.to_csv(tmp_path / "facts.csv", features=False)
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "facts.csv"), alone.reset_index())
    with pytest.raises(ValueError, match="features=False: a long table"):
        found.to_dataframe(long=True, features=False)


def test_what_was_damaged_since_says_so_and_what_to_do(tmp_path):
    job = (tw.Saliency(network()), loader(), tmp_path)
    found = tw.explain_dataset(*job, target="label")
    file = tmp_path / "batch-00000001.safetensors"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1  # a bit of a number
    file.write_bytes(contents)
    assert found[:8].attributions.shape == (8, 4)
    with pytest.raises(ValueError, match=r"batch-00000001.*run the job again"):
        found[9]
    index = tmp_path / "index.json"
    index.write_text(index.read_text()[:50])
    with pytest.raises(ValueError, match=r"index\.json: .*run the job again"):
        tw.load_dataset(tmp_path)
    assert tw.explain_dataset(*job, target="label")[9].attributions.isfinite().all()


def test_the_bar_knows_how_many_rows_there_are(tmp_path, capsys):
    def batches():
        yield from loader()

    job = (tw.Saliency(network()), loader(), tmp_path / "out")
    for _ in range(2):
        tw.explain_dataset(*job, target="label", progress=True)
        assert f"{ROWS}/{ROWS}" in capsys.readouterr().err
    for data, total in ((rows()[0], ROWS), (TensorDataset(*rows()), ROWS), (batches(), None), ([rows()], None)):
        assert count_all_rows(data) == total


def test_bools_of_numpy_pick_rows_without_a_warning(tmp_path):
    found = tw.explain_dataset(tw.Saliency(network()), loader(), tmp_path, target="label")
    picked = np.arange(ROWS) % 2 == 0
    picked.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(found[picked]) == ROWS // 2


def test_a_table_of_many_columns_is_one_of_few_with_more_of_them(monkeypatch):
    pandas = pytest.importorskip("pandas")
    e = tw.IntegratedGradients(network(), n_steps=4).explain(*rows(6))
    for facts in (False, True):
        few = e.to_dataframe(facts=facts)
        with monkeypatch.context() as patch:
            patch.setattr("torchwhy.explanation.table.MANY_COLUMNS", 1)
            pandas.testing.assert_frame_equal(e.to_dataframe(facts=facts), few)
