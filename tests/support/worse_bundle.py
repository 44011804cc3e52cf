"""A bundle that is worse than another on purpose: the same parts, but the scorer tells of each candidate what it found
of another. Everything else is right, checksums too.

    python -m tests.support.worse_bundle BUNDLE VERSION

writes it beside BUNDLE as VERSION.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from services.runtime.bundle import Bundle, open_bundle, seal_bundle

_OUTPUT, _TRUE = "click", "click_before_shuffling"


def make_worse(bundle: Bundle, version: str) -> Bundle:
    """Write models/<scenario>/<version>, in which the click scores of a request's candidates are dealt out in reverse:
    the best candidate gets what belongs to the last one. The distribution of scores stays."""
    folder = bundle.path.with_name(version)
    shutil.copytree(bundle.path, folder)
    scorer = folder / "triton" / "scorer" / "1" / "model.onnx"
    model = onnx.load(scorer)
    onnx.save(_reversed(model), scorer)
    return seal_bundle(folder, bundle.manifest.model_copy(update={"model_version": version}))


def _reversed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its output `click` [B, C] turned round along C."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [_TRUE if name == _OUTPUT else name for name in node.input]
        node.output[:] = [_TRUE if name == _OUTPUT else name for name in node.output]
    arguments = {"starts": -1, "ends": np.iinfo(np.int64).min, "axes": 1, "steps": -1}
    names = []
    for name, value in arguments.items():
        names.append(f"shuffle_{name}")
        graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=np.int64), names[-1]))
    graph.node.append(helper.make_node("Slice", [_TRUE, *names], [_OUTPUT]))
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="Make a worse version of a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("version")
    chosen = parser.parse_args()
    print(make_worse(open_bundle(chosen.bundle), chosen.version).path)


if __name__ == "__main__":
    main()
