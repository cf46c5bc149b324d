"""What `import gessl` gives, and what it does not cost."""

import ast
import importlib
import subprocess
import sys

import pytest

import gessl
from gessl.records.steps import STEPS
from tests.conftest import ROOT


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "scipy", "pandas", "sklearn", "PIL", "pydantic", "torchvision")
    assert run(f"import gessl, sys; print([name for name in {heavy!r} if name in sys.modules], dir(gessl) != [])") == (
        "[] True"
    )
    assert run("import gessl, sys; gessl.UserError; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("name", gessl.__all__)
def test_every_name_is_there(name: str) -> None:
    found = getattr(gessl, name)
    assert callable(found) and found.__name__ == name and found.__doc__
    assert name in dir(gessl)


def test_type_checkers_read_the_same_names() -> None:
    stub = ast.parse((ROOT / "gessl/__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        (node.module, alias.name, alias.asname)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for _, name, _ in imported} == set(gessl.__all__)
    for module, name, shown in imported:
        assert shown == name
        assert getattr(importlib.import_module(module or ""), name) is getattr(gessl, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gessl' has no attribute 'sigmas'"):
        _ = gessl.sigmas  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        "import gessl; import gessl.sigma; from gessl.sigma import divergence",
        "import gessl.sigma; import gessl",
        "from gessl.sigma import divergence; import gessl",
        "import gessl; gessl.sigma; from gessl.sigma import divergence",
    ],
)
def test_sigma_is_the_function_whoever_imports_the_module(code: str) -> None:
    assert run(f"{code}; print(gessl.sigma.__module__, callable(divergence) if 'divergence' in dir() else True)") == (
        "gessl.api.sigma True"
    )


def test_no_step_depends_on_these_functions() -> None:
    """A fingerprint follows imports: what a package names as text it does not follow."""
    from gessl.records.provenance import PACKAGE, _imported, _source

    waiting, seen = [step.module for step in STEPS.values()], set()
    while waiting:
        name = waiting.pop()
        source = _source(name)
        if source is not None and name not in seen:
            seen.add(name)
            waiting += [*_imported(source, name), name.rpartition(".")[0]]
    assert PACKAGE.name in seen and not {name for name in seen if name.startswith("gessl.api")}
