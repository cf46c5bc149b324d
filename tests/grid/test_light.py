"""What a plan does not wait for."""

import subprocess
import sys


def test_checking_the_methods_imports_no_torchvision() -> None:
    """Its import takes longer than to read and check a plan."""
    code = (
        "import sys; from gessl.grid.values import load_method; from gessl.methods import method_names\n"
        "for name in method_names(): load_method(name, {}, name)\n"
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
