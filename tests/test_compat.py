"""torchvision and timm import beside whatever torch there is, and nothing is pretended."""

import subprocess
import sys

import pytest
import torch


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_zoos_import_after_lightleak():
    done = run("import lightleak, timm, torchvision; print(len(timm.list_models()) > 1000)")
    assert done.stdout.strip() == "True", done.stderr


def test_lightleak_alone_does_not_load_the_zoos():
    done = run("import sys, lightleak.study; print({'timm', 'torchvision', 'matplotlib'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_an_operator_without_a_body_says_so():
    import torchvision

    boxes, scores = torch.rand(2, 4), torch.rand(2)
    try:
        torch.ops.torchvision.nms  # noqa: B018
        kept = torchvision.ops.nms(boxes, scores, 0.5)
    except (RuntimeError, NotImplementedError) as error:
        assert "torchvision" in str(error)  # noqa: PT017
    else:
        assert len(kept) <= 2


def test_unknown_public_names_say_what_there_is():
    import lightleak

    with pytest.raises(AttributeError, match="find_skips"):
        _ = lightleak.find_skip
    assert set(lightleak.__all__) <= set(dir(lightleak))
    assert all(getattr(lightleak, name) is not None for name in lightleak.__all__)


def test_lightleak_imports_neither_torch_nor_the_zoos():
    done = run("import sys, lightleak; print({'torch', 'torchvision', 'timm', 'numpy', 'tyro'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("first", ["torch", "torchvision"])
def test_the_zoos_import_whatever_comes_first(first):
    """The operators are declared when torchvision is looked for, by timm or anybody else, before or after torch."""
    code = f"import lightleak, {first}, timm, torchvision, torch; print(torchvision.ops.nms is not None)"
    done = run(code)
    assert done.stdout.strip() == "True", done.stderr


def test_looking_for_torchvision_is_not_disturbed():
    code = "import lightleak, importlib.util as u; print(u.find_spec('torchvision').name, u.find_spec('no_such'))"
    done = run(code)
    assert done.stdout.strip() == "torchvision None", done.stderr
