"""The counter on other people's models: message passing of PyG and tiny configurations of transformers, by hand."""

import pytest

from shoal.costing import cost
from strange_forms import GRAPHS, MODELS


def check(case):
    found = cost(case.make(), case.example())
    assert (found.macs, found.depth, found.uncounted) == (case.macs, case.depth, ())


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch calls its CSR support a beta
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name):
    pytest.importorskip("torch_geometric", reason="needs the extra 'graphs': message passing is PyG's")
    check(GRAPHS[name])


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    pytest.importorskip("transformers", reason="needs the extra 'huggingface': the models are transformers'")
    check(MODELS[name])
