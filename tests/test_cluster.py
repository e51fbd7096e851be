"""Studies on a Ray cluster: the same results, with or without a node that is lost."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from studies import (
    descendants,
    ended,
    no_leftovers,
    plan,
    processes,
    results_without_times,
    study,
    wait_for,
)

from convnext_steps import How
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import HOLDER
from convnext_steps.execution.ray import RayBackend, attempt
from convnext_steps.execution.runfolder import done


def test_without_ray_it_is_one_line_and_writes_nothing(told, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    results = tmp_path / "results"
    for options in (["--backend", "ray"], ["--address", "auto"]):
        error = told("study", "smoke", "--results", results, *options, code=2).err
        assert error == "convnext-steps: --backend ray needs: pip install 'convnext-steps[ray]'\n"
    assert not results.exists()


class PretendedRay(ModuleType):
    """Notes what is asked of it."""

    def __init__(self, resources: dict[str, float]) -> None:
        super().__init__("ray")
        self.resources, self.asked = resources, []

    def init(self, address, **options) -> None:
        self.address = address

    def nodes(self):
        return [{"Resources": {"CPU": 2.0}}, {"Resources": self.resources}]

    def remote(self, **options):
        self.decorated = options
        return lambda function: self

    def options(self, **options):
        self.asked.append({name: value for name, value in options.items() if name != "name"})
        return SimpleNamespace(remote=lambda *arguments: SimpleNamespace(future=lambda: None))


CPU = {"num_cpus": 1}


@pytest.mark.parametrize(
    ("resources", "needs"),
    [
        ({"CPU": 8.0}, [{"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 8}, CPU]),
        ({"CPU": 8.0, "GPU": 8.0}, [{"num_gpus": 1}, {"num_gpus": 1 / 8}, {"num_gpus": 8}, CPU]),
        ({"CPU": 8.0, "GPU": 4.0}, [{"num_gpus": 1}, {"num_gpus": 1 / 8}, {"num_gpus": 4}, CPU]),
    ],
)
def test_a_run_takes_gpus_where_there_are_some_and_a_share_without_a_notebook(
    monkeypatch, tmp_path, resources, needs
) -> None:
    ray = PretendedRay(resources)
    monkeypatch.setitem(sys.modules, "ray", ray)
    backend = RayBackend("auto")
    run = plan("smoke")[0]
    hows = (How(), How(notebooks=False), plan("imagenet")[0].how, How(device="cpu"))
    for how in hows:
        backend.start(replace(run, how=how), tmp_path)
    assert ("max_calls" in ray.decorated) == ("GPU" in resources)  # no worker keeps a GPU
    assert ray.address == "auto"
    assert ray.asked == needs


def test_without_a_notebook_the_task_trains_the_run_itself(tmp_path) -> None:
    run = replace(plan("smoke")[0], how=How(notebooks=False))
    obstacle = run.folder(tmp_path) / "best.safetensors" / "in the way"
    obstacle.mkdir(parents=True)
    assert attempt(run, tmp_path).state == "failed"
    obstacle.rmdir()
    obstacle.parent.rmdir()
    (run.folder(tmp_path) / "final.safetensors").touch()  # a kill came before the result
    assert attempt(run, tmp_path) == Outcome("done")
    assert done(run, run.folder(tmp_path))
    assert not list(tmp_path.rglob("*.ipynb"))


@pytest.fixture
def cluster(monkeypatch):
    """A head and a second node, of one core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = utils.Cluster(initialize_head=True, head_node_args=node)
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def holder_on(node, results) -> int:
    """The process on a node that holds a run, as soon as there is one."""
    raylet = node.all_processes["raylet"][0].process.pid
    held = wait_for(lambda: {*holders(results)} & {*descendants(raylet)})
    return held.pop()


def holders(results) -> Iterator[int]:
    for path in results.rglob(HOLDER):
        with contextlib.suppress(FileNotFoundError, ValueError):  # released, or half written
            yield json.loads(path.read_text())["pid"]


@pytest.mark.slow
def test_a_lost_node_is_survived_with_the_results_of_one_machine(cluster, tmp_path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    seeds = ("--seeds", "0", "1")
    ended(study(alone, *seeds, "--set", "how.notebooks=false"))

    process = study(shared, *seeds, "--address", cluster.address)
    lost = holder_on(cluster.second, shared)
    cluster.remove_node(cluster.second, allow_graceful=False)
    out, _ = ended(process)
    assert "figure: " in out
    assert lost not in [pid for pid, *_ in processes()]
    assert results_without_times(shared) == results_without_times(alone)
    assert no_leftovers(shared)
